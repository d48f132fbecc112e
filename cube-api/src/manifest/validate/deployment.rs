//! The rules of deployments.

use super::{Checks, Finding, Path};
use crate::deployment::{DeploymentManifest, DeploymentSpec, DeploymentStrategy, LABEL_PREFIX, MAX_NAME, StrategyKind};
use crate::pod::RestartPolicy;

/// So many pods are some hundred nodes full of one deployment; a typing slip that asks for more is told.
const MAX_REPLICAS: u32 = 10_000;

/// The longest times: a day. Longer ones are typing slips.
const MAX_SECONDS: u32 = 86_400;

/// Each revision that is kept is a whole template in the deployment's row.
const MAX_HISTORY: u32 = 100;

/// All that is wrong with a deployment.
pub(in crate::manifest) fn deployment(deployment: &DeploymentManifest) -> Vec<Finding> {
    let mut checks = Checks::default();
    let metadata = Path::default().key("metadata");
    let length = deployment.metadata.name.as_str().len();
    checks.check(
        length <= MAX_NAME,
        || metadata.key("name"),
        || format!("{length} characters, at most {MAX_NAME} are allowed for a deployment: its pods' names are longer"),
    );
    checks.labels(&metadata.key("labels"), &deployment.metadata.labels);
    checks.deployment(&Path::default().key("spec"), &deployment.spec);
    checks.findings
}

impl Checks {
    fn deployment(&mut self, path: &Path, spec: &DeploymentSpec) {
        let replicas = spec.replicas();
        self.check(replicas <= MAX_REPLICAS, || path.key("replicas"), || format!("{replicas}; at most {MAX_REPLICAS} are allowed"));
        let (ready, deadline) = (spec.min_ready_seconds, spec.progress_deadline_seconds);
        self.at_most_a_day(|| path.key("minReadySeconds"), ready);
        self.at_most_a_day(|| path.key("progressDeadlineSeconds"), deadline);
        // Otherwise no rollout could ever come to its end in time.
        self.check(
            deadline > ready,
            || path.key("progressDeadlineSeconds"),
            || format!("{deadline} s; it must be more than minReadySeconds, {ready} s"),
        );
        let kept = spec.revision_history_limit;
        self.check(kept <= MAX_HISTORY, || path.key("revisionHistoryLimit"), || format!("{kept}; at most {MAX_HISTORY} are kept"));
        self.deployment_strategy(&path.key("strategy"), &spec.strategy);
        self.deployment_template(&path.key("template"), spec);
        self.deployment_selector(&path.key("selector").key("matchLabels"), spec);
    }

    fn at_most_a_day(&mut self, path: impl FnOnce() -> Path, seconds: u32) {
        self.check(seconds <= MAX_SECONDS, path, || format!("{seconds} s; at most {MAX_SECONDS} (a day) are allowed"));
    }

    fn deployment_strategy(&mut self, path: &Path, strategy: &DeploymentStrategy) {
        let Some(bounds) = strategy.rolling_update else { return };
        match strategy.kind {
            StrategyKind::RollingUpdate => {}
            StrategyKind::Recreate => self.refuse(path.key("rollingUpdate"), "with `type: Recreate` there is nothing that it could bound"),
        }
        self.check(
            !(bounds.max_surge.is_none() && bounds.max_unavailable.is_none()),
            || path.key("rollingUpdate"),
            || "maxSurge and maxUnavailable are both 0: no pod could ever be replaced".to_owned(),
        );
    }

    fn deployment_template(&mut self, path: &Path, spec: &DeploymentSpec) {
        let labels = path.key("metadata").key("labels");
        self.labels(&labels, &spec.template.metadata.labels);
        for key in spec.template.metadata.labels.keys().filter(|key| key.starts_with(LABEL_PREFIX)) {
            self.refuse(labels.key(key), format!("labels that begin with `{LABEL_PREFIX}` are the cluster's to set"));
        }
        let pod = path.key("spec");
        self.spec(&pod, &spec.template.spec);
        match spec.template.spec.restart_policy {
            RestartPolicy::Always => {}
            RestartPolicy::OnFailure | RestartPolicy::Never => self.refuse(
                pod.key("restartPolicy"),
                "a deployment keeps its pods running, so only Always is allowed; what runs to its end is a job's",
            ),
        }
    }

    fn deployment_selector(&mut self, path: &Path, spec: &DeploymentSpec) {
        let Some(selector) = &spec.selector else { return };
        self.labels(path, &selector.match_labels);
        self.check(
            !selector.match_labels.is_empty(),
            || path.clone(),
            || "it is empty and would mean every pod; leave `selector` out".to_owned(),
        );
        let labels = &spec.template.metadata.labels;
        for (key, value) in &selector.match_labels {
            let message = match labels.get(key) {
                Some(same) if same == value => continue,
                Some(other) => format!("`{value}` is asked for, but the template's label has `{other}`"),
                None => format!("`{value}` is asked for, but the template has no such label"),
            };
            self.refuse(path.key(key), message);
        }
    }
}
