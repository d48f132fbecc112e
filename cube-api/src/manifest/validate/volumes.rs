//! The rules of a pod's volumes, of where its containers have them, and of the secrets and configs that it names.

use std::collections::BTreeMap;

use super::Checks;
use super::data::{is_key, no_key};
use crate::manifest::path::Path;
use crate::manifest::tree::excerpt;
use crate::meta::Name;
use crate::pod::{Container, EmptyDir, Files, HostPath, HostPathType, Medium, OnNodeLoss, PodSpec, SourceKind, Volume, VolumeSource};

/// The most volumes of a pod. Docker makes each in some milliseconds; a pod that needs more is several pods.
const MAX_VOLUMES: usize = 64;

/// Linux's longest path, with the closing NUL (`PATH_MAX`).
const MAX_PATH: usize = 4095;

/// Folders that the container's engine makes itself, and that nothing may cover: the root, and what the kernel shows there.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The one folder below a reserved one where people mount things: memory that processes share.
const SHARED_MEMORY: &str = "/dev/shm";

impl Checks {
    pub(super) fn volumes(&mut self, spec_path: &Path, spec: &PodSpec) {
        let path = spec_path.key("volumes");
        let count = spec.volumes.len();
        self.check(count <= MAX_VOLUMES, || path.clone(), || format!("{count} volumes, at most {MAX_VOLUMES} are allowed"));
        let mut declared = BTreeMap::new();
        for (index, volume) in spec.volumes.iter().enumerate().take(MAX_VOLUMES) {
            let path = path.index(index);
            if let Some(first) = declared.insert(&volume.name, index) {
                self.refuse(path.key("name"), format!("`{}` is the name of volumes[{first}] already", volume.name));
            }
            self.volume(&path, volume);
        }
        for (index, container) in spec.containers.iter().enumerate() {
            let path = spec_path.key("containers").index(index);
            self.mounts(&path.key("volumeMounts"), container, &declared);
            self.env_from(&path.key("envFrom"), container);
        }
        // Left out it means `wait` for such a pod (`forms`). Its data are on that node: a new pod elsewhere would find none, or another life of it would write to them at the same time.
        let claim = spec.claims().next().filter(|_| spec.on_node_loss == OnNodeLoss::Replace);
        if let Some(claim) = claim {
            let message =
                format!("a pod with a named volume (`{claim}`) waits for the node that has it; leave the field out, or say `wait`");
            self.refuse(spec_path.key("onNodeLoss"), message);
        }
    }

    fn volume(&mut self, path: &Path, volume: &Volume) {
        const SOURCES: &str = "emptyDir, hostPath, persistentVolumeClaim, secret or config";
        match volume.sources().count() {
            0 => self.refuse(path.clone(), format!("a volume without a source; give it one of {SOURCES}")),
            1 => {}
            several => self.refuse(path.clone(), format!("{several} sources, a volume has one: {SOURCES}")),
        }
        for source in volume.sources() {
            match source {
                VolumeSource::EmptyDir(empty) => self.empty_dir(&path.key("emptyDir"), empty),
                VolumeSource::HostPath(host) => self.host_path(&path.key("hostPath"), host),
                // Its name is all that it has, and a name is checked as it is read.
                VolumeSource::Claim(_) => {}
                VolumeSource::Files(files) => {
                    let field = match files.of.kind {
                        SourceKind::Secret => "secret",
                        SourceKind::Config => "config",
                    };
                    self.files(&path.key(field).key("items"), &files);
                }
            }
        }
    }

    fn empty_dir(&mut self, path: &Path, empty: &EmptyDir) {
        let Some(limit) = empty.size_limit else { return };
        let path = || path.key("sizeLimit");
        // As with `limits.disk`: what is accepted has to work.
        let can = empty.medium == Medium::Memory;
        self.check(can, path, || {
            "Docker can't limit a folder on the disk; reserve room for it with `requests.disk`, or say `medium: Memory`".to_owned()
        });
        // The kernel rounds up to pages, and reads 0 as "no limit".
        self.check(limit.0 >= 4096, path, || format!("{limit} is less than a page of memory, 4Ki"));
    }

