//! Deployments: kubectl's columns, their conditions, and their revisions.

use cube_api::deployment::{Deployment, RolloutState, StrategyKind, TemplateRevision, Verdict};
use jiff::Timestamp;

use super::Shown;
use crate::output::age;
use crate::output::page::Page;
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};

impl Shown for Deployment {
    fn columns(wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["READY", "UP-TO-DATE", "AVAILABLE"];
        if wide {
            columns.extend(["REVISION", "IMAGES", "SELECTOR"]);
        }
        columns
    }

    fn cells(&self, wide: bool, _: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        let ready = format!("{}/{}", status.ready_replicas, self.spec.replicas());
        let mut cells =
            vec![Cell::toned(ready, tone(self)), status.updated_replicas.to_string().into(), status.available_replicas.to_string().into()];
        if wide {
            let selector = self.spec.selector().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
            cells.push(status.rollout.as_ref().map(|rollout| rollout.revision.to_string()).unwrap_or_default().into());
            cells.push(images(self.target()).into());
            cells.push(selector.into());
        }
        cells
    }

    fn describe(&self, page: &mut Page, now: Timestamp) {
        let (spec, status) = (&self.spec, &self.status);
        let counts = format!(
            "{} wanted, {} there, {} updated, {} ready, {} available",
            spec.replicas(),
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas
        );
        page.line("Replicas", &counts);
        page.line("Revision", &status.rollout.as_ref().map(|rollout| rollout.revision.to_string()).unwrap_or_default());
        page.line("Images", &images(self.target()));
        let strategy = match spec.strategy.kind {
            StrategyKind::Recreate => "Recreate".to_owned(),
            StrategyKind::RollingUpdate => {
                let bounds = spec.strategy.bounds();
                format!("RollingUpdate, maxSurge {}, maxUnavailable {}", bounds.max_surge, bounds.max_unavailable)
            }
        };
        page.line("Strategy", &strategy);
        let conditions = status.conditions.iter().map(|condition| {
            let is = if condition.status { "True" } else { "False" };
            let since = age::since(condition.last_transition_time, now);
            format!("{}: {is} for {since}, {}: {}", condition.kind.as_str(), condition.reason, condition.message)
        });
        page.section("Conditions", &conditions.collect::<Vec<_>>().join("\n"));
    }

    fn status(&self) -> Option<(String, Tone)> {
        let rollout = self.status.rollout.as_ref()?;
        let word = match &rollout.state {
            RolloutState::Progressing { .. } => "Progressing",
            RolloutState::Paused { .. } => "Paused",
            RolloutState::Complete { .. } if self.wanted().is_some_and(|wanted| wanted.verdict.failure().is_some()) => "RolledBack",
            RolloutState::Complete { .. } => "Complete",
            RolloutState::Stalled { .. } => "Stalled",
        };
        Some((word.to_owned(), tone(self)))
    }
}

/// Whether a person should look: what was wanted didn't come up, or pods that were there aren't available.
fn tone(deployment: &Deployment) -> Tone {
    let is_failed = deployment.wanted().is_some_and(|wanted| wanted.verdict.failure().is_some());
    let is_all_there = deployment.status.available_replicas >= deployment.spec.replicas();
    match deployment.status.rollout.as_ref().map(|rollout| &rollout.state) {
        _ if is_failed => Tone::Bad,
        Some(RolloutState::Stalled { .. }) => Tone::Bad,
        Some(RolloutState::Complete { .. }) if is_all_there => Tone::Good,
        Some(RolloutState::Complete { .. }) => Tone::Bad,
        Some(RolloutState::Progressing { .. } | RolloutState::Paused { .. }) | None => Tone::Busy,
    }
}

fn images(revision: Option<&TemplateRevision>) -> String {
    let containers = revision.into_iter().flat_map(|revision| &revision.template.spec.containers);
    containers.map(|container| container.image.as_str()).collect::<Vec<_>>().join(",")
}

/// The revisions that are kept, the wanted one last.
pub fn history(deployment: &Deployment, now: Timestamp) -> Table {
    let mut table = Table::new(vec!["REVISION", "AGE", "CAUSE", "STATE", "IMAGES", "WHY"]);
    let running = deployment.status.rollout.as_ref().map(|rollout| rollout.revision);
    for revision in &deployment.history {
        let (state, tone) = match &revision.verdict {
            Verdict::Untried if running == Some(revision.number) => ("running", Tone::Busy),
            Verdict::Untried => ("not tried to its end", Tone::Plain),
            Verdict::Good { .. } if running == Some(revision.number) => ("running", Tone::Good),
            Verdict::Good { .. } => ("good", Tone::Plain),
            Verdict::Failed { .. } => ("failed", Tone::Bad),
        };
        table.row(vec![
            revision.number.to_string().into(),
            age::since(revision.created_at, now).into(),
            revision.cause.as_str().into(),
            Cell::toned(state, tone),
            images(Some(revision)).into(),
            revision.verdict.failure().unwrap_or_default().into(),
        ]);
    }
    table
}
