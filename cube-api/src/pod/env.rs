//! A container's environment: values, and facts of the pod and its node that are filled in where it runs.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, MapAccess, SeqAccess};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::meta::Name;
use crate::quantity::{Bytes, MilliCpu};

/// The variables of a container, in order: a value may refer to those before it by `$(NAME)`.
///
/// Written as a map of names and values, in the order of the text, or as Kubernetes' list of [`EnvVar`]. Printed as a map wherever that says the
/// same, which is where every variable is a plain value and the names are in order: a map's order is lost in many a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(Vec<EnvVar>);

impl Env {
    /// Plain values, in this order.
    pub fn plain<N: Into<String>, V: Into<String>>(values: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(values.into_iter().map(|(name, value)| EnvVar::plain(name, value)).collect())
    }

    /// The variables, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, EnvVar> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The variable of a name.
    pub fn get(&self, name: &str) -> Option<&EnvVar> {
        self.0.iter().find(|variable| variable.name == name)
    }

    /// Whether a container can't be made before its pod has an address.
    pub fn asks_for_the_pods_address(&self) -> bool {
        let asks = |source: &EnvSource| source.field_ref.as_ref().is_some_and(|field| field.field_path == FieldPath::PodIp);
        self.0.iter().filter_map(|variable| variable.value_from.as_ref()).any(asks)
    }

    /// The plain value of a name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|variable| variable.value.as_deref())
    }

    /// Gives a variable a plain value: in its place if it is there, else as the last.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let variable = EnvVar::plain(name, value);
        match self.0.iter_mut().find(|other| other.name == variable.name) {
            Some(other) => *other = variable,
            None => self.0.push(variable),
        }
    }

    /// The one way to write this environment: where no value refers to another, the order says nothing, so it is that of the names, and a variable
    /// without a value is an empty one. Two that mean the same are equal then, and applying one after the other changes nothing.
    pub fn normalize(&mut self) {
        for variable in &mut self.0 {
            if variable.value_from.is_none() {
                variable.value.get_or_insert_default();
            }
        }
        let refers = |variable: &EnvVar| variable.value.as_ref().is_some_and(|value| value.contains("$("));
        if !self.0.iter().any(refers) {
            self.0.sort_by(|one, other| one.name.cmp(&other.name));
        }
    }

    fn is_a_map(&self) -> bool {
        self.0.iter().all(|variable| variable.value_from.is_none()) && self.0.is_sorted_by(|one, other| one.name < other.name)
    }
}

impl FromIterator<EnvVar> for Env {
    fn from_iter<I: IntoIterator<Item = EnvVar>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Env {
    type Item = &'a EnvVar;
    type IntoIter = std::slice::Iter<'a, EnvVar>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.is_a_map() {
            return serializer.collect_seq(&self.0);
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for EnvVar { name, value, .. } in &self.0 {
            map.serialize_entry(name, value.as_deref().unwrap_or_default())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through an option: a manifest's decoder has an answer to that wherever it stands in for what couldn't be read.
        Option::<Either>::deserialize(deserializer).map(|either| either.map(|Either(env)| env).unwrap_or_default())
    }
}

/// An environment in either form.
struct Either(Env);

impl<'de> Deserialize<'de> for Either {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvVisitor).map(Self)
    }
}

struct EnvVisitor;

impl<'de> de::Visitor<'de> for EnvVisitor {
    type Value = Env;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names and values, or a list of variables,")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Env, A::Error> {
        let mut variables = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            variables.push(EnvVar::plain(name, value));
        }
        Ok(Env(variables))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Env, A::Error> {
        let mut variables = Vec::new();
        while let Some(variable) = list.next_element()? {
            variables.push(variable);
        }
        Ok(Env(variables))
    }
}

/// A variable: a value, or where the value comes from. With neither it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value. `$(NAME)` in it is replaced from the variables before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What the node fills in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

impl EnvVar {
    /// One with a value of its own.
    pub fn plain(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.into()), value_from: None }
    }
}

/// Where a variable's value comes from: exactly one of these. They are options because a node must read what a newer leader sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A fact of the pod or its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// What a container of the pod asks for or is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_field_ref: Option<ResourceFieldRef>,
}

impl EnvSource {
    /// What there is, for messages.
    pub const NAMES: [&str; 2] = ["fieldRef", "resourceFieldRef"];

    /// The names of the sources that it gives, in the order of [`Self::NAMES`].
    pub fn given(&self) -> Vec<&'static str> {
        let Self { field_ref, resource_field_ref } = self;
        let given = [field_ref.is_some(), resource_field_ref.is_some()];
        Self::NAMES.into_iter().zip(given).filter_map(|(name, is_there)| is_there.then_some(name)).collect()
    }
}

/// A fact, by the path that Kubernetes gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Which.
    pub field_path: FieldPath,
}

/// The facts of a pod that its containers can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FieldPath {
    /// `metadata.name`.
    Name,
    /// `metadata.uid`: which life of that name.
    Uid,
    /// `metadata.labels['key']`: empty where the pod hasn't got it.
    Label(String),
    /// `spec.nodeName`.
    NodeName,
    /// `status.hostIP`: the node's address.
    HostIp,
    /// `status.podIP`: the address of the pod's network namespace, the first one where it has got several in its life.
    PodIp,
    /// No path of this version: refused in a manifest, and never a reason to misunderstand a newer peer.
    Unknown(String),
}

