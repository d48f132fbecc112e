//! From a text to a [`Schedule`].

use super::Schedule;

/// What a field may hold.
struct Field {
    name: &'static str,
    least: u64,
    most: u64,
    /// Where `*` ends: before a number that is another one's second name.
    last: u64,
    /// Words for the numbers from `least` on.
    words: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", least: 0, most: 59, last: 59, words: &[] };
const HOUR: Field = Field { name: "hour", least: 0, most: 23, last: 23, words: &[] };
const DAY: Field = Field { name: "day of the month", least: 1, most: 31, last: 31, words: &[] };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    last: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 7 is Sunday as well.
const WEEKDAY: Field =
    Field { name: "day of the week", least: 0, most: 7, last: 6, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// The lines that have a name.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The days that a month has at most: the 29th of February comes, if seldom.
const LONGEST: [u64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

pub(super) fn schedule(line: &str) -> Result<Schedule, String> {
    let line = line.trim();
    if let Some((zone, _)) = line.split_once('=').filter(|(word, _)| matches!(*word, "TZ" | "CRON_TZ")) {
        return Err(format!("a time zone is not said with `{zone}=`; write it into `timeZone`"));
    }
    let named = NAMED.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(line));
    if line.starts_with('@') && named.is_none() {
        return Err(format!("`{line}` is no schedule; {} have a name", NAMED.map(|(name, _)| name).join(", ")));
    }
    let fields: Vec<&str> = named.map_or(line, |(_, line)| line).split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        let found = fields.len();
        return Err(format!("{found} fields; five are expected: minute, hour, day of the month, month, day of the week"));
    };
    let weekdays = set(&WEEKDAY, weekday)?;
    let schedule = Schedule {
        minutes: set(&MINUTE, minute)?,
        hours: set(&HOUR, hour)?,
        days: set(&DAY, day)?,
        months: set(&MONTH, month)?,
        weekdays: (weekdays | weekdays >> 7) & 0x7f,
        either_day: !is_any(day) && !is_any(weekday),
        every_hour: hour.starts_with(['*', '?']),
    };
    if schedule.never_fires() {
        return Err(format!("it never fires: no month of `{month}` has a day of `{day}`"));
    }
    Ok(schedule)
}

impl Schedule {
    /// Whether no month that it names has a day that it names.
    fn never_fires(&self) -> bool {
        let has_a_day = |month: usize| self.months & (1 << month) != 0 && (1..=LONGEST[month - 1]).any(|day| self.days & (1 << day) != 0);
        !self.either_day && !(1..=12).any(has_a_day)
    }
}

/// Whether a field says nothing. One with a step says something.
fn is_any(field: &str) -> bool {
    field == "*" || field == "?"
}

/// The numbers of a field, as bits.
fn set(field: &Field, text: &str) -> Result<u64, String> {
    text.split(',').try_fold(0, |all, part| Ok(all | range(field, part)?))
}

/// `*`, `5`, `5-10`, each perhaps with `/3`.
fn range(field: &Field, part: &str) -> Result<u64, String> {
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(step)),
        None => (part, None),
    };
    let every = match step.map(str::parse::<u64>) {
        None => 1,
        Some(Ok(step)) if (1..=field.last).contains(&step) => step,
        Some(Ok(_) | Err(_)) => {
            return Err(format!("`{part}` of the {}: a step is a whole number from 1 to {}", field.name, field.last));
        }
    };
    let (from, to) = match span.split_once('-') {
        _ if is_any(span) => (field.least, field.last),
        Some((from, to)) => (number(field, part, from)?, number(field, part, to)?),
        // From there on, as Kubernetes reads it.
        None if step.is_some() => (number(field, part, span)?, field.last),
        None => number(field, part, span).map(|only| (only, only))?,
    };
    if from > to {
        return Err(format!("`{part}` of the {} ends before it begins; write it as two, joined by a comma", field.name));
    }
    Ok((from..=to).step_by(every as usize).fold(0, |all, number| all | 1 << number))
}

fn number(field: &Field, part: &str, text: &str) -> Result<u64, String> {
    let word = field.words.iter().zip(field.least..).find(|(word, _)| word.eq_ignore_ascii_case(text));
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    let number = word.map(|(_, number)| number).or_else(|| if digits { text.parse().ok() } else { None });
    number.filter(|number| (field.least..=field.most).contains(number)).ok_or_else(|| {
        let words = if field.words.is_empty() { String::new() } else { format!(", or a name such as {}", field.words[1]) };
        format!("`{part}` of the {}: a whole number from {} to {} is expected{words}", field.name, field.least, field.most)
    })
}
