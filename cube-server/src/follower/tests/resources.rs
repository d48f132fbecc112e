//! What the node says that its machine has, keeps back and uses.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cube_api::node::{Capacity, LoadAverage, Usage};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::session::{Epoch, Welcome};

use crate::disk::Space;
use crate::follower::machine::scripted::Scripted;
use crate::follower::reserve::{Part, Reserve};
use crate::follower::testing::{Bench, CLUSTER};

const GI: u64 = 1 << 30;

/// A bench whose machine is measured, once its leader knows of a use.
async fn measured(reserve: Reserve) -> (Bench, Arc<Scripted>) {
    let mut bench = Bench::new().await;
    let machine = Scripted::with_disks(&[(bench.agent.data_dir(), Space { free: 60 * GI, all: 100 * GI })]);
    bench.restart_measured(reserve, machine.clone()).await;
    bench.wait_for("a use", || usage(&bench).is_some()).await;
    (bench, machine)
}

fn usage(bench: &Bench) -> Option<Usage> {
    bench.leader.node.lock().unwrap().as_ref().and_then(|(_, usage)| *usage)
}

#[tokio::test(start_paused = true)]
async fn a_node_says_what_it_has_and_what_of_it_pods_may_reserve() {
    let (bench, _) = measured(Reserve { cpu: Part::Amount(500), memory: Part::Percent(25), disk: Part::Amount(GI) }).await;
    let (facts, _) = bench.leader.node.lock().unwrap().clone().unwrap();
    let all = Capacity { cpu: MilliCpu(4_000), memory: Bytes(8 * GI), disk: Bytes(100 * GI), pods: 100 };
    assert_eq!((facts.capacity, facts.trouble), (all, None));
    let left = Capacity { cpu: MilliCpu(3_500), memory: Bytes(6 * GI), disk: Bytes(99 * GI), pods: 100 };
    assert_eq!(facts.allocatable, Some(left));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_keeps_back_more_than_it_has_says_so_and_offers_nothing() {
    let (bench, _) = measured(Reserve { disk: Part::Amount(200 * GI), ..Reserve::NOTHING }).await;
    let said = |trouble: &str| trouble == "--reserve-disk keeps back 204800Mi of the 102400Mi of disk space that there are";
    bench.wait_for("the refusal", || bench.leader.trouble.lock().unwrap().as_deref().is_some_and(said)).await;
    let (facts, _) = bench.leader.node.lock().unwrap().clone().unwrap();
    assert_eq!(facts.allocatable, Some(Capacity { pods: 100, ..Capacity::default() }));
}

#[tokio::test(start_paused = true)]
async fn use_is_told_when_it_has_moved_by_a_hundredth_and_an_idle_machine_says_nothing() {
    let (bench, machine) = measured(Reserve::NOTHING).await;
    assert_eq!(usage(&bench), Some(Usage { cpu: MilliCpu(0), memory: Bytes(0), disk: Bytes(40 * GI), load: Some(LoadAverage::default()) }));
    let calls = || bench.leader.calls.load(Ordering::Relaxed);
    let after = async |time: Duration| {
        tokio::time::sleep(time).await;
        calls()
    };
    let before = after(Duration::from_secs(30)).await;
    assert_eq!(after(Duration::from_secs(600)).await, before, "ten minutes of nothing are told by nothing");
    machine.work(0, 8 * GI - GI / 100);
    assert_eq!(after(Duration::from_secs(600)).await, before, "an eighth of a percent is nothing either");
    machine.be_busy([39, 10, 5]);
    assert_eq!(after(Duration::from_secs(600)).await, before, "nor is less than a tenth of a process for each of 4 cores");
    machine.be_busy([40, 10, 5]);
    let average = Some(LoadAverage { hundredths: [40, 10, 5] });
    bench.wait_for("the new load", || usage(&bench).is_some_and(|usage| usage.load == average)).await;
    let before = after(Duration::from_secs(30)).await;
    machine.work(25, 7 * GI);
    bench.wait_for("the new use", || usage(&bench).is_some_and(|usage| usage.cpu == MilliCpu(1_000) && usage.memory == Bytes(GI))).await;
    assert!(after(Duration::from_secs(600)).await <= before + 1, "it stays so");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_comes_back_is_told_the_use_though_it_has_not_moved() {
    let (bench, _) = measured(Reserve::NOTHING).await;
    *bench.leader.node.lock().unwrap() = None;
    bench.agent.welcome(&Welcome { cluster_id: CLUSTER, epoch: Epoch(2), life: None }).await.unwrap();
    bench.wait_for("the use", || usage(&bench).is_some()).await;
}
