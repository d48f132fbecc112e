//! The files that `apply`, `delete` and `run` name: read, parsed, and all that is wrong with all of them told at once.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cube_api::error::Problem;
use cube_api::manifest::{self, Resource};

use crate::error::{CliError, Result};

/// Reads every manifest: files, folders (their `*.json`, `*.yaml` and `*.yml`, in order of their names), `-` for standard input.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Resource>> {
    let mut resources = Vec::new();
    let mut problems = Vec::new();
    for path in expand(paths)? {
        let (shown, text) = text_of(&path)?;
        match manifest::parse(&text) {
            Ok(parsed) => resources.extend(parsed),
            Err(found) => problems.extend(found.iter().map(|problem| located(&shown, problem))),
        }
    }
    match problems.len() {
        0 => Ok(resources),
        1 => Err(refused("the manifest has an error; nothing was changed", problems)),
        count => Err(refused(&format!("the manifest has {count} errors; nothing was changed"), problems)),
    }
}

fn refused(message: &str, problems: Vec<String>) -> CliError {
    CliError::failed(message).details(problems)
}

/// `web.json:4:12: pod/web: ...`; without a position a blank follows the colon.
pub(super) fn located(file: &str, problem: &Problem) -> String {
    let gap = if problem.line.is_some() && problem.column.is_some() { "" } else { " " };
    format!("{file}:{gap}{problem}")
}

fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(manifests_of(path)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn manifests_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let trouble = |error: io::Error| CliError::io(format!("can't read {}", folder.display()), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        let is_manifest = path.extension().is_some_and(|extension| extension == "json" || extension == "yaml" || extension == "yml");
        if is_manifest && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(CliError::failed(format!("{} holds no *.json, *.yaml or *.yml", folder.display())));
    }
    files.sort();
    Ok(files)
}

pub(super) fn text_of(path: &Path) -> Result<(String, String)> {
    let (shown, bytes) = if path == Path::new("-") {
        ("standard input".to_owned(), bounded(io::stdin().lock()))
    } else {
        (path.display().to_string(), File::open(path).and_then(bounded))
    };
    let bytes = bytes.map_err(|error| CliError::io(format!("can't read {shown}"), error))?;
    if bytes.len() > manifest::MAX_BYTES {
        return Err(CliError::failed(format!("{shown} is larger than {} MiB", manifest::MAX_BYTES >> 20)).hint("apply it in parts"));
    }
    let text = String::from_utf8(bytes).map_err(|_| CliError::failed(format!("{shown} is not text (UTF-8)")))?;
    Ok((shown, text))
}

/// A byte over the limit shows that there is more.
fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(manifest::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_file_as_an_editor_understands_it() {
        let problem = Problem {
            resource: Some("pod/web".to_owned()),
            path: "spec".to_owned(),
            message: "x".to_owned(),
            line: Some(4),
            column: Some(2),
        };
        assert_eq!(located("a.json", &problem), "a.json:4:2: pod/web: spec: x");
        assert_eq!(located("a.json", &Problem { line: None, ..problem }), "a.json: pod/web: spec: x");
    }

    #[test]
    fn a_folder_gives_its_manifests_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "c.txt", "d.yml"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let files = expand(&[folder.path().to_owned()]).map_err(|error| error.exit_code()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.json", "b.yaml", "d.yml"]);
    }
}
