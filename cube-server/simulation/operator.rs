//! Who looks after the machines: cordons, drains, uncordons and labels nodes while everybody else is at work. The last word of a run stands: a node
//! that was drained is empty in the end, or says why not.

use std::time::Duration;

use bytes::Bytes;
use cube_api::ErrorCode;
use cube_api::meta::Name;
use cube_api::node::Node;
use cube_api::routes;
use http::Method;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::workload::Hands;

/// What is wanted of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Cordon,
    Uncordon,
    Drain { force: bool },
    Label,
}

/// What is wanted of which node, so long after the wish before.
#[derive(Debug, Clone)]
pub struct Order {
    pause: Duration,
    node: Name,
    wish: Wish,
}

/// The orders of a run with so many nodes, within `length`. In a third of the runs there are none: what they do would hide what goes wrong without.
pub fn orders(dice: &mut StdRng, nodes: usize, length: Duration) -> Vec<Order> {
    let count = *[0, 3, 8].choose(dice).expect("not empty");
    let order = |_| {
        let node = Name::new(format!("n{}", dice.random_range(1..=nodes))).expect("a label");
        let wish = match dice.random_range(0..10) {
            0..=1 => Wish::Cordon,
            2..=4 => Wish::Uncordon,
            5..=7 => Wish::Drain { force: false },
            8 => Wish::Drain { force: true },
            _ => Wish::Label,
        };
        Order { pause: length.mul_f64(dice.random_range(0.0..2.0) / f64::from(count + 1)), node, wish }
    };
    (0..count).map(order).collect()
}

/// Gives the orders.
pub async fn run(orders: &[Order], hands: &Hands<'_>) {
    for Order { pause, node, wish } in orders {
        tokio::time::sleep(*pause).await;
        let cordon = routes::NODE_CORDON.replace("{name}", node.as_str());
        let (method, path, body) = match wish {
            Wish::Cordon => (Method::POST, format!("{cordon}?reason=for+now"), Bytes::new()),
            Wish::Uncordon => (Method::DELETE, cordon, Bytes::new()),
            Wish::Drain { force } => {
                let path = routes::NODE_DRAIN.replace("{name}", node.as_str());
                (Method::POST, format!("{path}?force={force}&graceSeconds=3"), Bytes::new())
            }
            Wish::Label => {
                let body = json!({"labels": {"disk": "fast"}}).to_string();
                (Method::PATCH, routes::NODE.replace("{name}", node.as_str()), Bytes::from(body))
            }
        };
        let what = format!("{wish:?} {node}");
        match hands.until_answered(&what, || hands.client.call::<Node>(method.clone(), &path, body.clone())).await {
            Ok(_) => hands.expected.acknowledge(),
            // It hasn't joined yet.
            Err(error) if error.code == ErrorCode::NotFound => {}
            Err(error) => hands.complain(format!("{what}: {error}")),
        }
    }
}
