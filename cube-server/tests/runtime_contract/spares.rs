//! Sandboxes that are made before any pod needs them: the cases that both engines keep.

use std::time::Duration;

use cube_api::meta::Uid;
use cube_server::follower::runtime::{ContainerId, Identity, RunState, RuntimeError, Scope, StopSignal};
use futures::StreamExt;
use uuid::Uuid;

use crate::rig::{Does, Rig, name};

/// A spare that runs.
async fn spare(rig: &Rig) -> ContainerId {
    let id = rig.runtime.create_spare(&rig.scope, Uuid::new_v4()).await.unwrap();
    rig.runtime.start(&id).await.unwrap();
    id
}

async fn spares(rig: &Rig) -> Vec<ContainerId> {
    rig.runtime.spares(&rig.scope).await.unwrap().into_iter().map(|spare| spare.id).collect()
}

/// Another pod of the same name.
fn another(rig: &Rig) -> Identity {
    Identity { uid: Uid(Uuid::new_v4()), ..rig.identity(None, 0) }
}

pub async fn a_spare_is_no_pods_until_one_takes_it_and_then_that_pods_sandbox(rig: Rig) {
    let id = rig.runtime.create_spare(&rig.scope, Uuid::new_v4()).await.unwrap();
    let listed = rig.runtime.spares(&rig.scope).await.unwrap();
    assert!(listed.len() == 1 && listed[0].id == id && listed[0].state == RunState::Created, "{listed:?}");
    rig.runtime.start(&id).await.unwrap();
    assert_eq!((rig.runtime.list(&rig.scope).await.unwrap(), rig.runtime.inspect(&id).await.unwrap()), (vec![], None));
    let since = match rig.runtime.spares(&rig.scope).await.unwrap()[0].state {
        RunState::Running { since } => since,
        ref other => panic!("{other:?}"),
    };

    // Its container may be made before the sandbox is the pod's.
    let app = rig.runtime.create_container(&rig.spec(&id, "app", Does::Runs)).await.unwrap();
    let wanted = rig.identity(None, 2);
    let claimed = rig.runtime.claim_spare(&rig.scope, &id, &wanted).await.unwrap();
    assert_eq!((&claimed.id, &claimed.identity, &claimed.state), (&id, &wanted, &RunState::Running { since }), "it is the same as before");
    assert_eq!(rig.runtime.claim_spare(&rig.scope, &id, &wanted).await.unwrap(), claimed, "a repeated claim finds what it made");
    assert_eq!(spares(&rig).await, []);
    rig.runtime.start(&app).await.unwrap();
    for listed in [rig.runtime.list(&rig.scope).await.unwrap(), rig.runtime.list_pod(&rig.scope, rig.uid).await.unwrap()] {
        let sandbox: Vec<_> = listed.iter().filter(|container| container.identity.container.is_none()).collect();
        assert!(listed.len() == 2 && sandbox == [&claimed], "{listed:?}");
    }
    assert_eq!(rig.look(&id).await, claimed);
    assert_eq!(rig.runtime.list_pod(&rig.scope, another(&rig).uid).await.unwrap(), []);
    assert_ne!(rig.runtime.create_sandbox(&rig.sandbox_spec(Vec::new())).await.unwrap(), id, "another attempt is another one");
}

pub async fn a_spare_that_a_pod_has_is_no_other_pods(rig: Rig) {
    let id = spare(&rig).await;
    let wanted = rig.identity(None, 0);
    rig.runtime.claim_spare(&rig.scope, &id, &wanted).await.unwrap();
    let refused = rig.runtime.claim_spare(&rig.scope, &id, &another(&rig)).await;
    assert!(matches!(refused, Err(RuntimeError::Gone)), "{refused:?}");
    assert_eq!(rig.look(&id).await.identity, wanted);
    // As a repeated create finds it, after a ledger was lost.
    assert_eq!(rig.runtime.create_sandbox(&rig.sandbox_spec(Vec::new())).await.unwrap(), id);
}

pub async fn a_spare_that_is_gone_or_does_not_run_or_whose_name_is_taken_is_refused(rig: Rig) {
    let (gone, whole) = (spare(&rig).await, spare(&rig).await);
    rig.runtime.remove(&gone).await.unwrap();
    let refused = rig.runtime.claim_spare(&rig.scope, &gone, &rig.identity(None, 0)).await;
    assert!(matches!(refused, Err(RuntimeError::Gone)), "{refused:?}");
    let never_started = rig.runtime.create_spare(&rig.scope, Uuid::new_v4()).await.unwrap();
    let refused = rig.runtime.claim_spare(&rig.scope, &never_started, &rig.identity(None, 0)).await;
    assert!(matches!(refused, Err(RuntimeError::Gone)), "{refused:?}");
    rig.sandbox().await;
    let refused = rig.runtime.claim_spare(&rig.scope, &whole, &rig.identity(None, 0)).await;
    assert!(matches!(refused, Err(RuntimeError::Refused { .. })), "{refused:?}");
    let mut left = spares(&rig).await;
    left.sort();
    let mut expected = vec![whole, never_started];
    expected.sort();
    assert_eq!(left, expected);
}

pub async fn a_nodes_spares_are_its_own(rig: Rig) {
    let id = spare(&rig).await;
    let other = Scope { node: name("node-2"), ..rig.scope.clone() };
    assert_eq!(rig.runtime.spares(&other).await.unwrap(), []);
    let refused = rig.runtime.claim_spare(&other, &id, &rig.identity(None, 0)).await;
    assert!(matches!(refused, Err(RuntimeError::Gone)), "{refused:?}");
    // What isn't a spare can't be taken for one either.
    let sandbox = rig.sandbox().await;
    let refused = rig.runtime.claim_spare(&rig.scope, &sandbox, &another(&rig)).await;
    assert!(matches!(refused, Err(RuntimeError::Gone)), "{refused:?}");
    assert_eq!(spares(&rig).await, [id]);
    assert_eq!(rig.runtime.scopes().await.unwrap().get(&rig.scope), Some(&2), "a reset finds whose they are");
}

pub async fn the_end_of_a_sandbox_that_was_a_spare_is_hinted(rig: Rig) {
    let id = spare(&rig).await;
    rig.runtime.claim_spare(&rig.scope, &id, &rig.identity(None, 0)).await.unwrap();
    let mut hints = rig.runtime.hints(&rig.scope).await.unwrap();
    rig.runtime.signal(&id, StopSignal::Kill).await.unwrap();
    let hint = tokio::time::timeout(Duration::from_secs(20), hints.next()).await.expect("a hint comes");
    assert_eq!(hint.expect("the stream goes on").uid, rig.uid);
}
