//! When a [`Schedule`] fires.
//!
//! Away from a change of the clock a zone is an offset, and the next time is found by looking at bits. Near one, all times of a day are made and
//! compared as moments.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::Schedule;

/// More than the eight years between two 29ths of February around 2100.
const YEARS: i16 = 9;

/// Two days: no zone is further from UTC than one, so that a change of the clock within a date is surely within this of its midnight in UTC.
const NEAR: SignedDuration = SignedDuration::from_hours(48);

pub(super) fn next_after(schedule: &Schedule, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut date = zone.to_datetime(moment).date();
    let last = Date::new(date.year().checked_add(YEARS)?, 12, 31).ok()?;
    if offset_around(date, zone).is_none() {
        // A clock that goes back over midnight shows the end of the day before once more.
        date = date.yesterday().ok()?;
    }
    while date <= last {
        let found = match (schedule.has_date(date), offset_around(date, zone)) {
            (false, Some(_)) => None,
            (true, Some(offset)) => schedule.on(date, offset).find(|due| *due > moment),
            // A date whose first hours come before the last ones of the date before it has them sorted in.
            (_, None) => {
                let tomorrow = date.tomorrow().ok()?;
                [date, tomorrow].into_iter().flat_map(|date| schedule.near_a_change(date, zone)).filter(|due| *due > moment).min()
            }
        };
        if found.is_some() {
            return found;
        }
        date = next_date(schedule, date)?;
    }
    None
}

pub(super) fn last_until(schedule: &Schedule, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut date = zone.to_datetime(moment).date().tomorrow().ok()?;
    let first = Date::new(date.year().checked_sub(YEARS)?, 1, 1).ok()?;
    while date >= first {
        let found = match (schedule.has_date(date), offset_around(date, zone)) {
            (false, Some(_)) => None,
            (true, Some(offset)) => schedule.on(date, offset).take_while(|due| *due <= moment).last(),
            (_, None) => {
                let yesterday = date.yesterday().ok()?;
                [date, yesterday].into_iter().flat_map(|date| schedule.near_a_change(date, zone)).filter(|due| *due <= moment).max()
            }
        };
        if found.is_some() {
            return found;
        }
        date = date.yesterday().ok()?;
    }
    None
}

/// The next date that may be one of the schedule's: months that it doesn't name are left out. The last day of a month is looked at in any case, for
/// the sake of the day after it.
fn next_date(schedule: &Schedule, date: Date) -> Option<Date> {
    let is_named = |date: Date| schedule.months & (1 << date.month()) != 0;
    if is_named(date) || date.day() >= date.days_in_month() - 2 {
        return date.tomorrow().ok();
    }
    date.with().day(date.days_in_month() - 1).build().ok()
}

/// The zone's offset on a date and around it; none if the clock changes near it.
fn offset_around(date: Date, zone: &TimeZone) -> Option<Offset> {
    let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    let (before, after) = (midnight.checked_sub(NEAR).ok()?, midnight.checked_add(NEAR).ok()?);
    let changes = zone.following(before).next().is_some_and(|change| change.timestamp() <= after);
    (!changes).then(|| zone.to_offset(midnight))
}

impl Schedule {
    fn has_date(&self, date: Date) -> bool {
        let day = self.days & (1 << date.day()) != 0;
        let weekday = self.weekdays & (1 << date.weekday().to_sunday_zero_offset()) != 0;
        let days_fit = if self.either_day { day || weekday } else { day && weekday };
        self.months & (1 << date.month()) != 0 && days_fit
    }

    /// Its times on a date that it has, in order.
    fn times(&self) -> impl Iterator<Item = Time> + '_ {
        let hours = (0..24i8).filter(|hour| self.hours & (1 << hour) != 0);
        hours.flat_map(|hour| {
            let minutes = (0..60i8).filter(|minute| self.minutes & (1 << minute) != 0);
            minutes.map(move |minute| Time::constant(hour, minute, 0, 0))
        })
    }

    fn on(&self, date: Date, offset: Offset) -> impl Iterator<Item = Timestamp> + '_ {
        self.times().filter_map(move |time| offset.to_timestamp(date.to_datetime(time)).ok())
    }

    /// Its moments of a date near a change of the clock, in no order and perhaps more than once.
    fn near_a_change(&self, date: Date, zone: &TimeZone) -> Vec<Timestamp> {
        if !self.has_date(date) {
            return Vec::new();
        }
        self.times().flat_map(|time| self.moments(date.to_datetime(time), zone)).flatten().collect()
    }

    /// The moments of a local time: one, none or two of a schedule of every hour, and always one of another.
    fn moments(&self, local: DateTime, zone: &TimeZone) -> [Option<Timestamp>; 2] {
        let at = |offset: Offset| offset.to_timestamp(local).ok();
        match (zone.to_ambiguous_timestamp(local).offset(), self.every_hour) {
            (AmbiguousOffset::Unambiguous { offset }, _) => [at(offset), None],
            (AmbiguousOffset::Gap { .. }, true) => [None, None],
            // The change itself: seen from before it, the time is after it.
            (AmbiguousOffset::Gap { before: _, after }, false) => {
                let change = at(after).and_then(|before_it| zone.following(before_it).next());
                [change.map(|change| change.timestamp()), None]
            }
            (AmbiguousOffset::Fold { before, after }, true) => [at(before), at(after)],
            (AmbiguousOffset::Fold { before, after: _ }, false) => [at(before), None],
        }
    }
}
