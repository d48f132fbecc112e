use std::collections::BTreeSet;

use cube_api::pod::RestartPolicy;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ambient::Ambient;
use crate::follower::runtime::fake::Fake;
use crate::follower::testing::{name, pod};
use crate::tasks::Tasks;

fn ports(range: &str) -> Ports {
    Ports::new(range.parse().unwrap(), std::iter::empty())
}

fn spec(ports: serde_json::Value) -> PodSpec {
    serde_json::from_value(serde_json::json!({"containers": [{"name": "app", "image": "a", "ports": ports}]})).unwrap()
}

fn fake() -> Fake {
    Fake::new(Ambient::system(), &Tasks::default())
}

fn uid(number: u128) -> Uid {
    Uid(Uuid::from_u128(number))
}

async fn chosen(ports: &Ports, fake: &Fake, pod: u128, spec: &PodSpec, random: u64) -> Result<Vec<u16>, String> {
    let wish = Wish { uid: uid(pod), spec, before: &[], after: None, random };
    let chosen = ports.choose(fake, wish).await.map_err(|error| error.to_string())?;
    Ok(chosen.iter().map(|port| port.host_port).collect())
}

#[tokio::test]
async fn no_port_is_chosen_that_another_pod_has_or_asks_for_or_that_is_not_free() {
    let (ports, fake) = (ports("30000-30003"), fake());
    let free = spec(serde_json::json!([{"containerPort": 80, "hostPort": 0}]));
    ports.expect(uid(1), &spec(serde_json::json!([{"containerPort": 80, "hostPort": 30001}])));
    fake.take_port(30_002, true);
    assert_eq!(chosen(&ports, &fake, 2, &free, 1).await, Ok(vec![30_003]));
    assert_eq!(chosen(&ports, &fake, 3, &free, 1).await, Ok(vec![30_000]));
    let refused = chosen(&ports, &fake, 4, &free, 1).await.unwrap_err();
    assert_eq!(refused, "no host port of 30000-30003 (tcp) is free: free one, or start cube-server with a wider --free-ports");
    // What is given back is given away again.
    ports.hold(uid(3), std::iter::empty());
    assert_eq!(chosen(&ports, &fake, 4, &free, 1).await, Ok(vec![30_000]));
}

