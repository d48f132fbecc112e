//! A number of pods, as a count or as a share of all.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// So many pods: `2`, or `25%` of those that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A count.
    Count(u32),
    /// A share of all, from 0 to 100.
    Percent(u8),
}

impl Share {
    /// Kubernetes' default for both bounds.
    pub const DEFAULT: Self = Self::Percent(25);

    /// Of so many, a share of one counted whole.
    pub fn rounded_up(self, all: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => whole((u64::from(all) * u64::from(percent)).div_ceil(100)),
        }
    }

    /// Of so many, a share of one not counted.
    pub fn rounded_down(self, all: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => whole(u64::from(all) * u64::from(percent) / 100),
        }
    }

    /// Whether it is none, of however many.
    pub fn is_none(self) -> bool {
        match self {
            Self::Count(count) => count == 0,
            Self::Percent(percent) => percent == 0,
        }
    }
}

/// At most 100 % of a `u32`.
fn whole(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Default for Share {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a whole number nor a percentage from 0% to 100%");
        match text.strip_suffix('%') {
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(wrong),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a percentage such as \"25%\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_count_or_a_percentage_and_nothing_else() {
        let read = |text: &str| text.parse::<Share>().ok();
        assert_eq!(read("2"), Some(Share::Count(2)));
        assert_eq!(read("25%"), Some(Share::Percent(25)));
        assert_eq!(read("100%"), Some(Share::Percent(100)));
        for wrong in ["101%", "-1", "-1%", "%", "", "1.5", "half", "300%", "4294967296"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn surge_is_rounded_up_and_unavailability_down() {
        let quarter = Share::Percent(25);
        assert_eq!(
            [1, 3, 4, 5, 10].map(|all| (quarter.rounded_up(all), quarter.rounded_down(all))),
            [(1, 0), (1, 0), (1, 1), (2, 1), (3, 2)]
        );
        assert_eq!(Share::Percent(100).rounded_down(u32::MAX), u32::MAX);
        assert_eq!(Share::Count(7).rounded_up(3), 7);
    }

    #[test]
    fn a_share_is_written_as_it_was_read() {
        for text in ["2", "\"25%\""] {
            let share: Share = serde_json::from_str(text).expect("a share");
            assert_eq!(serde_json::to_string(&share).expect("plain data"), text);
        }
        assert!(serde_json::from_str::<Share>("-1").is_err());
    }
}