    fn host_path(&mut self, path: &Path, host: &HostPath) {
        let path = || path.key("path");
        if let Some(problem) = path_problem(&host.path) {
            self.refuse(path(), problem);
        }
        // Docker makes a folder only where it is told of it in one word with colons between its parts.
        let says_it = host.kind != HostPathType::DirectoryOrCreate || !host.path.contains(':');
        self.check(says_it, path, || {
            "a ':' in the path of a folder that Docker may have to make; make it yourself and say `Directory`".to_owned()
        });
    }

    fn files(&mut self, path: &Path, files: &Files<'_>) {
        let mut paths = BTreeMap::new();
        for (index, item) in files.items.iter().enumerate() {
            let path = path.index(index);
            self.check(is_key(&item.key), || path.key("key"), || no_key(&item.key));
            let is_below = !item.path.is_empty()
                && item.path.len() <= MAX_PATH
                && !item.path.contains('\0')
                && item.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            self.check(
                is_below,
                || path.key("path"),
                || format!("`{}` is no path below the volume: names with '/' between them, without '.' and '..'", excerpt(&item.path)),
            );
            if let Some(first) = paths.insert(item.path.as_str(), index) {
                self.refuse(path.key("path"), format!("`{}` is the path of items[{first}] already", excerpt(&item.path)));
            }
        }
        // A file where another one's folder has to be.
        for (index, item) in files.items.iter().enumerate() {
            let above = item.path.match_indices('/').map(|(end, _)| &item.path[..end]).find_map(|folder| paths.get(folder));
            if let Some(other) = above {
                self.refuse(path.index(index).key("path"), format!("items[{other}] is a file where this one needs a folder"));
            }
        }
    }

    fn mounts(&mut self, path: &Path, container: &Container, declared: &BTreeMap<&Name, usize>) {
        let mut places = BTreeMap::new();
        for (index, mount) in container.volume_mounts.iter().enumerate() {
            let path = path.index(index);
            let message = || match declared.is_empty() {
                true => format!("`{}` is no volume of this pod: it declares none in `spec.volumes`", mount.name),
                false => {
                    let names: Vec<_> = declared.keys().map(|name| name.as_str()).collect();
                    format!("`{}` is no volume of this pod; `spec.volumes` has {}", mount.name, names.join(", "))
                }
            };
            self.check(declared.contains_key(&mount.name), || path.key("name"), message);
            let place = mount.mount_path.as_str();
            if let Some(problem) = path_problem(place).or_else(|| reserved_problem(place)) {
                self.refuse(path.key("mountPath"), problem);
            }
            if let Some(first) = places.insert(place, index) {
                self.refuse(path.key("mountPath"), format!("`{}` is the place of volumeMounts[{first}] already", excerpt(place)));
            }
        }
    }

    fn env_from(&mut self, path: &Path, container: &Container) {
        for (index, from) in container.env_from.iter().enumerate() {
            let path = path.index(index);
            let count = usize::from(from.secret_ref.is_some()) + usize::from(from.config_ref.is_some());
            self.check(count == 1, || path.clone(), || "one of secretRef and configRef is expected".to_owned());
            self.check(
                !from.prefix.contains(['=', '\0']),
                || path.key("prefix"),
                || "a variable's name has no '=' and no NUL character".to_owned(),
            );
        }
    }
}

/// What is wrong with an absolute path, if something is. Two texts for one place would get round every check that compares them.
fn path_problem(path: &str) -> Option<String> {
    let shown = || excerpt(path);
    if !path.starts_with('/') {
        return Some(format!("`{}` is not an absolute path", shown()));
    }
    if path.contains('\0') || path.len() > MAX_PATH {
        return Some(format!("`{}` is no path: it has a NUL character or more than {MAX_PATH} bytes", shown()));
    }
    let inner = path.strip_suffix('/').unwrap_or(path);
    let plain = inner.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    (!plain).then(|| format!("`{}` has '.', '..' or an empty name in it; write the path that it means", shown()))
}

