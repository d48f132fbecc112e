//! How long a leader that was restored from a backup places nothing.

use std::time::Duration;

use cube_api::duration;
use cube_api::meta::Name;
use cube_api::pod::{OnNodeLoss, PodSpec, RestartPolicy};

/// How long is waited for nodes, from the start of this life of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For nodes that joined after the backup was taken, which it therefore doesn't have: every node that is up dials within this time.
    pub unknown: Duration,
    /// For those that it has. Beyond, one that isn't back is taken for gone; none: never.
    pub known: Option<Duration>,
}

impl Waits {
    /// Where a node that is silent for so long counts as lost; none: where none does. A node of the backup is gone no sooner than one that is silent
    /// when any leader starts.
    pub fn by(lost_after: Option<Duration>) -> Self {
        // A follower's longest wait between two tries is 10 s, spread by 20 %.
        Self { unknown: Duration::from_secs(15), known: lost_after.map(|lost_after| lost_after.saturating_mul(2)) }
    }
}

/// Whether a pod may run a second time where nobody knows whether it ran before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// As after the loss of a node.
    May,
    /// `onNodeLoss: wait`, or restart policy `Never`.
    MustNot,
}

impl Again {
    /// By its spec.
    pub fn of(spec: &PodSpec) -> Self {
        match (spec.node_loss(), spec.restart_policy) {
            (OnNodeLoss::Wait, _) | (OnNodeLoss::Replace, RestartPolicy::Never) => Self::MustNot,
            (OnNodeLoss::Replace, RestartPolicy::Always | RestartPolicy::OnFailure) => Self::May,
        }
    }
}

/// Why a pod may not be placed yet; none once it may. `awaited` are the nodes of the backup that have not joined since: a pod that must not run
/// twice waits for each of them, however long that takes, or until a person says that it is gone for good.
pub fn holds(awaited: &[Name], since_start: Duration, waits: Waits, again: Again) -> Option<String> {
    let because = "the leader was restored from a backup that may not know where pods run: not placed until";
    let names: Vec<_> = awaited.iter().map(Name::as_str).collect();
    let (nodes, have) = if names.len() == 1 { ("node", "has") } else { ("nodes", "have") };
    let back = format!("{because} {nodes} {} {have} joined", names.join(", "));
    match (awaited.first(), again, waits.known) {
        (Some(first), Again::MustNot, _) | (Some(first), Again::May, None) => {
            Some(format!("{back}, or, if it is gone for good, `cube delete node/{first} --force`"))
        }
        (Some(_), Again::May, Some(known)) => (since_start < known).then(|| format!("{back}, or for {}", duration::text(known))),
        (None, _, _) if since_start < waits.unknown => Some(format!("{because} other nodes had {} to join", duration::text(waits.unknown))),
        (None, _, _) => None,
    }
}

/// Whether any pod may be placed.
pub fn is_over(awaited: &[Name], since_start: Duration, waits: Waits) -> bool {
    holds(awaited, since_start, waits, Again::MustNot).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, awaited: &[&str], again: Again) -> Option<String> {
        let names: Vec<_> = awaited.iter().map(|name| Name::new(*name).expect("a label")).collect();
        holds(&names, Duration::from_secs(seconds), Waits::by(Some(Duration::from_secs(30))), again)
    }

    #[test]
    fn nothing_is_placed_before_every_known_node_is_back_and_unknown_ones_had_their_time() {
        let after = |seconds, awaited| after(seconds, awaited, Again::May);
        let reason = after(0, &["n1", "n2"]).expect("nobody is back");
        assert!(reason.ends_with("not placed until nodes n1, n2 have joined, or for 1m"), "{reason}");
        assert!(after(59, &["n2"]).expect("one is away").contains("until node n2 has joined"));
        assert!(after(14, &[]).expect("nodes that the backup doesn't know may be on their way").contains("15s"));
        assert_eq!(after(15, &[]), None);
        assert_eq!(after(60, &["n2"]), None);
    }

    #[test]
    fn a_pod_that_must_not_run_twice_waits_for_every_known_node_however_long_that_takes() {
        let after = |seconds, awaited| after(seconds, awaited, Again::MustNot);
        let reason = after(1_000_000, &["n2"]).expect("one is away");
        assert!(reason.ends_with("node n2 has joined, or, if it is gone for good, `cube delete node/n2 --force`"), "{reason}");
        assert!(after(14, &[]).is_some());
        assert_eq!(after(15, &[]), None);
    }

    #[test]
    fn a_pod_must_not_run_twice_if_it_waits_for_its_node_or_is_never_restarted() {
        let of = |on_node_loss: &str, policy: &str| {
            let spec = serde_json::json!({"containers": [], "onNodeLoss": on_node_loss, "restartPolicy": policy});
            Again::of(&serde_json::from_value(spec).expect("a spec"))
        };
        assert_eq!((of("replace", "Always"), of("replace", "OnFailure")), (Again::May, Again::May));
        assert_eq!((of("wait", "Always"), of("replace", "Never")), (Again::MustNot, Again::MustNot));
    }

    #[test]
    fn where_no_node_is_ever_lost_no_pod_is_placed_while_one_that_may_run_it_is_away() {
        let names = [Name::new("n2").expect("a label")];
        let after = |seconds, lost_after: Option<u64>| {
            holds(&names, Duration::from_secs(seconds), Waits::by(lost_after.map(Duration::from_secs)), Again::May)
        };
        assert!(after(1_000_000, None).expect("it may come back").contains("cube delete node/n2 --force"));
        assert!(after(599, Some(300)).expect("it has twice the time after which it is lost").ends_with("or for 10m"));
        assert_eq!(after(600, Some(300)), None);
    }

    #[test]
    fn the_reason_stays_the_same_while_time_passes_so_that_it_is_written_once() {
        assert_eq!(after(0, &["n1"], Again::May), after(30, &["n1"], Again::May));
    }
}
