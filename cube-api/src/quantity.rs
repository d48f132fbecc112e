//! Amounts of cpu and memory, written as Kubernetes writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an amount of {of}: {allowed}")]
pub struct QuantityError {
    text: String,
    of: &'static str,
    allowed: &'static str,
}

/// Cpu in thousandths of a core: `250m` is 250, `0.5` is 500, `2` is 2000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliCpu(pub u64);

/// Memory or disk in bytes: `64Mi` is 67,108,864, `500M` is 500,000,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// The most of either that is accepted (2^53): beyond any machine, and exact in JSON.
const MAX: u64 = 1 << 53;

const UNITS: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

/// `number` (digits, perhaps a point and up to nine more) times `factor`; `None` where it isn't one, isn't whole or is too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = whole.parse::<u64>().ok()? as u128 * scale + if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let product = value.checked_mul(u128::from(factor))?;
    let result = u64::try_from(product / scale).ok()?;
    (product % scale == 0 && result <= MAX).then_some(result)
}

impl FromStr for MilliCpu {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let value = match text.strip_suffix('m') {
            Some(number) => scaled(number, 1),
            None => scaled(text, 1_000),
        };
        value.map(Self).ok_or_else(|| QuantityError {
            text: text.to_owned(),
            of: "cpu",
            allowed: "cores such as 2 or 0.5, or thousandths such as 250m",
        })
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unit = UNITS.iter().find_map(|&(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)));
        let (number, factor) = unit.unwrap_or((text, 1));
        scaled(number, factor).map(Self).ok_or_else(|| QuantityError {
            text: text.to_owned(),
            of: "memory or disk",
            allowed: "bytes, or a number with Ki, Mi, Gi, Ti, k, M, G or T, such as 64Mi",
        })
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1_000 {
            0 => write!(f, "{}", self.0 / 1_000),
            _ => write!(f, "{}m", self.0),
        }
    }
}

impl fmt::Display for Bytes {
    /// The largest binary unit that keeps it whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..5].iter().rev().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((suffix, factor)) => write!(f, "{}{suffix}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Amounts are texts on the wire; a bare number (`cpu: 2`) is read as its text.
macro_rules! text_on_the_wire {
    ($name:ident, $expecting:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

text_on_the_wire!(MilliCpu, "an amount of cpu such as \"250m\"");
text_on_the_wire!(Bytes, "an amount of memory or disk such as \"64Mi\"");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_is_read_as_kubernetes_reads_it() {
        for (text, expected) in
            [("250m", 250), ("0.5", 500), ("500m", 500), ("2", 2_000), ("0", 0), ("0.001", 1), ("1.500", 1_500), ("1000m", 1_000)]
        {
            assert_eq!(text.parse(), Ok(MilliCpu(expected)), "{text}");
        }
    }

    #[test]
    fn memory_is_read_as_kubernetes_reads_it() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1_024),
            ("1k", 1_000),
            ("1Ki", 1_024),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("0.5Ki", 512),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            " ",
            "-1",
            "+1",
            "1e3",
            "m",
            ".5",
            "5.",
            "1.2.3",
            "0x10",
            "1 ",
            "NaN",
            "9007199254741",
            "99999999999999999999",
            "0.0001",
            "0.5m",
            "1Mi",
        ] {
            assert!(text.parse::<MilliCpu>().is_err(), "cpu {text:?}");
        }
        for text in ["", "-1", "1e3", "Mi", "1.5", "0.1Ki", "1mi", "1MB", "250m", "9Pi", "9007199254740993", "18446744073709551616", "1 Mi"]
        {
            assert!(text.parse::<Bytes>().is_err(), "memory {text:?}");
        }
        assert_eq!(
            "lots".parse::<MilliCpu>().expect_err("not an amount").to_string(),
            "'lots' is not an amount of cpu: cores such as 2 or 0.5, or thousandths such as 250m"
        );
    }

    #[test]
    fn amounts_are_texts_on_the_wire_and_numbers_are_understood() {
        assert_eq!(serde_json::to_string(&MilliCpu(250)).expect("plain data"), "\"250m\"");
        assert_eq!(serde_json::to_string(&Bytes(64 << 20)).expect("plain data"), "\"64Mi\"");
        for (json, expected) in [("\"0.5\"", 500), ("0.5", 500), ("2", 2_000)] {
            assert_eq!(serde_json::from_str::<MilliCpu>(json).expect("an amount"), MilliCpu(expected), "{json}");
        }
        assert!(serde_json::from_str::<MilliCpu>("-1").is_err());
        assert!(serde_json::from_str::<Bytes>("[1]").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(amount in 0..=MAX) {
            prop_assert_eq!(MilliCpu(amount).to_string().parse(), Ok(MilliCpu(amount)));
            prop_assert_eq!(Bytes(amount).to_string().parse(), Ok(Bytes(amount)));
        }

        #[test]
        fn round_amounts_of_memory_are_shown_in_their_unit(count in 1u64..1_000, unit in 0usize..4) {
            let (suffix, factor) = UNITS[unit];
            prop_assume!(count % 1_024 != 0);
            prop_assert_eq!(Bytes(count * factor).to_string(), format!("{count}{suffix}"));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9.]{0,40}[a-zA-Z]{0,3}") {
            prop_assert!(text.parse::<MilliCpu>().is_ok_and(|cpu| cpu.0 <= MAX) || text.parse::<MilliCpu>().is_err());
            prop_assert!(text.parse::<Bytes>().is_ok_and(|bytes| bytes.0 <= MAX) || text.parse::<Bytes>().is_err());
        }
    }
}
