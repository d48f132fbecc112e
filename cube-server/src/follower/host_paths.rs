//! Which files of its machine a node gives to pods: those that whoever runs it has allowed, by folder.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use cube_api::pod::{Container, HostPath, HostPathType, PodSpec, VolumeSource};

use super::runtime::RuntimeError;
use crate::blocking;

/// The folders that pods may have, with all that is below them. None by default: whoever may apply a pod could read the machine otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPaths(Arc<[String]>);

impl HostPaths {
    /// Takes absolute paths, each one's plain form.
    ///
    /// # Errors
    /// The sentence that says which isn't one.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let plain = |path: String| {
            let normal = Path::new(&path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            let inner = path.trim_end_matches('/');
            let doubled = inner.contains("//") || inner.split('/').any(|part| part == ".");
            if !path.starts_with('/') || !normal || doubled {
                return Err(format!("'{path}' is not an absolute path without '.', '..' and repeated slashes"));
            }
            Ok(if inner.is_empty() { "/".to_owned() } else { inner.to_owned() })
        };
        paths.into_iter().map(plain).collect::<Result<Vec<_>, _>>().map(|paths| Self(paths.into()))
    }

    /// As the node announces them.
    pub fn announced(&self) -> Vec<String> {
        self.0.to_vec()
    }

    /// Whether a container may have what it mounts of the machine, and it is there, as far as that can be seen: an engine may be in another file
    /// system, and then only it knows.
    pub async fn check(&self, pod: &PodSpec, container: &Container) -> Result<(), RuntimeError> {
        let mounted = container.volume_mounts.iter().filter_map(|mount| pod.volumes.iter().find(|volume| volume.name == mount.name));
        let paths: Vec<HostPath> = mounted
            .filter_map(|volume| match volume.source() {
                Some(VolumeSource::HostPath(path)) => Some(path.clone()),
                Some(VolumeSource::EmptyDir(_) | VolumeSource::Claim(_) | VolumeSource::Files(_)) | None => None,
            })
            .collect();
        if paths.is_empty() {
            return Ok(());
        }
        let allowed = self.clone();
        let checked = blocking::run(move || paths.iter().try_for_each(|path| allowed.check_one(path))).await;
        checked.map_err(|problem| RuntimeError::Refused { operation: "give a pod files of the machine", problem })
    }

    fn check_one(&self, host: &HostPath) -> Result<(), String> {
        let path = &host.path;
        if !host.is_below(&self.0) {
            return Err(format!("hostPath {path} is not allowed on this node (cube-server --allow-host-path {path})"));
        }
        // A link that leads out of what is allowed, at the path or on the way to it.
        let (real, is_whole) = real(Path::new(path)).map_err(|error| format!("hostPath {path} can't be looked at: {error}"))?;
        let prefixes = self.0.iter().filter_map(|allowed| fs::canonicalize(allowed).ok());
        if is_whole && !prefixes.chain(self.0.iter().map(PathBuf::from)).any(|allowed| real.starts_with(allowed)) {
            return Err(format!("hostPath {path} leads to {}, which is not allowed on this node", real.display()));
        }
        let Ok(found) = fs::metadata(path) else { return Ok(()) };
        let (right, wanted) = match host.kind {
            HostPathType::Anything => (true, "anything"),
            HostPathType::Directory | HostPathType::DirectoryOrCreate => (found.is_dir(), "a folder"),
            HostPathType::File => (found.is_file(), "a file"),
            HostPathType::Socket => (std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()), "a Unix socket"),
        };
        if right { Ok(()) } else { Err(format!("hostPath {path} is not {wanted}")) }
    }
}

/// Where a path leads, as far as it is there: its nearest folder that is there, with the rest behind. Whether anything of it was seen but the root,
/// which every file system has.
fn real(path: &Path) -> io::Result<(PathBuf, bool)> {
    let mut above = path;
    loop {
        match fs::canonicalize(above) {
            Ok(real) => {
                let rest = path.strip_prefix(above).expect("it is above it");
                let seen = above.parent().is_some() || path == above;
                return Ok((real.join(rest), seen));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match above.parent() {
                Some(parent) => above = parent,
                None => return Ok((path.to_owned(), false)),
            },
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &Path, kind: HostPathType) -> HostPath {
        HostPath { path: path.to_str().unwrap().to_owned(), kind }
    }

    fn allows(paths: &HostPaths, path: &str) -> bool {
        host(Path::new(path), HostPathType::Anything).is_below(&paths.0)
    }

    #[test]
    fn only_what_is_below_an_allowed_folder_is_allowed() {
        let paths = HostPaths::new(["/srv/data/".to_owned(), "/run/docker.sock".to_owned()]).unwrap();
        for (path, expected) in
            [("/srv/data", true), ("/srv/data/x", true), ("/srv/database", false), ("/srv", false), ("/run/docker.sock", true)]
        {
            assert_eq!(allows(&paths, path), expected, "{path}");
        }
        assert!(allows(&HostPaths::new(["/".to_owned()]).unwrap(), "/etc"));
        assert!(!allows(&HostPaths::default(), "/srv"));
        for wrong in ["srv", "/srv/../etc", "/srv/./x", "/srv//x"] {
            assert!(HostPaths::new([wrong.to_owned()]).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_link_out_of_what_is_allowed_is_refused_at_the_path_and_on_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        fs::create_dir_all(inside.join("real")).unwrap();
        fs::create_dir_all(outside.join("below")).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink(inside.join("real"), inside.join("near")).unwrap();
        let paths = HostPaths::new([inside.to_str().unwrap().to_owned()]).unwrap();
        let checked = |path: &str, kind| paths.check_one(&host(&inside.join(path), kind));
        for escape in ["link", "link/below", "link/not-there"] {
            assert!(checked(escape, HostPathType::Anything).unwrap_err().contains("leads to"), "{escape}");
        }
        assert_eq!(checked("near", HostPathType::Directory), Ok(()));
        assert_eq!(checked("real/new", HostPathType::DirectoryOrCreate), Ok(()));
        assert!(checked("real", HostPathType::File).unwrap_err().contains("is not a file"));
        assert!(paths.check_one(&host(&outside, HostPathType::Anything)).unwrap_err().contains("--allow-host-path"));
    }
}
