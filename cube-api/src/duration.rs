//! Lengths of time as people type and read them: `90s`, `5m`, `1h30m`.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads a length of time. The error is a sentence.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(duration) if duration.is_negative() => Err(format!("'{text}' is negative")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("'{text}' is not a length of time, such as 90s, 5m or 1h30m")),
    }
}

/// As [`parse`], for what is to be switched off: `never` and nothing at all (`0`, `0s`) are none.
pub fn parse_or_never(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" || text == "0" {
        return Ok(None);
    }
    let duration = parse(text).map_err(|error| format!("{error}, or never"))?;
    Ok(Some(duration.unsigned_abs()).filter(|duration| !duration.is_zero()))
}

/// Writes it as [`parse`] reads it.
pub fn text(duration: Duration) -> String {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    format!("{signed:#}").replace(' ', "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_type_them() {
        for (typed, seconds) in [("90s", 90), ("5m", 300), ("1h30m", 5_400), ("0s", 0)] {
            assert_eq!(parse(typed), Ok(SignedDuration::from_secs(seconds)));
        }
        assert_eq!(parse("-5s"), Err("'-5s' is negative".to_owned()));
        for wrong in ["", "5", "soon", "5 parsecs"] {
            assert_eq!(parse(wrong), Err(format!("'{wrong}' is not a length of time, such as 90s, 5m or 1h30m")));
        }
    }

    #[test]
    fn never_and_nothing_switch_off() {
        for typed in ["never", "0", "0s"] {
            assert_eq!(parse_or_never(typed), Ok(None));
        }
        assert_eq!(parse_or_never("5m"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(parse_or_never("often"), Err("'often' is not a length of time, such as 90s, 5m or 1h30m, or never".to_owned()));
    }

    #[test]
    fn they_are_written_short() {
        for (millis, expected) in [(10_000, "10s"), (90_000, "1m30s"), (300_000, "5m"), (1_500, "1s500ms"), (0, "0s")] {
            assert_eq!(text(Duration::from_millis(millis)), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0..u64::from(u32::MAX)) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&text(duration)).map(|read| read.unsigned_abs()), Ok(duration));
        }
    }
}
