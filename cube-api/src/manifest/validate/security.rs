//! Rules of `securityContext` and `hostNetwork`: numbers that are users, and wishes that contradict each other.

use super::super::path::Path;
use super::Checks;
use crate::pod::{Capability, Container, ContainerSecurity, MAX_ID, PodSpec, Security};

/// The kernel's most groups of a process (`NGROUPS_MAX`) are 65,536; a manifest that lists more than this is a mistake.
const MAX_GROUPS: usize = 64;

/// All that is wrong with a pod's security.
pub(super) fn pod(checks: &mut Checks, path: &Path, spec: &PodSpec) {
    let context = path.key("securityContext");
    let own = &spec.security_context;
    id(checks, &context.key("runAsUser"), own.run_as_user);
    id(checks, &context.key("runAsGroup"), own.run_as_group);
    let groups = context.key("supplementalGroups");
    let count = own.supplemental_groups.len();
    checks.check(count <= MAX_GROUPS, || groups.clone(), || format!("{count} groups, at most {MAX_GROUPS} are allowed"));
    for (index, group) in own.supplemental_groups.iter().enumerate().take(MAX_GROUPS) {
        id(checks, &groups.index(index), Some(*group));
    }
    if spec.host_network {
        let path = || path.key("hostname");
        checks.check(spec.hostname.is_none(), path, || {
            "a pod in the host's network has the host's name: leave one of the two out".to_owned()
        });
    }
}

/// All that is wrong with a container's; `path` is the container's.
pub(super) fn container(checks: &mut Checks, path: &Path, spec: &PodSpec, container: &Container) {
    let ContainerSecurity { run_as_user, run_as_group, capabilities, .. } = &container.security_context;
    let context = path.key("securityContext");
    id(checks, &context.key("runAsUser"), *run_as_user);
    id(checks, &context.key("runAsGroup"), *run_as_group);
    let all = Security::of(spec, container);
    let root = all.non_root && all.user == Some(0);
    checks.check(!root, || context.key("runAsUser"), || "0 is root, and `runAsNonRoot` is true".to_owned());
    let escalation = || context.key("allowPrivilegeEscalation");
    // What is mightier already gets no less by it: Kubernetes refuses the two together as well.
    let refused = |of: &str| format!("false contradicts {of}: leave one of the two out");
    checks.check(!(all.no_new_privileges && all.privileged), escalation, || refused("`privileged: true`"));
    let mighty = [Capability::SysAdmin, Capability::All].iter().any(|one| capabilities.add.contains(one));
    checks.check(!(all.no_new_privileges && mighty), escalation, || refused("the added capability SYS_ADMIN"));
    // Docker would give it every one, whatever is dropped.
    let both = all.privileged && !capabilities.is_empty();
    let message = || "a privileged container has every capability: leave `capabilities` or `privileged` out".to_owned();
    checks.check(!both, || context.key("capabilities"), message);
    // Which of the two wins depends on the engine: nobody should have to know.
    if let Some(both) = capabilities.add.intersection(&capabilities.drop).next() {
        checks.refuse(context.key("capabilities"), format!("`{both}` is both in `add` and in `drop`"));
    }
    if spec.host_network {
        host_ports(checks, &path.key("ports"), container);
    }
}

/// In the host's network a container's port is the host's: there is nothing to publish it on but itself.
fn host_ports(checks: &mut Checks, path: &Path, container: &Container) {
    for (index, port) in container.ports.iter().enumerate() {
        let path = path.index(index);
        let number = port.container_port;
        let expected = || format!("with `hostNetwork` a port is the host's own: write `hostPort: {number}`, as the `containerPort`");
        checks.check(port.host_port == Some(number), || path.key("hostPort"), expected);
        let message = || "with `hostNetwork` the program itself chooses the address that it listens on".to_owned();
        checks.check(port.host_ip.is_none(), || path.key("hostIP"), message);
    }
}

fn id(checks: &mut Checks, path: &Path, id: Option<u32>) {
    let problem = || format!("{} is no user or group: 0 to {MAX_ID} are", id.unwrap_or_default());
    checks.check(id.is_none_or(|id| id <= MAX_ID), || path.clone(), problem);
}
