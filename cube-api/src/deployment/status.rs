//! What a deployment has come to: the revisions of its template, and how far its rollout is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Deployment;
use crate::template::PodTemplate;

/// A template that was wanted once, or is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRevision {
    /// Counted from 1, and never given to another template: an undo makes an old number wanted again.
    pub number: u64,
    /// The template.
    pub template: PodTemplate,
    /// When it was first wanted, by the leader's clock.
    pub created_at: Timestamp,
    /// Why it was wanted the last time: `apply`, `restart`, `undo`.
    pub cause: String,
    /// What came of it.
    #[serde(default)]
    pub verdict: Verdict,
}

/// What came of a revision. `Untried` becomes one of the others; only a person's word (undo, retry, another apply) makes a failed one untried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// It was never rolled out to its end.
    #[default]
    Untried,
    /// It was: all pods were of it, and available.
    Good {
        /// When that was last so, by the leader's clock.
        at: Timestamp,
    },
    /// It made no progress within the deadline, and was rolled back.
    Failed {
        /// When, by the leader's clock.
        at: Timestamp,
        /// What its pods said, in a sentence.
        reason: String,
    },
}

impl Verdict {
    /// Whether it was rolled out to its end.
    pub fn is_good(&self) -> bool {
        match self {
            Self::Good { .. } => true,
            Self::Untried | Self::Failed { .. } => false,
        }
    }

    /// Why it was rolled back, if it was.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed { reason, .. } => Some(reason),
            Self::Untried | Self::Good { .. } => None,
        }
    }
}

/// How far a deployment is, as its loop last looked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// The generation of the metadata that this is about.
    #[serde(default)]
    pub observed_generation: u64,
    /// Pods that aren't on their way out.
    #[serde(default)]
    pub replicas: u32,
    /// Those of the revision that runs or is rolled out.
    #[serde(default)]
    pub updated_replicas: u32,
    /// Those that are ready.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Those that have been ready for `minReadySeconds`.
    #[serde(default)]
    pub available_replicas: u32,
    /// The revision that runs or is rolled out, and how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The same in Kubernetes' words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<DeploymentCondition>,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The number of the revision that all pods are to have.
    pub revision: u64,
    /// How far it is.
    #[serde(flatten)]
    pub state: RolloutState,
}

/// How far a rollout is. `Progressing` becomes any other; `Paused` becomes `Progressing`; `Stalled` becomes `Complete` or `Paused`; `Complete` stays
/// until another revision is wanted. Times are by the leader's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RolloutState {
    /// Pods of the revision come in the place of others.
    Progressing {
        /// Since when.
        since: Timestamp,
        /// When it last came further than ever before.
        progressed_at: Timestamp,
        /// How far that was.
        best: Marks,
    },
    /// A person holds it (`spec.paused`).
    Paused {
        /// Since when.
        since: Timestamp,
    },
    /// All pods are of the revision, and were all available together.
    Complete {
        /// When that came about.
        at: Timestamp,
    },
    /// It made no progress within the deadline, and there is no revision to go back to.
    Stalled {
        /// Since when.
        at: Timestamp,
        /// What its pods said, in a sentence.
        reason: String,
    },
}

/// How far a rollout came at best. A pod that becomes ready again and again is no progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    /// The most pods of the revision that were ready.
    pub ready: u32,
    /// The most pods of the revision that were available.
    pub available: u32,
    /// The fewest pods of other revisions.
    pub old: u32,
}

impl Marks {
    /// The better of both, in each.
    pub fn best(self, other: Self) -> Self {
        Self { ready: self.ready.max(other.ready), available: self.available.max(other.available), old: self.old.min(other.old) }
    }
}

/// A statement about a deployment in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it is so.
    pub status: bool,
    /// Why, as a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when it is so, or not so.
    pub last_transition_time: Timestamp,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionKind {
    /// Enough pods are available.
    Available,
    /// The rollout goes on, or has come to its end.
    Progressing,
}

impl ConditionKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Progressing => "Progressing",
        }
    }
}

/// The newest of some revisions that was rolled out to its end.
pub fn newest_good(history: &[TemplateRevision]) -> Option<&TemplateRevision> {
    history.iter().rev().find(|revision| revision.verdict.is_good())
}

impl Deployment {
    /// The revision that is wanted; none until it is first looked at.
    pub fn wanted(&self) -> Option<&TemplateRevision> {
        self.history.last()
    }

    /// The revision of a number, if it is kept.
    pub fn revision(&self, number: u64) -> Option<&TemplateRevision> {
        self.history.iter().find(|revision| revision.number == number)
    }

    /// The revision that all pods are to have: the one that is wanted, or, where that failed, the newest good one before it.
    pub fn target(&self) -> Option<&TemplateRevision> {
        let (wanted, before) = self.history.split_last()?;
        match wanted.verdict.failure() {
            None => Some(wanted),
            Some(_) => newest_good(before).or(Some(wanted)),
        }
    }

    /// Makes the template of the spec the wanted one, if it isn't: one that was wanted before keeps its number, and is tried again if it failed.
    pub fn revise(&mut self, now: Timestamp, cause: &str) {
        if self.wanted().is_some_and(|wanted| wanted.template == self.spec.template) {
            return;
        }
        match self.history.iter().rposition(|revision| revision.template == self.spec.template) {
            Some(place) => self.want_again(place, cause),
            None => self.add_revision(now, cause),
        }
    }

    /// Wants the same template anew, under a number of its own: what runs is replaced.
    pub fn restart(&mut self, now: Timestamp) {
        self.add_revision(now, "restart");
    }

    /// Wants the revision of a number again; whether there is one.
    pub fn undo_to(&mut self, number: u64) -> bool {
        let Some(place) = self.history.iter().position(|revision| revision.number == number) else { return false };
        self.spec.template = self.history[place].template.clone();
        self.want_again(place, "undo");
        true
    }

    /// Lets a wanted revision that failed be tried again; whether it had failed.
    pub fn retry(&mut self) -> bool {
        let Some(wanted) = self.history.last_mut().filter(|wanted| wanted.verdict.failure().is_some()) else { return false };
        wanted.verdict = Verdict::Untried;
        wanted.cause = "retry".to_owned();
        true
    }

    fn want_again(&mut self, place: usize, cause: &str) {
        let mut revision = self.history.remove(place);
        cause.clone_into(&mut revision.cause);
        if revision.verdict.failure().is_some() {
            revision.verdict = Verdict::Untried;
        }
        self.history.push(revision);
    }

    fn add_revision(&mut self, now: Timestamp, cause: &str) {
        let number = self.history.iter().map(|revision| revision.number).max().unwrap_or(0) + 1;
        let template = self.spec.template.clone();
        self.history.push(TemplateRevision { number, template, created_at: now, cause: cause.to_owned(), verdict: Verdict::Untried });
    }
}
