//! Puts a deployment's pods into sets.

use std::cmp::Reverse;

use cube_api::deployment::{Deployment, REVISION_LABEL};
use cube_api::meta::Uid;
use cube_api::pod::Phase;
use jiff::{SignedDuration, Timestamp};

use super::{Seen, moves_its_pods};
use crate::leader::store::PodRow;

/// A pod that Failed (`CrashLimit`: some six minutes of crashes by default) is shown for so long before another takes its place: so many pods an hour
/// at most come of one that always fails.
pub(super) const REPLACED_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A pod of a revision that never was rolled out to its end counts as available after so long at least: without a readiness probe, a program that
/// ends at once is ready for a moment, and must not have a pod stopped that works.
const UNPROVEN_FOR: u32 = 3;

/// The same of one that has crashed already: it runs a little each time it is started again.
const CRASHED_FOR: u32 = 30;

/// A pod that isn't on its way out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) row: &'a PodRow,
    /// 0 where its label says none: no revision has that number.
    pub(super) revision: u64,
    pub(super) is_ready: bool,
    pub(super) is_available: bool,
    /// Its node is drained, and the deployment moves it.
    pub(super) is_misplaced: bool,
}

impl Member<'_> {
    pub(super) fn uid(&self) -> Uid {
        self.row.pod.metadata.uid
    }

    /// Who goes first: what isn't available, what isn't ready, then the newest, which has done the least.
    pub(super) fn leaves_first(&self) -> (bool, bool, Reverse<Uid>) {
        (self.is_available, self.is_ready, Reverse(self.uid()))
    }
}

/// The pods in sets; each is in one of them.
#[derive(Debug, Default)]
pub(super) struct Sets<'a> {
    /// Of the revision that all are to have, and where they may stay.
    pub(super) current: Vec<Member<'a>>,
    /// Of another revision, or on a node that is drained.
    pub(super) old: Vec<Member<'a>>,
    /// Finished for good, and not to be shown any longer.
    pub(super) spent: Vec<&'a PodRow>,
    /// On their way out.
    pub(super) leaving: Vec<&'a PodRow>,
    /// Those of them that may be stopped now.
    pub(super) due: Vec<&'a PodRow>,
    /// When time alone may move one to another set.
    pub(super) again_at: Option<Timestamp>,
}

impl<'a> Sets<'a> {
    /// By the revision that is the deployment's target now.
    pub(super) fn of(seen: &Seen<'a>, deployment: &Deployment) -> Self {
        let mut sets = Self::default();
        let target = deployment.target().map(|revision| revision.number);
        let moves = moves_its_pods(deployment);
        for row in seen.pods {
            let pod = &row.pod;
            if pod.metadata.deletion_requested_at.is_some() || row.retired.is_some() {
                sets.leaving.push(row);
                if row.retired.is_none() && seen.quiet.contains(&pod.metadata.uid) {
                    sets.due.push(row);
                }
                continue;
            }
            let revision = pod.metadata.labels.get(REVISION_LABEL).and_then(|number| number.parse().ok()).unwrap_or(0);
            let is_misplaced = moves && pod.placement.node.as_ref().is_some_and(|node| seen.drained.contains(node));
            let stays = Some(revision) == target && !is_misplaced;
            if row.is_finished() && !(stays && sets.is_shown_yet(row, seen)) {
                sets.spent.push(row);
                continue;
            }
            let is_ready = pod.is_ready();
            let is_proven = deployment.revision(revision).is_some_and(|revision| revision.verdict.is_good());
            let least = if is_proven { 0 } else { unproven_for(row) }.max(deployment.spec.min_ready_seconds);
            let is_available = is_ready && sets.is_ready_for_long(row, least, seen);
            let member = Member { row, revision, is_ready, is_available, is_misplaced };
            if stays { sets.current.push(member) } else { sets.old.push(member) }
        }
        sets
    }

    /// Those that aren't on their way out, in order of their making within each revision.
    pub(super) fn live(&self) -> impl Iterator<Item = &Member<'a>> {
        self.current.iter().chain(&self.old)
    }

    fn is_shown_yet(&mut self, row: &PodRow, seen: &Seen<'_>) -> bool {
        match row.pod.status.phase {
            Phase::Pending | Phase::Running | Phase::Succeeded => false,
            // Without a time of its end it isn't known how long it has been shown.
            Phase::Failed => {
                let status = &row.pod.status;
                status.known_since.or(status.finished_at).is_some_and(|at| self.is_before(at, REPLACED_AFTER, seen))
            }
        }
    }

    fn is_ready_for_long(&mut self, row: &PodRow, seconds: u32, seen: &Seen<'_>) -> bool {
        // A row of a version that doesn't know: by its node's clock.
        let status = &row.pod.status;
        let since = status.known_since.or(status.ready_since).or(status.started_at);
        seconds == 0 || since.is_none_or(|since| !self.is_before(since, SignedDuration::from_secs(seconds.into()), seen))
    }

    /// Whether less than `time` has passed since `since`; if so the end of it is a time to look again.
    fn is_before(&mut self, since: Timestamp, time: SignedDuration, seen: &Seen<'_>) -> bool {
        let Seen { now, watched_since, .. } = *seen;
        // What lies ahead was before the clock was set back.
        let since = if since > now { watched_since } else { since };
        let end = since.saturating_add(time).unwrap_or(Timestamp::MAX);
        let is_before = now < end;
        if is_before {
            self.again_at = Some(self.again_at.map_or(end, |at| at.min(end)));
        }
        is_before
    }
}

fn unproven_for(row: &PodRow) -> u32 {
    let has_crashed = row.pod.status.containers.iter().any(|container| container.last_termination.is_some());
    if has_crashed { CRASHED_FOR } else { UNPROVEN_FOR }
}
