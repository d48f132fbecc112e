//! Which pods would find a node, if they had none: asked before a pod is stopped that runs.

use std::collections::BTreeMap;

use cube_api::meta::{Name, Uid};
use cube_api::pod::{PodSpec, Strategy};

use super::schedule::{Candidate, Rules, Unplaced, schedule};
use crate::leader::store::Placing;

/// A pod that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Which.
    pub uid: Uid,
    /// Its name.
    pub name: &'a Name,
    /// What it asks for.
    pub spec: &'a PodSpec,
}

/// Of each pod why no node takes it, or none where one does. In order: what an earlier one takes is taken for the later, so `first` come those that
/// have no node yet and go before; of them nothing is answered. `strategy` is that of the leader: where the earlier go decides what is left.
pub fn unfit(first: &[Asked<'_>], asked: &[Asked<'_>], nodes: Vec<Candidate<'_>>, strategy: Strategy) -> BTreeMap<Uid, Option<String>> {
    let pods: Vec<_> = first.iter().chain(asked).map(unplaced).collect();
    let mut answers: BTreeMap<_, _> = asked.iter().map(|pod| (pod.uid, None)).collect();
    for placing in schedule(&pods, nodes, Rules { strategy, last_turn: None }).placings {
        match placing {
            Placing::Bind { .. } => {}
            Placing::Wait { uid, reason } | Placing::Hold { uid, reason } => {
                if let Some(answer) = answers.get_mut(&uid) {
                    *answer = Some(reason);
                }
            }
        }
    }
    answers
}

fn unplaced<'a>(asked: &Asked<'a>) -> Unplaced<'a> {
    let Asked { uid, name, spec } = *asked;
    Unplaced { uid, name, spec, waiting_for: None, avoids: &[], pins: &[], predecessor: None }
}
