//! Secrets, by the sizes of their values, and configs.

use cube_api::config::Config;
use cube_api::secret::Secret;
use jiff::Timestamp;

use super::Shown;
use crate::output::page::Page;
use crate::output::table::Cell;

impl Shown for Secret {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["DATA"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![self.sizes.len().to_string().into()]
    }

    fn describe(&self, page: &mut Page, _: Timestamp) {
        let lines: Vec<_> = self.sizes.iter().map(|(key, bytes)| format!("{key}: {bytes} bytes")).collect();
        page.section("Data", &lines.join("\n"));
    }
}

impl Shown for Config {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["DATA"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![self.data.len().to_string().into()]
    }

    fn describe(&self, page: &mut Page, _: Timestamp) {
        let indented = |value: &str| value.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
        let values: Vec<_> = self.data.iter().map(|(key, value)| format!("{key}:\n{}", indented(value))).collect();
        page.section("Data", &values.join("\n"));
    }
}
