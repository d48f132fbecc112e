//! Resources as people name them: `pod/web`, `pod web`, `pods`.

use cube_api::meta::{Name, ResourceKind, ResourceRef};

use crate::error::{CliError, Result};

/// One word, as clap reads it: `pod/web`.
pub fn parse_reference(text: &str) -> std::result::Result<ResourceRef, String> {
    let (kind, name) = text.split_once('/').ok_or_else(|| format!("'{text}' is not TYPE/NAME, such as pod/my-pod"))?;
    Ok(ResourceRef { kind: kind.parse()?, name: Name::new(name).map_err(|error| error.to_string())? })
}

/// A pod as clap reads it: `pod/web`, or `web` alone.
pub fn parse_pod(text: &str) -> std::result::Result<Name, String> {
    parse_one_of(ResourceKind::Pod, text)
}

/// A cronjob as clap reads it: `cronjob/report`, or `report` alone.
pub fn parse_cronjob(text: &str) -> std::result::Result<Name, String> {
    parse_one_of(ResourceKind::CronJob, text)
}

/// A deployment as clap reads it: `deployment/web`, or `web` alone.
pub fn parse_deployment(text: &str) -> std::result::Result<Name, String> {
    parse_one_of(ResourceKind::Deployment, text)
}

/// A node as clap reads it: `node/n1`, or `n1` alone.
pub fn parse_node(text: &str) -> std::result::Result<Name, String> {
    parse_one_of(ResourceKind::Node, text)
}

fn parse_one_of(kind: ResourceKind, text: &str) -> std::result::Result<Name, String> {
    if !text.contains('/') {
        return Name::new(text).map_err(|error| error.to_string());
    }
    let reference = parse_reference(text)?;
    if reference.kind == kind {
        Ok(reference.name)
    } else {
        Err(format!("'{text}' is a {}, and only a {kind} can do this", reference.kind))
    }
}

/// What the words of a command name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A type alone: all of it.
    All(ResourceKind),
    /// These.
    These(Vec<ResourceRef>),
}

/// Reads `TYPE`, `TYPE NAME...` or `TYPE/NAME...`.
pub fn parse(words: &[String]) -> Result<Target> {
    let Some((first, rest)) = words.split_first() else {
        return Err(CliError::usage("no resource is named").hint("name a type, such as pod, or a resource, such as pod/my-pod"));
    };
    if first.contains('/') {
        return words.iter().map(|word| parse_reference(word).map_err(CliError::usage)).collect::<Result<_>>().map(Target::These);
    }
    let kind: ResourceKind =
        first.parse().map_err(|problem: String| CliError::usage(problem).hint("a resource is TYPE/NAME, such as pod/my-pod"))?;
    if rest.is_empty() {
        return Ok(Target::All(kind));
    }
    let named =
        |word: &String| Name::new(word.as_str()).map(|name| ResourceRef { kind, name }).map_err(|error| CliError::usage(error.to_string()));
    rest.iter().map(named).collect::<Result<_>>().map(Target::These)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        match parse(&words) {
            Ok(Target::All(kind)) => format!("all {kind}"),
            Ok(Target::These(references)) => references.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn resources_are_named_as_kubectl_does_and_with_a_slash() {
        assert_eq!(shown(&["pods"]), "all pod");
        assert_eq!(shown(&["po", "web", "db"]), "pod/web pod/db");
        assert_eq!(shown(&["pod/web", "node/a"]), "pod/web node/a");
        assert_eq!(shown(&["pod/web", "db"]), "refused");
        assert_eq!(shown(&["web"]), "refused");
        assert_eq!(shown(&["pod/Web"]), "refused");
        assert_eq!(shown(&[]), "refused");
    }

    #[test]
    fn logs_take_a_bare_name_for_a_pod_and_no_node() {
        assert_eq!(parse_pod("web").map(|name| name.to_string()), Ok("web".to_owned()));
        assert_eq!(parse_pod("pods/web").map(|name| name.to_string()), Ok("web".to_owned()));
        assert!(parse_pod("node/web").is_err());
    }

    #[test]
    fn cordon_and_drain_take_a_bare_name_for_a_node_and_no_pod() {
        assert_eq!(parse_node("n1").map(|name| name.to_string()), Ok("n1".to_owned()));
        assert_eq!(parse_node("nodes/n1").map(|name| name.to_string()), Ok("n1".to_owned()));
        assert!(parse_node("pod/web").is_err());
    }
}
