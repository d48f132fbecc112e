//! The rules of a container's environment.

use std::collections::HashMap;

use super::{Checks, MAX_WORD_BYTES, label_key_problem, too_long};
use crate::manifest::path::Path;
use crate::manifest::tree::excerpt;
use crate::pod::{Container, EnvSource, EnvVar, FieldPath, PodSpec, ResourceFieldRef};

impl Checks {
    /// Each variable by its place: where the text has a map, the place is told as the key (`Node::spelled`).
    pub(super) fn env(&mut self, env: &Path, container: &Container, spec: &PodSpec) {
        let mut seen = HashMap::new();
        for (index, variable) in container.env.iter().enumerate() {
            let path = env.index(index);
            self.variable(&path, variable);
            if let Some(first) = seen.insert(&variable.name, index) {
                self.refuse(path.key("name"), format!("`{}` is there already, as [{first}]", excerpt(&variable.name)));
            }
            match (&variable.value, &variable.value_from) {
                (Some(_), Some(_)) => self.refuse(path, "`value` and `valueFrom` together; one of them says what the value is"),
                (None, Some(source)) => self.env_source(&path.key("valueFrom"), source, container, spec),
                (Some(_) | None, None) => {}
            }
        }
    }

    fn variable(&mut self, path: &Path, EnvVar { name, value, value_from: _ }: &EnvVar) {
        self.check(!name.is_empty(), || path.clone(), || "a variable without a name".to_owned());
        self.check(!name.contains(['=', '\0']), || path.clone(), || "a variable's name has no '=' and no NUL character".to_owned());
        let value = value.as_deref().unwrap_or_default();
        self.check(!value.contains('\0'), || path.clone(), || "a NUL character, which no program can be given".to_owned());
        let length = name.len() + 1 + value.len();
        self.check(length <= MAX_WORD_BYTES, || path.clone(), || too_long(length));
    }

    fn env_source(&mut self, path: &Path, source: &EnvSource, container: &Container, spec: &PodSpec) {
        match source.given().as_slice() {
            [] => self.refuse(path.clone(), format!("it names no source; there are {}", EnvSource::NAMES.join(", "))),
            [_] => {}
            [first, others @ ..] => {
                self.refuse(path.clone(), format!("`{first}` and `{}` together; one of them is enough", others.join("`, `")))
            }
        }
        if let Some(field) = &source.field_ref {
            self.field_path(&path.key("fieldRef").key("fieldPath"), &field.field_path);
        }
        if let Some(resource) = &source.resource_field_ref {
            self.resource_field(&path.key("resourceFieldRef"), resource, container, spec);
        }
    }

    fn field_path(&mut self, path: &Path, field: &FieldPath) {
        match field {
            FieldPath::Unknown(text) if text == "metadata.namespace" => {
                self.refuse(path.clone(), "cube has no namespaces; leave the variable out, or give it a `value`");
            }
            FieldPath::Unknown(text) => {
                self.refuse(path.clone(), format!("`{}` is no fact of a pod; there are {}", excerpt(text), FieldPath::ALLOWED.join(", ")));
            }
            FieldPath::Label(key) => {
                if let Some(problem) = label_key_problem(key) {
                    self.refuse(path.clone(), problem);
                }
            }
            FieldPath::Name | FieldPath::Uid | FieldPath::NodeName | FieldPath::HostIp | FieldPath::PodIp => {}
        }
    }

    fn resource_field(&mut self, path: &Path, field: &ResourceFieldRef, container: &Container, spec: &PodSpec) {
        let name = field.container_name.as_ref().unwrap_or(&container.name);
        if !spec.containers.iter().any(|container| container.name == *name) {
            let names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
            self.refuse(path.key("containerName"), format!("the pod has no container `{name}`; it has {}", names.join(", ")));
        }
        if let Err(problem) = field.unit() {
            self.refuse(path.key("divisor"), problem);
        }
    }
}
