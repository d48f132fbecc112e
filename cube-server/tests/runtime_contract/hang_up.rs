//! What an engine does with a call whose caller is gone before the answer: a killed agent, a timeout. On Docker the caller's connection is closed when
//! the engine has all of the request.

use std::sync::Arc;
use std::time::Duration;

use cube_server::follower::runtime::{RunState, Runtime, StopSignal};
use tokio::sync::watch;

use crate::rig::{Does, Rig, wait_for};
use crate::wire::{Request, Wire};

/// Makes a call and hangs up when the engine has it: a request with that method, with `part` in its path.
async fn hang_up<T: std::fmt::Debug>(rig: &Rig, method: &'static str, part: &str, call: impl AsyncFnOnce(Arc<dyn Runtime>) -> T) {
    match &rig.fake {
        Some(fake) => {
            fake.set_latency(Duration::from_millis(20));
            // A scripted call is handed over when it is polled first.
            tokio::select! {
                biased;
                answer = call(rig.runtime.clone()) => panic!("answered before the caller could hang up: {answer:?}"),
                () = std::future::ready(()) => {}
            }
            fake.set_latency(Duration::ZERO);
        }
        None => {
            let mut wire = Wire::awaiting(method, part.to_owned());
            let mut request = wire.request.clone();
            tokio::select! {
                biased;
                answer = call(Arc::new(wire.docker.clone())) => panic!("answered before the caller could hang up: {answer:?}"),
                () = reached(&mut request, Request::Sent) => {}
            }
            reached(&mut wire.request, Request::HungUp).await;
        }
    }
}

async fn reached(request: &mut watch::Receiver<Request>, state: Request) {
    let reached = request.wait_for(|request| *request >= state);
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("it comes").expect("the wire is there");
}

pub async fn a_create_whose_caller_hung_up_is_carried_out(rig: Rig) {
    let sandbox = rig.sandbox().await;
    let spec = rig.spec(&sandbox, "app", Does::Runs);
    hang_up(&rig, "POST", "/containers/create", async |runtime| runtime.create_container(&spec).await).await;
    let made = wait_for("the container", async || {
        let found = rig.runtime.list_pod(&rig.scope, rig.uid).await.unwrap();
        found.into_iter().find(|container| container.identity == spec.identity).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(rig.runtime.create_container(&spec).await.unwrap(), made.id);
}

pub async fn a_start_whose_caller_hung_up_is_carried_out(rig: Rig) {
    let sandbox = rig.sandbox().await;
    let id = rig.runtime.create_container(&rig.spec(&sandbox, "app", Does::Runs)).await.unwrap();
    hang_up(&rig, "POST", "/start", async |runtime| runtime.start(&id).await).await;
    wait_for("the start", async || match rig.look(&id).await.state {
        RunState::Running { .. } => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

pub async fn a_kill_whose_caller_hung_up_is_carried_out(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    // On Docker the kill comes after an inspect on the same wire.
    let call = async |runtime: Arc<dyn Runtime>| runtime.signal(&id, StopSignal::Kill).await;
    hang_up(&rig, "POST", "/kill", call).await;
    assert_eq!(rig.ended(&id).await, (137, false));
}

pub async fn a_removal_whose_caller_hung_up_is_carried_out(rig: Rig) {
    let id = rig.started(Does::Runs).await;
    hang_up(&rig, "DELETE", "/containers/", async |runtime| runtime.remove(&id).await).await;
    wait_for("the removal", async || match rig.runtime.inspect(&id).await.unwrap() {
        None => Ok(()),
        Some(other) => Err(format!("{:?}", other.state)),
    })
    .await;
}

pub async fn a_claim_whose_caller_hung_up_is_carried_out(rig: Rig) {
    let spare = rig.runtime.create_spare(&rig.scope, uuid::Uuid::new_v4()).await.unwrap();
    rig.runtime.start(&spare).await.unwrap();
    let wanted = rig.identity(None, 0);
    hang_up(&rig, "POST", "/rename", async |runtime| runtime.claim_spare(&rig.scope, &spare, &wanted).await).await;
    wait_for("the pod's sandbox", async || {
        let found = rig.runtime.list_pod(&rig.scope, rig.uid).await.unwrap();
        if found.iter().any(|container| container.id == spare) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}
