//! Which nodes are ready for pods: those with a session that say of themselves that they can.

use cube_api::meta::Name;
use cube_api::node::NodeCondition;
use jiff::{SignedDuration, Timestamp};

/// What is known of a node.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Which.
    pub name: &'a Name,
    /// As it stands.
    pub condition: &'a NodeCondition,
    /// Why the node itself says that it can't start pods.
    pub trouble: Option<&'a str>,
    /// Whether it has a session.
    pub connected: bool,
    /// When it was last heard, by the leader's clock.
    pub last_heard: Timestamp,
}

/// The conditions that change. `started` is the leader's start: before that it could hear nobody, so no silence is older.
pub fn conditions<'a>(
    nodes: impl IntoIterator<Item = Seen<'a>>,
    started: Timestamp,
    now: Timestamp,
    not_ready_after: SignedDuration,
) -> Vec<(Name, NodeCondition)> {
    let changed = nodes.into_iter().filter_map(|seen| {
        let silent = now.duration_since(seen.last_heard.max(started));
        let condition = condition(&seen, silent, not_ready_after)?;
        (condition != *seen.condition).then(|| (seen.name.clone(), condition))
    });
    changed.collect()
}

/// What the node should be; `None`: as it is, because a short silence says nothing.
fn condition(seen: &Seen<'_>, silent: SignedDuration, not_ready_after: SignedDuration) -> Option<NodeCondition> {
    let not_ready = |reason: String| Some(NodeCondition::NotReady { reason });
    match seen.trouble {
        // The limit, not the silence so far: a sentence that changes each second would be written each second.
        _ if !seen.connected && silent >= not_ready_after => not_ready(format!("no session for more than {}s", not_ready_after.as_secs())),
        Some(trouble) => not_ready(trouble.to_owned()),
        None if seen.connected => Some(NodeCondition::Ready),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: SignedDuration = SignedDuration::from_secs(10);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a time of this century")
    }

    /// What becomes of a node that was last heard at 0, by a leader that started at `started`, at `now`.
    fn becomes(condition: &NodeCondition, trouble: Option<&str>, connected: bool, started: i64, now: i64) -> Option<NodeCondition> {
        let name = Name::new("n1").expect("a label");
        let seen = Seen { name: &name, condition, trouble, connected, last_heard: at(0) };
        conditions([seen], at(started), at(now), LIMIT).pop().map(|(_, condition)| condition)
    }

    fn not_ready(reason: &str) -> NodeCondition {
        NodeCondition::NotReady { reason: reason.to_owned() }
    }

    #[test]
    fn a_node_that_is_silent_for_the_limit_is_not_ready_and_not_before() {
        assert_eq!(becomes(&NodeCondition::Ready, None, false, -100, 9), None);
        assert_eq!(becomes(&NodeCondition::Ready, None, false, -100, 10), Some(not_ready("no session for more than 10s")));
    }

    #[test]
    fn a_silence_is_noted_once() {
        assert_eq!(becomes(&not_ready("no session for more than 10s"), None, false, -100, 500), None);
    }

    #[test]
    fn a_leader_that_just_started_blames_nobody() {
        assert_eq!(becomes(&NodeCondition::Ready, None, false, 1_000, 1_009), None);
        assert!(becomes(&NodeCondition::Ready, None, false, 1_000, 1_010).is_some());
    }

    #[test]
    fn a_node_is_ready_again_with_a_session_and_without_trouble() {
        let silent = not_ready("no session for more than 10s");
        assert_eq!(becomes(&silent, None, true, -100, 500), Some(NodeCondition::Ready));
        assert_eq!(becomes(&silent, Some("docker doesn't answer"), true, -100, 500), Some(not_ready("docker doesn't answer")));
        assert_eq!(becomes(&not_ready("docker doesn't answer"), None, true, -100, 500), Some(NodeCondition::Ready));
    }

    #[test]
    fn a_node_without_a_session_is_not_ready_again_because_its_trouble_is_over() {
        assert_eq!(becomes(&not_ready("docker doesn't answer"), None, false, -100, 5), None);
    }
}
