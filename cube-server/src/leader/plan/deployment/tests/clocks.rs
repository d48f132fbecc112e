//! Time that nobody watched, clocks that are set, and nodes whose clocks are off.

use super::*;

#[test]
fn time_that_nobody_watched_counts_for_no_deadline() {
    let mut world = World::settled(json!({"replicas": 1, "template": template("a"), "progressDeadlineSeconds": 60}));
    world.update("b");
    world.pass();
    // The leader was down for an hour.
    world.now += 3_600;
    world.watched_since = world.now;
    let planned = world.pass();
    assert_eq!(planned.again_at, Some(at(world.now + 60)));
    assert!(world.said("RolledBack").is_empty());
    world.now += 60;
    world.pass();
    assert_eq!(world.said("RolledBack").len(), 1);
}

#[test]
fn a_clock_that_was_set_back_lets_the_deadline_begin_again_and_nothing_wait_for_the_old_time() {
    let mut world = World::settled(json!({"replicas": 1, "template": template("a"), "progressDeadlineSeconds": 60}));
    world.update("b");
    world.pass();
    world.now -= 900;
    world.watched_since = world.now;
    let planned = world.pass();
    assert_eq!(planned.again_at, Some(at(world.now + 60)));
    world.now += 60;
    world.pass();
    assert_eq!(world.said("RolledBack").len(), 1);
    // Of a pod that became ready by the old time.
    let mut world = World::new(json!({"replicas": 1, "template": template("a"), "minReadySeconds": 20}));
    world.pass();
    world.all(Health::Ready { since: world.now });
    world.now -= 900;
    world.watched_since = world.now;
    world.pass();
    world.now += 20;
    world.pass();
    assert!(matches!(world.state(), RolloutState::Complete { .. }), "{:?}", world.deployment.status);
}

#[test]
fn a_pod_whose_nodes_clock_is_off_is_available_by_the_leaders() {
    for off in [-3_600, 3_600] {
        let mut world = World::new(json!({"replicas": 1, "template": template("a"), "minReadySeconds": 20}));
        world.pass();
        let (uid, now) = (world.uids(|_| true)[0], world.now);
        world.set(uid, Health::Ready { since: now });
        world.change(uid, |row| row.pod.status.ready_since = Some(at(now + off)));
        world.now += 19;
        world.pass();
        assert!(matches!(world.state(), RolloutState::Progressing { .. }), "{off}: {:?}", world.deployment.status);
        world.now += 1;
        world.pass();
        assert!(matches!(world.state(), RolloutState::Complete { .. }), "{off}: {:?}", world.deployment.status);
    }
}