fn reserved_problem(place: &str) -> Option<String> {
    if place.contains(':') {
        return Some(format!("`{}` has a ':' in it, which container engines take for the end of a path", excerpt(place)));
    }
    let place = place.trim_end_matches('/');
    if place.is_empty() {
        return Some("`/` is the container's own root; mount the volume in a folder below it".to_owned());
    }
    let is_in = |folder: &str| place == folder || place.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let reserved = RESERVED.into_iter().find(|folder| is_in(folder)).filter(|_| !is_in(SHARED_MEMORY));
    reserved.map(|folder| format!("`{}` is in {folder}, which is the kernel's", excerpt(place)))
}

#[cfg(test)]
mod tests {
    use crate::manifest::parse;

    /// A pod with these volumes and one container with these mounts, each as JSON; what is wrong with it, with its paths.
    fn problems(volumes: &str, mounts: &str) -> Vec<String> {
        problems_of(&format!(r#""volumes": {volumes}, "containers": [{{"name": "app", "image": "app", "volumeMounts": {mounts}}}]"#))
    }

    fn problems_of(spec: &str) -> Vec<String> {
        let text = format!(r#"{{"type": "pod", "metadata": {{"name": "web"}}, "spec": {{{spec}}}}}"#);
        let found = parse(&text).err().unwrap_or_default();
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    fn found(volumes: &str, mounts: &str, path: &str, words: &str) {
        let problems = problems(volumes, mounts);
        let told = problems.iter().any(|problem| problem.starts_with(&format!("{path}: ")) && problem.contains(words));
        assert!(told, "{path}: {words} is not in {problems:#?}");
    }

    #[test]
    fn every_kind_of_volume_is_read_and_told_again() {
        let volumes = r#"[{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
            {"name": "c", "hostPath": {"path": "/srv/x", "type": "Directory"}}, {"name": "d", "persistentVolumeClaim": {"claimName": "db"}},
            {"name": "e", "secret": {"secretName": "pass", "items": [{"key": "k", "path": "in/k", "mode": "0400"}], "defaultMode": 256}},
            {"name": "f", "config": {"name": "conf", "optional": true}}]"#;
        let mounts = r#"[{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/dev/shm"}, {"name": "c", "mountPath": "/c/", "readOnly": true}]"#;
        assert_eq!(problems(volumes, mounts), Vec::<String>::new());
        let text = format!(
            r#"{{"type": "pod", "metadata": {{"name": "web"}}, "spec": {{"volumes": {volumes},
            "containers": [{{"name": "app", "image": "app", "volumeMounts": {mounts}}}]}}}}"#
        );
        let read = parse(&text).expect("a manifest");
        let again = serde_json::to_string(&read).expect("plain data");
        assert_eq!(parse(&again).expect("a manifest"), read, "{again}");
        assert!(again.contains(r#""defaultMode":"0400""#), "{again}");
    }

    #[test]
    fn what_is_wrong_with_a_volume_is_said_with_its_path() {
        found(r#"[{"name": "a"}]"#, "[]", "spec.volumes[0]", "without a source");
        found(r#"[{"name": "a", "emptyDir": {}, "config": {"name": "c"}}]"#, "[]", "spec.volumes[0]", "2 sources");
        found(r#"[{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]"#, "[]", "spec.volumes[1].name", "volumes[0] already");
        found(r#"[{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}]"#, "[]", "spec.volumes[0].emptyDir.sizeLimit", "requests.disk");
        found(r#"[{"name": "a", "emptyDir": {"medium": "HugePages"}}]"#, "[]", "spec.volumes[0].emptyDir.medium", "Memory");
        found(r#"[{"name": "a", "hostPath": {"path": "srv"}}]"#, "[]", "spec.volumes[0].hostPath.path", "not an absolute path");
        found(r#"[{"name": "a", "hostPath": {"path": "/srv/../etc"}}]"#, "[]", "spec.volumes[0].hostPath.path", "'..'");
        found(r#"[{"name": "a", "hostPath": {"path": "/srv", "type": "BlockDevice"}}]"#, "[]", "spec.volumes[0].hostPath.type", "allowed");
        found(r#"[{"name": "a", "configMap": {"name": "c"}}]"#, "[]", "spec.volumes[0].configMap", "`config`");
        let mode = r#"[{"name": "a", "secret": {"secretName": "s", "defaultMode": "0999"}}]"#;
        found(mode, "[]", "spec.volumes[0].secret.defaultMode", "no file mode");
        let outside = r#"[{"name": "a", "config": {"name": "c", "items": [{"key": "k", "path": "../k"}]}}]"#;
        found(outside, "[]", "spec.volumes[0].config.items[0].path", "no path below the volume");
        let twice = r#"[{"name": "a", "config": {"name": "c", "items": [{"key": "k", "path": "k"}, {"key": "l", "path": "k/l"}]}}]"#;
        found(twice, "[]", "spec.volumes[0].config.items[1].path", "items[0] is a file");
    }

    #[test]
    fn what_is_wrong_with_a_mount_is_said_with_its_path() {
        let volumes = r#"[{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]"#;
        let path = "spec.containers[0].volumeMounts[0]";
        found(volumes, r#"[{"name": "c", "mountPath": "/a"}]"#, &format!("{path}.name"), "has a, b");
        found("[]", r#"[{"name": "c", "mountPath": "/a"}]"#, &format!("{path}.name"), "declares none");
        for (place, words) in [
            ("a", "absolute"),
            ("/", "own root"),
            ("/proc", "the kernel's"),
            ("/dev/x", "the kernel's"),
            ("/a//b", "empty name"),
            ("/a:b", "a ':'"),
        ] {
            found(volumes, &format!(r#"[{{"name": "a", "mountPath": "{place}"}}]"#), &format!("{path}.mountPath"), words);
        }
        let twice = r#"[{"name": "a", "mountPath": "/x"}, {"name": "b", "mountPath": "/x"}]"#;
        found(volumes, twice, "spec.containers[0].volumeMounts[1].mountPath", "volumeMounts[0] already");
        found(volumes, r#"[{"name": "a", "mountPath": "/a", "subPath": "x"}]"#, &format!("{path}.subPath"), "unknown field");
    }

    #[test]
    fn a_pod_with_a_named_volume_waits_for_its_node_and_may_not_say_otherwise() {
        let spec = |policy: &str| {
            format!(
                r#"{policy} "volumes": [{{"name": "d", "persistentVolumeClaim": {{"claimName": "db"}}}}],
                "containers": [{{"name": "app", "image": "app", "volumeMounts": [{{"name": "d", "mountPath": "/d"}}]}}]"#
            )
        };
        let refused = problems_of(&spec(r#""onNodeLoss": "replace","#));
        assert!(refused.len() == 1 && refused[0].starts_with("spec.onNodeLoss: "), "{refused:?}");
        assert_eq!(problems_of(&spec("")), Vec::<String>::new());
        assert_eq!(problems_of(&spec(r#""onNodeLoss": "wait","#)), Vec::<String>::new());
    }

    #[test]
    fn env_from_names_one_source() {
        let spec = |from: &str| format!(r#""containers": [{{"name": "app", "image": "app", "envFrom": [{from}]}}]"#);
        assert_eq!(problems_of(&spec(r#"{"prefix": "A_", "secretRef": {"name": "s"}}"#)), Vec::<String>::new());
        let both = problems_of(&spec(r#"{"secretRef": {"name": "s"}, "configRef": {"name": "c"}}"#));
        assert!(both.len() == 1 && both[0].contains("one of secretRef and configRef"), "{both:?}");
    }
}
