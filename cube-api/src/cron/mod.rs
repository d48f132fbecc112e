//! Cron lines: `30 2 * * mon-fri`, and when they fire in a time zone.
//!
//! A reader of our own, because what a manifest says wrong has to be told by field, and because daylight saving has to be decided for
//! [`jiff`]'s time zones: the crates that know them read second and year fields, `L` and `W` as well, say "component error" of a field that they
//! don't name, and one of them brings two derive macros.
//!
//! The fields are Kubernetes': minute, hour, day of the month, month, day of the week, each with lists, ranges and steps, months and days by name,
//! or one of `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight` and `@hourly`. Where both days are given, either is enough.
//!
//! **Daylight saving.** What is due at a set hour happens once on every day that has it: where the clock skips the time, when the clock has
//! moved; where the clock shows it twice, at the first. What is due in every hour (the hour begins with `*`) follows the real hours: nothing is
//! made up for an hour that a clock skipped, and both of the two equal ones count.

mod fires;
mod read;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A cron line that fires some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Bit n: minute n.
    minutes: u64,
    /// Bit n: hour n.
    hours: u64,
    /// Bit n: day n of the month.
    days: u64,
    /// Bit n: month n.
    months: u64,
    /// Bit n: day n of the week, 0 is Sunday.
    weekdays: u64,
    /// Whether both days say something, so that either is enough.
    either_day: bool,
    /// Whether the hour begins with `*`: daylight saving is no matter then.
    every_hour: bool,
}

impl Schedule {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence without a full stop that names the field, what was found there and what is allowed; also for a line that never fires.
    pub fn parse(line: &str) -> Result<Self, String> {
        read::schedule(line)
    }

    /// The first time after a moment; none beyond the years that a calendar has.
    pub fn next_after(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        fires::next_after(self, moment, zone)
    }

    /// The last time before or at a moment; none in the ten years before it.
    pub fn last_until(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        fires::last_until(self, moment, zone)
    }
}

/// The time zone of a name, such as `Europe/Berlin`; UTC without one.
///
/// # Errors
/// A sentence without a full stop.
pub fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| format!("`{name}` is no time zone; write a name of the IANA database, such as Europe/Berlin or UTC"))
}

#[cfg(test)]
mod tests;
