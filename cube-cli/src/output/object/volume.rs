//! Named volumes: where their data are, and whose.

use cube_api::volume::NamedVolume;
use jiff::Timestamp;

use super::Shown;
use crate::output::page::Page;
use crate::output::style::Tone;
use crate::output::table::Cell;

impl Shown for NamedVolume {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["STATUS", "NODE"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        let status = if self.metadata.deletion_requested_at.is_some() { "Deleting" } else { "Bound" };
        vec![status.into(), self.node.as_str().into()]
    }

    fn status(&self) -> Option<(String, Tone)> {
        let deleting = self.metadata.deletion_requested_at.map(|_| ("Deleting".to_owned(), Tone::Plain));
        deleting.or_else(|| Some(("Bound".to_owned(), Tone::Good)))
    }

    fn describe(&self, page: &mut Page, _: Timestamp) {
        page.line("Node", self.node.as_str());
        let pods: Vec<_> = self.used_by.iter().map(|pod| format!("pod/{pod}")).collect();
        page.line("Used by", &pods.join(", "));
    }
}
