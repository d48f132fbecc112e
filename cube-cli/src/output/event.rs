//! Events as rows.

use cube_api::event::{Event, EventKind};
use jiff::Timestamp;

use super::age;
use super::style::Tone;
use super::table::{Cell, Table};

/// A table of events, in their order; with the object each is about, unless the reader knows.
pub fn table<'a>(events: impl IntoIterator<Item = &'a Event>, with_object: bool, now: Timestamp) -> Table {
    let mut header = vec!["LAST SEEN", "TYPE", "REASON"];
    if with_object {
        header.push("OBJECT");
    }
    header.extend(["FROM", "MESSAGE"]);
    let mut table = Table::new(header);
    for event in events {
        table.row(row(event, with_object, now));
    }
    table
}

fn row(event: &Event, with_object: bool, now: Timestamp) -> Vec<Cell> {
    let kind = match event.kind {
        EventKind::Normal => Cell::from("Normal"),
        EventKind::Warning => Cell::toned("Warning", Tone::Bad),
    };
    let mut row = vec![seen(event, now).into(), kind, event.reason.as_str().into()];
    if with_object {
        row.push(event.object.to_string().into());
    }
    row.push(event.source.as_str().into());
    row.push(event.message.as_str().into());
    row
}

/// `5s`, or `5s (x3 over 2m)` for what happened more than once.
fn seen(event: &Event, now: Timestamp) -> String {
    let last = age::since(event.last_at, now);
    match event.count {
        0 | 1 => last,
        count => format!("{last} (x{count} over {})", age::since(event.first_at, now)),
    }
}
