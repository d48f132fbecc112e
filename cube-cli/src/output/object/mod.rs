//! Resources that are neither pods nor nodes: what their lists and pages have in common. Each type says in a file of its own what it has beside.

mod data;
pub mod deployment;
mod job;
mod volume;

use cube_api::event::Event;
use cube_api::meta::ResourceRef;
use cube_api::object::ObjectType;
use jiff::Timestamp;

use super::page::Page;
use super::style::{Style, Tone};
use super::table::{Cell, Table};
use super::{age, node};

/// What a type needs to be shown.
pub trait Shown: ObjectType {
    /// The columns between NAME and AGE.
    fn columns(wide: bool) -> Vec<&'static str>;
    /// What is in them.
    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell>;
    /// The lines and sections of its page, below its name and above its events.
    fn describe(&self, page: &mut Page, now: Timestamp);
    /// The word for how it is, if it has one, and whether a person should look.
    fn status(&self) -> Option<(String, Tone)> {
        None
    }

    /// A table of several.
    fn rows<'a>(items: impl IntoIterator<Item = &'a Self>, wide: bool, now: Timestamp) -> Table
    where
        Self: 'a,
    {
        let mut header = vec!["NAME"];
        header.extend(Self::columns(wide));
        header.push("AGE");
        let mut table = Table::new(header);
        for item in items {
            let mut row: Vec<Cell> = vec![item.metadata().name.as_str().into()];
            row.extend(item.cells(wide, now));
            row.push(age::since(item.metadata().created_at, now).into());
            table.row(row);
        }
        table
    }
}

/// `secret/db`.
pub fn reference<T: ObjectType>(object: &T) -> ResourceRef {
    ResourceRef { kind: T::KIND, name: object.metadata().name.clone() }
}

/// What a page shows of what a resource owns: a heading, and a table.
pub type Owned = (&'static str, Table);

/// Everything about one of them.
pub fn page<T: Shown>(object: &T, owned: Option<Owned>, events: &[Event], now: Timestamp, style: Style) -> String {
    let mut page = Page::new(style);
    let metadata = object.metadata();
    page.line("Name", metadata.name.as_str());
    if let Some((status, tone)) = object.status() {
        page.toned("Status", &status, tone);
    }
    let ago = |then: Timestamp| format!("{then:.0} ({} ago)", age::since(then, now));
    page.line("Labels", &node::labels(&metadata.labels));
    page.line("Owner", &metadata.owner.as_ref().map(ToString::to_string).unwrap_or_default());
    page.line("Created", &ago(metadata.created_at));
    page.line("Deleted", &metadata.deletion_requested_at.map(ago).unwrap_or_default());
    object.describe(&mut page, now);
    if let Some((heading, table)) = owned {
        page.section(heading, &table.text(style));
    }
    page.events(events, now);
    page.text()
}
