//! A container's environment as its process gets it: facts filled in, references replaced. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cube_api::meta::{Labels, Name, Uid};
use cube_api::node::Capacity;
use cube_api::pod::{Container, EnvSource, EnvVar, FieldPath, KeyRef, PodSpec, ResourceField, ResourceFieldRef, Source, expand};
use cube_api::sources::{Hidden, Sources};

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
    /// The values that the pod takes from secrets and configs; none where it takes none.
    pub sources: Option<&'a Sources>,
}

/// The environment of a container, by Kubernetes' rules: in order, and a value may refer to what is before it. `given` is what the node adds of
/// itself, before all that the manifest says.
///
/// # Errors
/// The sentence that says which variable can't be filled in, and why.
pub fn environment(container: &Container, given: BTreeMap<String, String>, facts: Facts<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut env = given;
    env.extend(from_all_keys(container, facts)?);
    for variable @ EnvVar { name, value, value_from } in &container.env {
        let value = match value_from {
            None => Some(expand(value.as_deref().unwrap_or_default(), &env)),
            Some(source) => from_source(source, container, facts).map_err(|problem| format!("env {}: {problem}", variable.name))?,
        };
        if let Some(value) = value {
            env.insert(name.clone(), value);
        }
    }
    Ok(env)
}

fn from_source(source: &EnvSource, container: &Container, facts: Facts<'_>) -> Result<Option<String>, String> {
    if let Some((of, wanted)) = source.key_ref() {
        return from_key(of, wanted, facts);
    }
    let EnvSource { field_ref, resource_field_ref, secret_key_ref: _, config_key_ref: _ } = source;
    let value = match (field_ref, resource_field_ref) {
        (Some(field), None) => field_value(&field.field_path, facts),
        (None, Some(resource)) => amount(resource, container, facts),
        (None, None) | (Some(_), Some(_)) => {
            Err(format!("valueFrom is none that version {} of this node knows", env!("CARGO_PKG_VERSION")))
        }
    };
    value.map(Some)
}

/// None where there is no such value and the pod goes on without.
fn from_key(of: Source<'_>, wanted: &KeyRef, facts: Facts<'_>) -> Result<Option<String>, String> {
    let values = facts.sources.and_then(|sources| sources.values(&of));
    match (values, wanted.optional) {
        (None, true) => Ok(None),
        (None, false) => Err(format!("{of} is not there")),
        (Some(values), optional) => match values.data.get(&wanted.key) {
            Some(value) => text(value, of, &wanted.key).map(Some),
            None if optional => Ok(None),
            None => Err(format!("{of} has no key '{}'", wanted.key)),
        },
    }
}

/// A value as an environment can have it. What is wrong with it is said without it.
fn text(value: &Hidden, of: Source<'_>, key: &str) -> Result<String, String> {
    match std::str::from_utf8(&value.0) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(format!("the value of key '{key}' of {of} is not a text; mount it as a file")),
    }
}

/// What all keys of secrets and configs give; of equal names the last, as in Kubernetes.
fn from_all_keys(container: &Container, facts: Facts<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    for from in &container.env_from {
        let Some((of, optional)) = from.source() else {
            return Err(format!("envFrom is none that version {} of this node knows", env!("CARGO_PKG_VERSION")));
        };
        match facts.sources.and_then(|sources| sources.values(&of)) {
            Some(values) => {
                for (key, value) in &values.data {
                    // Kubernetes leaves out what no environment can have; a file of a secret may well be binary.
                    if let Ok(text) = text(value, of, key) {
                        env.insert(format!("{}{key}", from.prefix), text);
                    }
                }
            }
            None if optional => {}
            None => return Err(format!("envFrom: {of} is not there")),
        }
    }
    Ok(env)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cube_api::meta::Revision;
    use cube_api::pod::RestartPolicy;
    use cube_api::sources::Values;

    use super::*;
    use crate::follower::testing::{name, pod};

    fn values(data: &[(&str, &[u8])]) -> Arc<Values> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), Hidden(value.to_vec().into())));
        Arc::new(Values { revision: Revision(1), data: data.collect() })
    }

    /// The environment of a container that says this, by what there is.
    fn env_of(container: serde_json::Value, sources: Option<&Sources>) -> Result<BTreeMap<String, String>, String> {
        let pod = pod(1, RestartPolicy::Always);
        let mut text = serde_json::json!({ "name": "app", "image": "app" });
        text.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let container = serde_json::from_value(text).unwrap();
        let facts = Facts {
            name: &pod.name,
            uid: pod.uid,
            labels: &Labels::new(),
            spec: &pod.spec,
            node: &name("n1"),
            host_ip: None,
            pod_ip: None,
            allocatable: Some(Capacity::default()),
            sources,
        };
        environment(&container, BTreeMap::new(), facts)
    }

    #[test]
    fn keys_of_secrets_and_configs_are_filled_in_and_env_goes_before_env_from() {
        let secrets = BTreeMap::from([(name("db"), values(&[("password", b"hunter2"), ("binary", b"\xff\x00")]))]);
        let configs = BTreeMap::from([(name("app"), values(&[("MODE", b"fast"), ("LEVEL", b"3")]))]);
        let sources = Sources { secrets, configs, ..Sources::default() };
        let container = serde_json::json!({
            "envFrom": [{ "prefix": "DB_", "secretRef": { "name": "db" } }, { "configRef": { "name": "app" } },
                { "secretRef": { "name": "none", "optional": true } }],
            "env": [{ "name": "LEVEL", "value": "9" }, { "name": "URL", "value": "db:$(DB_password)" },
                { "name": "P", "valueFrom": { "secretKeyRef": { "name": "db", "key": "password" } } },
                { "name": "NONE", "valueFrom": { "configKeyRef": { "name": "app", "key": "none", "optional": true } } }],
        });
        let env: Vec<_> = env_of(container, Some(&sources)).unwrap().into_iter().collect();
        let expected = [("DB_password", "hunter2"), ("LEVEL", "9"), ("MODE", "fast"), ("P", "hunter2"), ("URL", "db:hunter2")];
        assert_eq!(env, expected.map(|(key, value)| (key.to_owned(), value.to_owned())), "what is no text is left out of all keys");
    }

    #[test]
    fn what_is_missing_or_no_text_is_named_and_no_value_is_shown() {
        let from =
            |key: &str| serde_json::json!({ "env": [{ "name": "P", "valueFrom": { "secretKeyRef": { "name": "db", "key": key } } }] });
        assert_eq!(env_of(from("password"), None).unwrap_err(), "env P: secret/db is not there");
        let secrets = BTreeMap::from([(name("db"), values(&[("binary", b"hunter\x00")]))]);
        let sources = Sources { secrets, ..Sources::default() };
        assert_eq!(env_of(from("password"), Some(&sources)).unwrap_err(), "env P: secret/db has no key 'password'");
        let refused = env_of(from("binary"), Some(&sources)).unwrap_err();
        assert_eq!(refused, "env P: the value of key 'binary' of secret/db is not a text; mount it as a file");
        let all = serde_json::json!({ "envFrom": [{ "configRef": { "name": "app" } }] });
        assert_eq!(env_of(all, Some(&sources)).unwrap_err(), "envFrom: config/app is not there");
    }
}
