//! A container's environment as its process gets it: facts filled in, references replaced. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cube_api::meta::{Labels, Name, Uid};
use cube_api::node::Capacity;
use cube_api::pod::{Container, EnvSource, EnvVar, FieldPath, PodSpec, ResourceField, ResourceFieldRef, expand};

/// What containers of a pod may be told. An address is none where it isn't known.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The pod's name.
    pub name: &'a Name,
    /// Its life.
    pub uid: Uid,
    /// Its labels, as far as its containers ask for them.
    pub labels: &'a Labels,
    /// What it was asked to be.
    pub spec: &'a PodSpec,
    /// The node's name.
    pub node: &'a Name,
    /// The node's address.
    pub host_ip: Option<IpAddr>,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
    /// What the node gives to pods; none before the engine was asked.
    pub allocatable: Option<Capacity>,
}

/// The environment of a container, by Kubernetes' rules: in order, and a value may refer to what is before it. `given` is what the node adds of
/// itself, before all that the manifest says.
///
/// # Errors
/// The sentence that says which variable can't be filled in, and why.
pub fn environment(container: &Container, given: BTreeMap<String, String>, facts: Facts<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut env = given;
    for variable @ EnvVar { name, value, value_from } in &container.env {
        let value = match value_from {
            None => expand(value.as_deref().unwrap_or_default(), &env),
            Some(source) => from_source(source, container, facts).map_err(|problem| format!("env {}: {problem}", variable.name))?,
        };
        env.insert(name.clone(), value);
    }
    Ok(env)
}

fn from_source(source: &EnvSource, container: &Container, facts: Facts<'_>) -> Result<String, String> {
    let EnvSource { field_ref, resource_field_ref } = source;
    match (field_ref, resource_field_ref) {
        (Some(field), None) => field_value(&field.field_path, facts),
        (None, Some(resource)) => amount(resource, container, facts),
        (None, None) | (Some(_), Some(_)) => {
            Err(format!("valueFrom is none that version {} of this node knows", env!("CARGO_PKG_VERSION")))
        }
    }
}

fn field_value(path: &FieldPath, facts: Facts<'_>) -> Result<String, String> {
    let address = |address: Option<IpAddr>, whose| address.map(|ip| ip.to_string()).ok_or_else(|| format!("{path}: {whose} is not known"));
    match path {
        FieldPath::Name => Ok(facts.name.to_string()),
        FieldPath::Uid => Ok(facts.uid.to_string()),
        FieldPath::Label(key) => Ok(facts.labels.get(key).cloned().unwrap_or_default()),
        FieldPath::NodeName => Ok(facts.node.to_string()),
        FieldPath::HostIp => address(facts.host_ip, "this node's address (start its cube-server with --address)"),
        FieldPath::PodIp => address(facts.pod_ip, "the pod's address"),
        FieldPath::Unknown(path) => Err(format!("version {} of this node knows no {path}", env!("CARGO_PKG_VERSION"))),
    }
}

/// An amount in units of the divisor, rounded up as Kubernetes does: half a core is 1, so that a thread pool of that size has a thread.
fn amount(field: &ResourceFieldRef, container: &Container, facts: Facts<'_>) -> Result<String, String> {
    let other = |name: &Name| facts.spec.containers.iter().find(|container| container.name == *name);
    let of = match &field.container_name {
        None => container,
        Some(name) => other(name).ok_or_else(|| format!("the pod has no container {name}"))?,
    };
    let resources = &of.resources;
    let unknown = || format!("{} is not limited, and what this node has is not known yet", of.name);
    let allocatable = || facts.allocatable.ok_or_else(unknown);
    let value = match field.resource {
        ResourceField::RequestsCpu => resources.reserved_cpu().0,
        ResourceField::RequestsMemory => resources.reserved_memory().0,
        ResourceField::RequestsDisk => resources.reserved_disk().0,
        ResourceField::LimitsCpu => resources.limits.cpu.map_or_else(|| allocatable().map(|all| all.cpu), Ok)?.0,
        ResourceField::LimitsMemory => resources.limits.memory.map_or_else(|| allocatable().map(|all| all.memory), Ok)?.0,
    };
    Ok(value.div_ceil(field.unit()?).to_string())
}
