//! The reader and the calendar, compared with a clock that is looked at every minute.

use jiff::civil::Date;
use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, Span};
use proptest::prelude::*;

use super::*;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn schedule(line: &str) -> Schedule {
    Schedule::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn moment(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The next times after a moment, in the zone's own words.
fn times(line: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (schedule(line), super::zone(Some(zone)).expect("a zone"));
    let mut at = moment(after);
    let next = std::iter::from_fn(|| {
        at = schedule.next_after(at, &zone)?;
        Some(at.to_zoned(zone.clone()).strftime("%m-%d %H:%M%:z").to_string())
    });
    next.take(count).collect()
}

#[test]
fn lines_fire_when_they_say() {
    let utc = |line: &str, count| times(line, "UTC", "2026-01-01T00:00:00Z", count);
    assert_eq!(utc("* * * * *", 2), ["01-01 00:01+00:00", "01-01 00:02+00:00"]);
    assert_eq!(utc("*/20 3-5/2 * * *", 4), ["01-01 03:00+00:00", "01-01 03:20+00:00", "01-01 03:40+00:00", "01-01 05:00+00:00"]);
    assert_eq!(utc("0 12 * * MON-wed,5", 4), ["01-02 12:00+00:00", "01-05 12:00+00:00", "01-06 12:00+00:00", "01-07 12:00+00:00"]);
    assert_eq!(utc("50/5 0 1 feb *", 2), ["02-01 00:50+00:00", "02-01 00:55+00:00"]);
    assert_eq!(utc("0 0 29 2 *", 1), ["02-29 00:00+00:00"]);
    assert_eq!(utc("0 0 13 * 5", 3), ["01-02 00:00+00:00", "01-09 00:00+00:00", "01-13 00:00+00:00"], "either day is enough");
    assert_eq!(utc("0 0 * * 7", 1), utc("0 0 * * 0", 1), "7 is Sunday, too");
    assert_eq!(utc("0 0 * * 6-7", 2), ["01-03 00:00+00:00", "01-04 00:00+00:00"]);
    for (name, line) in [("@hourly", "0 * * * *"), ("@Daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@yearly", "0 0 1 1 *")] {
        assert_eq!(schedule(name), schedule(line));
    }
}

#[test]
fn what_is_wrong_is_told_by_field() {
    let told = |line: &str| Schedule::parse(line).expect_err(line);
    for (line, parts) in [
        ("", ["0 fields", "five"]),
        ("* * * *", ["4 fields", "five"]),
        ("0 * * * * *", ["6 fields", "five"]),
        ("60 * * * *", ["`60` of the minute", "0 to 59"]),
        ("* 24 * * *", ["`24` of the hour", "0 to 23"]),
        ("* * 0 * *", ["`0` of the day of the month", "1 to 31"]),
        ("* * * foo *", ["`foo` of the month", "feb"]),
        ("* * * * 8", ["`8` of the day of the week", "mon"]),
        ("* 5-3 * * *", ["`5-3` of the hour", "ends before"]),
        ("*/0 * * * *", ["`*/0` of the minute", "step"]),
        ("*/90 * * * *", ["`*/90` of the minute", "1 to 59"]),
        ("+1 * * * *", ["`+1` of the minute", "whole number"]),
        ("1,,2 * * * *", ["`` of the minute", "whole number"]),
        ("@every 1h", ["`@every 1h`", "@daily"]),
        ("CRON_TZ=UTC 0 0 * * *", ["CRON_TZ=", "timeZone"]),
        ("0 0 31 2 *", ["never fires", "`31`"]),
        ("0 0 31 2,4,6 *", ["never fires", "`2,4,6`"]),
        ("0 0 30-31 feb ?", ["never fires", "feb"]),
    ] {
        let error = told(line);
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
    assert!(Schedule::parse("0 0 31 2 1").is_ok(), "on Mondays it does");
    assert!(zone(Some("Europe/Nowhere")).is_err_and(|error| error.contains("Europe/Nowhere")));
    assert_eq!(zone(None), Ok(TimeZone::UTC));
}

#[test]
fn a_set_hour_that_the_clock_skips_happens_once_when_the_clock_has_moved() {
    let berlin = |line: &str, after: &str, count| times(line, "Europe/Berlin", after, count);
    let spring = "2026-03-28T12:00:00Z";
    assert_eq!(berlin("30 2 * * *", spring, 2), ["03-29 03:00+02:00", "03-30 02:30+02:00"]);
    assert_eq!(berlin("0,30 2 * * *", spring, 2), ["03-29 03:00+02:00", "03-30 02:00+02:00"], "once, however many there were");
    assert_eq!(berlin("0 2,3 * * *", spring, 2), ["03-29 03:00+02:00", "03-30 02:00+02:00"]);
    assert_eq!(berlin("*/30 * * * *", "2026-03-29T00:00:00Z", 3), ["03-29 01:30+01:00", "03-29 03:00+02:00", "03-29 03:30+02:00"]);
}

#[test]
fn a_set_hour_that_the_clock_shows_twice_happens_at_the_first_and_what_is_hourly_at_both() {
    let berlin = |line: &str, after: &str, count| times(line, "Europe/Berlin", after, count);
    assert_eq!(berlin("30 2 * * *", "2026-10-24T12:00:00Z", 2), ["10-25 02:30+02:00", "10-26 02:30+01:00"]);
    assert_eq!(berlin("30 * * * *", "2026-10-24T23:45:00Z", 3), ["10-25 02:30+02:00", "10-25 02:30+01:00", "10-25 03:30+01:00"]);
}

#[test]
fn a_date_that_a_zone_leaves_out_is_made_up_for_at_the_change() {
    assert_eq!(times("0 6 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", 2), ["12-31 00:00+14:00", "12-31 06:00+14:00"]);
}

/// Whether a schedule is due at a moment, by looking at what the zone's clock shows, and showed a minute before.
fn is_due(schedule: &Schedule, now: Timestamp, zone: &TimeZone) -> bool {
    let shown = zone.to_datetime(now);
    let matches = |at: jiff::civil::DateTime| {
        let days = |date: Date| {
            let day = schedule.days >> date.day() & 1 == 1;
            let weekday = schedule.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
            if schedule.either_day { day || weekday } else { day && weekday }
        };
        let (hour, minute) = (schedule.hours >> at.hour() & 1 == 1, schedule.minutes >> at.minute() & 1 == 1);
        schedule.months >> at.month() & 1 == 1 && days(at.date()) && hour && minute
    };
    if schedule.every_hour {
        return matches(shown);
    }
    let before = zone.to_datetime(now - MINUTE);
    let mut skipped = before.checked_add(Span::new().minutes(1)).expect("in range");
    let mut is_made_up = false;
    while skipped < shown {
        is_made_up |= matches(skipped);
        skipped = skipped.checked_add(Span::new().minutes(1)).expect("in range");
    }
    let is_second = match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Fold { before: _, after } => zone.to_offset(now) == after,
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => false,
    };
    is_made_up || matches(shown) && !is_second
}

/// Around changes of clocks: of an hour, of half an hour, of a day, over midnight, and none.
fn places() -> impl Strategy<Value = (&'static str, Timestamp)> {
    let places = [
        ("UTC", "2026-02-27T00:00:00Z"),
        ("Europe/Berlin", "2026-03-28T06:00:00Z"),
        ("Europe/Berlin", "2026-10-24T06:00:00Z"),
        ("America/New_York", "2026-03-07T12:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-03T20:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-02T20:00:00Z"),
        ("Pacific/Apia", "2011-12-29T00:00:00Z"),
        ("America/Sao_Paulo", "2018-02-17T00:00:00Z"),
        ("America/Sao_Paulo", "2018-11-03T00:00:00Z"),
    ];
    proptest::sample::select(places.to_vec()).prop_map(|(zone, from)| (zone, moment(from)))
}

fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
    let number = least..=most;
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => (1..=most).prop_map(|step| format!("*/{step}")),
        2 => number.clone().prop_map(|number| number.to_string()),
        1 => (number.clone(), number.clone()).prop_map(|(one, other)| format!("{}-{}", one.min(other), one.max(other))),
        1 => proptest::collection::vec(number, 1..4).prop_map(|numbers| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    ]
}

fn lines() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

proptest! {
    #[test]
    fn the_next_time_and_the_last_are_those_that_a_clock_shows(line in lines(), (zone, from) in places(), minutes in 0i64..2_880) {
        let Ok(schedule) = Schedule::parse(&line) else { return Ok(()) };
        let zone = super::zone(Some(zone)).expect("a zone");
        let start = from + MINUTE * i32::try_from(minutes).expect("few");
        let end = start + SignedDuration::from_hours(36);
        let mut clock = start + MINUTE;
        while clock <= end && !is_due(&schedule, clock, &zone) {
            clock += MINUTE;
        }
        let next = schedule.next_after(start, &zone);
        if clock <= end {
            prop_assert_eq!(next, Some(clock));
            prop_assert_eq!(schedule.last_until(clock + SignedDuration::from_secs(59), &zone), Some(clock));
        } else {
            prop_assert!(next.is_none_or(|next| next > end), "{:?}", next);
        }
        if !is_due(&schedule, start, &zone) {
            prop_assert_eq!(schedule.last_until(start, &zone), schedule.last_until(start - SignedDuration::from_secs(1), &zone));
        }
    }

    #[test]
    fn a_line_that_is_taken_fires_and_one_that_is_not_never_would(line in lines()) {
        let next = |schedule: &Schedule| schedule.next_after(moment("2096-03-01T00:00:00Z"), &TimeZone::UTC);
        match Schedule::parse(&line) {
            Ok(schedule) => prop_assert!(next(&schedule).is_some()),
            Err(error) => prop_assert!(error.contains("never fires"), "{}", error),
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}|[0-9*/,@a-z -]{0,40}") {
        drop(Schedule::parse(&text));
    }
}