#[tokio::test]
async fn another_protocol_or_address_is_another_port() {
    let (ports, fake) = (ports("30000-30000"), fake());
    let of = |extra: &str| {
        let text = format!(r#"[{{"containerPort": 80, "hostPort": 0{extra}}}]"#);
        spec(serde_json::from_str(&text).unwrap())
    };
    for (number, extra) in [r#", "hostIP": "127.0.0.1""#, r#", "hostIP": "127.0.0.2""#, r#", "protocol": "UDP""#].iter().enumerate() {
        assert_eq!(chosen(&ports, &fake, number as u128, &of(extra), 0).await, Ok(vec![30_000]), "{extra}");
    }
    assert!(chosen(&ports, &fake, 9, &of(""), 0).await.is_err());
}

#[tokio::test]
async fn what_a_pod_had_it_gets_again_while_it_is_free() {
    let (ports, fake) = (ports("30000-30009"), fake());
    let free = spec(serde_json::json!([{"containerPort": 80, "hostPort": 0}]));
    let had = |number| vec![PublishedPort::new(&name("app"), &free.containers[0].ports[0], number)];
    let again = async |before: &[PublishedPort]| {
        let wish = Wish { uid: uid(1), spec: &free, before, after: None, random: 0 };
        ports.choose(&fake, wish).await.unwrap()[0].host_port
    };
    assert_eq!(again(&had(30_007)).await, 30_007);
    // The node's range was another one when it was promised.
    assert_eq!(again(&had(20_000)).await, 20_000);
    fake.take_port(30_007, true);
    assert_eq!(again(&had(30_007)).await, 30_000);
}

#[test]
fn what_kept_pods_had_is_held_from_the_first_moment() {
    let mut web = pod(1, RestartPolicy::Always);
    web.spec = spec(serde_json::json!([{"containerPort": 80, "hostPort": 0}, {"containerPort": 81, "hostPort": 8081}]));
    let mut record = PodRecord::new(&web);
    record.choose_ports(vec![PublishedPort::new(&name("app"), &web.spec.containers[0].ports[0], 30_005)]);
    let ports = Ports::new(FreePorts::default(), [(web.uid, &web.spec, &record)].into_iter());
    let tcp = |port| HostPort { port, protocol: Protocol::Tcp, ip: None };
    assert_eq!([30_005, 8_081, 30_006].map(|number| ports.take(uid(2), tcp(number))), [false, false, true]);
}

#[test]
fn containers_are_told_by_number_and_by_name() {
    let spec = spec(serde_json::json!([
        {"containerPort": 80, "hostPort": 8080, "name": "web-ui"},
        {"containerPort": 80, "hostPort": 8081},
        {"containerPort": 53, "hostPort": 9053, "protocol": "UDP", "name": "dns"}
    ]));
    let ports: Vec<_> =
        spec.published().map(|(container, port)| PublishedPort::new(container, port, port.fixed_host_port().unwrap())).collect();
    let told: Vec<_> = variables(&ports).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(told, ["CUBE_HOST_PORT_53_UDP=9053", "CUBE_HOST_PORT_80=8080", "CUBE_HOST_PORT_DNS=9053", "CUBE_HOST_PORT_WEB_UI=8080"]);
}

#[test]
fn a_range_is_read_as_people_type_it() {
    assert_eq!("30000-32767".parse(), Ok(FreePorts::default()));
    assert_eq!("8080-8080".parse::<FreePorts>().map(|range| range.to_string()), Ok("8080-8080".to_owned()));
    for wrong in ["", "80", "0-10", "10-9", "1-65536", "a-b", "-1-5"] {
        assert!(wrong.parse::<FreePorts>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn every_port_of_the_range_is_tried_once(
        first in 1u16..60_000, count in 0u16..50, before in proptest::option::of(1u16..60_000), after in proptest::option::of(1u16..60_000), random: u64
    ) {
        let range: FreePorts = format!("{first}-{}", first + count).parse().unwrap();
        let tried: Vec<_> = range.from(before, after, random).collect();
        let mut expected: BTreeSet<_> = (first..=first + count).collect();
        expected.extend(before.filter(|before| after != Some(*before)));
        prop_assert_eq!(tried.len(), expected.len());
        prop_assert_eq!(tried.iter().copied().collect::<BTreeSet<_>>(), expected);
        if let Some(after) = after.filter(|after| count > 0 && (first..=first + count).contains(after)) {
            prop_assert_ne!(tried[0], after);
            prop_assert!(before.is_some() || tried.last() == Some(&after));
        }
    }

    #[test]
    fn two_pods_never_get_ports_that_collide(
        wishes in proptest::collection::vec((proptest::option::of(0u8..2), any::<bool>(), proptest::option::of(0u16..4), any::<u64>(), any::<bool>()), 1..12)
    ) {
        let (ports, fake) = (ports("30000-30003"), fake());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut given: Vec<(u128, HostPort)> = Vec::new();
        for (number, (ip, udp, fixed, random, released)) in (0u128..).zip(wishes) {
            let port = serde_json::json!({
                "containerPort": 80,
                "hostPort": fixed.map_or(0, |number| 30_000 + number),
                "protocol": if udp { "UDP" } else { "TCP" },
                "hostIP": ip.map(|ip| format!("127.0.0.{}", ip + 1)),
            });
            let spec = spec(serde_json::json!([port]));
            let mine: Vec<_> = match HostPort::of(&spec).next() {
                // The leader places none where it would collide.
                Some(fixed) if given.iter().any(|(_, taken)| taken.collides(&fixed)) => continue,
                Some(fixed) => {
                    ports.expect(uid(number), &spec);
                    vec![fixed]
                }
                None => {
                    let wish = Wish { uid: uid(number), spec: &spec, before: &[], after: None, random };
                    runtime.block_on(ports.choose(&fake, wish)).iter().flatten().map(PublishedPort::taken).collect()
                }
            };
            prop_assert!(!mine.iter().any(|port| given.iter().any(|(_, taken)| taken.collides(port))), "{mine:?} {given:?}");
            given.extend(mine.into_iter().map(|port| (number, port)));
            if released {
                ports.hold(uid(number), std::iter::empty());
                given.retain(|(pod, _)| *pod != number);
            }
        }
    }
}