impl FieldPath {
    /// What there is, for messages.
    pub const ALLOWED: [&str; 6] =
        ["metadata.name", "metadata.uid", "metadata.labels['KEY']", "spec.nodeName", "status.hostIP", "status.podIP"];
}

impl From<String> for FieldPath {
    fn from(path: String) -> Self {
        match path.as_str() {
            "metadata.name" => Self::Name,
            "metadata.uid" => Self::Uid,
            "spec.nodeName" => Self::NodeName,
            "status.hostIP" => Self::HostIp,
            "status.podIP" => Self::PodIp,
            other => match other.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']")) {
                Some(key) => Self::Label(key.to_owned()),
                None => Self::Unknown(path),
            },
        }
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("metadata.name"),
            Self::Uid => f.write_str("metadata.uid"),
            Self::Label(key) => write!(f, "metadata.labels['{key}']"),
            Self::NodeName => f.write_str("spec.nodeName"),
            Self::HostIp => f.write_str("status.hostIP"),
            Self::PodIp => f.write_str("status.podIP"),
            Self::Unknown(path) => f.write_str(path),
        }
    }
}

/// What a container asks for or is limited to, as a whole number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceFieldRef {
    /// Whose; this container's without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<Name>,
    /// Which amount.
    pub resource: ResourceField,
    /// In units of this much, rounded up: `1` (the default) is cores or bytes, `1m` thousandths of a core, `1Mi` MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divisor: Option<String>,
}

impl ResourceFieldRef {
    /// The divisor in the amount's own smallest unit: thousandths of a core, or bytes.
    ///
    /// # Errors
    /// The sentence that says why the divisor is none.
    pub fn unit(&self) -> Result<u64, String> {
        let text = self.divisor.as_deref().unwrap_or("1");
        let unit = match self.resource {
            ResourceField::RequestsCpu | ResourceField::LimitsCpu => MilliCpu::from_str(text).map(|MilliCpu(unit)| unit),
            ResourceField::RequestsMemory | ResourceField::LimitsMemory | ResourceField::RequestsDisk => {
                Bytes::from_str(text).map(|Bytes(unit)| unit)
            }
        };
        match unit {
            Ok(0) => Err("nothing can be divided by 0; leave `divisor` out for cores or bytes".to_owned()),
            Ok(unit) => Ok(unit),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The amounts of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceField {
    /// The cpu that is reserved for it: its request, else its limit, else 0.
    #[serde(rename = "requests.cpu")]
    RequestsCpu,
    /// The memory that is reserved for it, as `requests.cpu`.
    #[serde(rename = "requests.memory")]
    RequestsMemory,
    /// The disk space that is reserved for it, or 0.
    #[serde(rename = "requests.disk")]
    RequestsDisk,
    /// Its limit of cpu; without one, what the node gives to pods.
    #[serde(rename = "limits.cpu")]
    LimitsCpu,
    /// Its limit of memory; without one, what the node gives to pods.
    #[serde(rename = "limits.memory")]
    LimitsMemory,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Env {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_map_that_older_versions_wrote_is_read() {
        assert_eq!(read(json!({"A": "1", "B": ""})), Env::plain([("A", "1"), ("B", "")]));
        assert_eq!(serde_json::to_value(Env::plain([("A", "1"), ("B", "")])).unwrap(), json!({"A": "1", "B": ""}));
    }

    #[test]
    fn what_a_map_cannot_say_is_a_list() {
        for list in [
            json!([{"name": "B", "value": "1"}, {"name": "A", "value": "$(B)"}]),
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}}}]),
            json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"containerName": "app", "resource": "limits.cpu", "divisor": "1m"}}}]),
        ] {
            assert_eq!(serde_json::to_value(read(list.clone())).unwrap(), list);
        }
    }

    #[test]
    fn order_says_nothing_unless_a_value_refers_to_another() {
        let normal = |value| {
            let mut env = read(value);
            env.normalize();
            env
        };
        assert_eq!(normal(json!([{"name": "B", "value": "1"}, {"name": "A"}])), normal(json!({"A": "", "B": "1"})));
        assert_ne!(normal(json!([{"name": "B", "value": "1"}, {"name": "A", "value": "$(B)"}])), normal(json!({"A": "$(B)", "B": "1"})));
    }

    #[test]
    fn a_source_of_a_newer_version_is_read_and_known_as_none() {
        let env =
            read(json!([{"name": "A", "valueFrom": {"laterRef": {"x": 1}}}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]));
        let source = |name| env.get(name).unwrap().value_from.clone().unwrap();
        assert!(source("A").given().is_empty());
        assert_eq!(source("B").field_ref.unwrap().field_path, FieldPath::Unknown("x".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(values in proptest::collection::vec(("[A-C]{1,3}", "[$(A)]{0,4}"), 0..6)) {
            let env = Env::plain(values);
            prop_assert_eq!(read(serde_json::to_value(&env).unwrap()), env);
        }
    }
}
