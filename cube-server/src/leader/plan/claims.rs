//! Which of two processes that claim to be one node may have its session: a data folder that was copied, or a machine that was cloned, makes two
//! of them, and each would end the other's session for ever.
//!
//! Only about processes with one data folder's identity, and only while one of them is connected. Another data folder under a taken name is the
//! store's to refuse; who comes while nobody is connected is welcome (a reboot, a disk in another machine).

use cube_api::meta::{Instance, NodeId};
use cube_api::session::Announcement;

/// A process that says that it is a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its data folder.
    pub node_id: NodeId,
    /// Its process; none if it doesn't tell.
    pub instance: Option<Instance>,
    /// Its machine.
    pub machine_id: String,
    /// That machine's boot; empty if it doesn't tell.
    pub boot_id: String,
}

impl From<&Announcement> for Claim {
    fn from(announcement: &Announcement) -> Self {
        let Announcement { node_id, instance, machine_id, boot_id, .. } = announcement;
        Self { node_id: *node_id, instance: *instance, machine_id: machine_id.clone(), boot_id: boot_id.clone() }
    }
}

/// Whether it may have the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: it is new, the same process again, or the next one on the same machine. A session that is there ends.
    Newest,
    /// No: the connected one runs on another machine, or on another boot of it.
    CopyElsewhere,
    /// No: the connected one began after it, on the same machine. Two that both were the newest in turn would never come to rest.
    Superseded,
}

/// Judges who comes by who is connected (none: nobody) and which processes it has superseded since it connected.
///
/// A machine that was reset hard and is back before its old session's ping has failed (8 s) looks like a copy, and gets in on a later try.
pub fn judge(newcomer: &Claim, connected: Option<&Claim>, superseded: &[Instance]) -> Verdict {
    let Some(connected) = connected.filter(|connected| connected.node_id == newcomer.node_id) else { return Verdict::Newest };
    let (Some(ours), Some(theirs)) = (newcomer.instance, connected.instance) else { return Verdict::Newest };
    if ours == theirs {
        Verdict::Newest
    } else if is_elsewhere(newcomer, connected) {
        Verdict::CopyElsewhere
    } else if superseded.contains(&ours) {
        Verdict::Superseded
    } else {
        Verdict::Newest
    }
}

/// What isn't told can't differ.
fn is_elsewhere(one: &Claim, other: &Claim) -> bool {
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    differ(&one.machine_id, &other.machine_id) || differ(&one.boot_id, &other.boot_id)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn claim(folder: u128, instance: u128, machine: &str, boot: &str) -> Claim {
        let instance = (instance > 0).then(|| Instance(Uuid::from_u128(instance)));
        Claim { node_id: NodeId(Uuid::from_u128(folder)), instance, machine_id: machine.to_owned(), boot_id: boot.to_owned() }
    }

    #[test]
    fn who_may_have_a_session() {
        use Verdict::{CopyElsewhere, Newest, Superseded};
        let connected = claim(1, 10, "m1", "b1");
        let superseded = [Instance(Uuid::from_u128(9))];
        let cases = [
            ("the same process again", claim(1, 10, "m1", "b1"), Newest),
            ("the same process, whatever its machine says now", claim(1, 10, "m2", "b2"), Newest),
            ("the next process on the machine", claim(1, 11, "m1", "b1"), Newest),
            ("an earlier process on the machine", claim(1, 9, "m1", "b1"), Superseded),
            ("a copy on another machine", claim(1, 11, "m2", "b2"), CopyElsewhere),
            ("a copy on another machine of the same boot, as two containers are", claim(1, 11, "m2", "b1"), CopyElsewhere),
            ("a clone that kept its machine's identity", claim(1, 11, "m1", "b2"), CopyElsewhere),
            ("an earlier process that is elsewhere now", claim(1, 9, "m2", "b2"), CopyElsewhere),
            ("a machine without a boot's identity", claim(1, 11, "m1", ""), Newest),
            ("a machine without an identity, on another boot", claim(1, 11, "", "b2"), CopyElsewhere),
            ("a peer that tells no instance", claim(1, 0, "m2", ""), Newest),
            ("another data folder: the store's to judge", claim(2, 11, "m2", "b2"), Newest),
        ];
        for (who, newcomer, verdict) in cases {
            assert_eq!(judge(&newcomer, Some(&connected), &superseded), verdict, "{who}");
            assert_eq!(judge(&newcomer, None, &[]), Newest, "{who}, while nobody is connected");
        }
        let older = claim(1, 0, "m1", "");
        assert_eq!(judge(&claim(1, 11, "m2", "b2"), Some(&older), &[]), Newest, "the connected one tells no instance");
    }
}
