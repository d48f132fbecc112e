//! What was measured: medians with their spread, as a table or as JSON with stable keys.

use serde_json::{Map, Value, json};

/// A median and its spread.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The middle one; of an even number the mean of the two.
    pub median: f64,
    min: f64,
    max: f64,
}

impl Figure {
    /// Of at least one sample.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        Self { median: (sorted[last / 2] + sorted[sorted.len() / 2]) / 2.0, min: sorted[0], max: sorted[last] }
    }
}

/// Rows in the order in which they are added.
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, Option<Figure>, &'static str, String)>,
    /// Whether JSON has each figure as one number.
    plain: bool,
}

impl Report {
    /// One whose figures were each measured once: in JSON a number, without spread or unit.
    pub fn plain() -> Self {
        Self { rows: Vec::new(), plain: true }
    }

    /// A measured row. `key` is the JSON key, `what` is for people.
    pub fn measured(&mut self, key: &str, what: &str, unit: &'static str, figure: Figure) {
        self.rows.push((key.to_owned(), Some(figure), unit, what.to_owned()));
    }

    /// A single number, such as a ratio or a size.
    pub fn number(&mut self, key: &str, what: &str, unit: &'static str, value: f64) {
        self.measured(key, what, unit, Figure { median: value, min: value, max: value });
    }

    /// A row that could not be measured, and why.
    pub fn missing(&mut self, key: &str, why: &str) {
        self.rows.push((key.to_owned(), None, "", why.to_owned()));
    }

    /// To standard output.
    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", self.to_json());
            return;
        }
        for (key, figure, unit, what) in &self.rows {
            match figure {
                Some(Figure { median, min, max }) if min == max => println!("{what:<58} {median:>9.2} {unit}"),
                Some(Figure { median, min, max }) => println!("{what:<58} {median:>9.2} {unit} ({min:.2} to {max:.2})"),
                None => println!("{key:<58} not measured: {what}"),
            }
        }
    }

    fn to_json(&self) -> Value {
        let row = |(key, figure, unit, what): &(String, Option<Figure>, &'static str, String)| {
            let value = match figure {
                Some(Figure { median, .. }) if self.plain => json!(median),
                Some(Figure { median, min, max }) => json!({ "median": median, "min": min, "max": max, "unit": unit }),
                None => json!({ "missing": what }),
            };
            (key.clone(), value)
        };
        Value::Object(self.rows.iter().map(row).collect::<Map<_, _>>())
    }
}
