//! Objects that are no resources, read as strictly as a manifest.

use serde::de::DeserializeOwned;

use super::decode::{self, Finding};
use super::path::Path;
use super::{MAX_BYTES, MAX_PROBLEMS, check_json, escaped, forms, located, too_large, tree, whole};
use crate::error::Problem;

/// Reads a JSON text as an object of a type: unknown and repeated fields are problems, with their place and the nearest name that there is.
///
/// # Errors
/// Every problem, in the order of the text, with line and column; where the text can't be read at all, the one that stopped it.
pub fn read_object<T: DeserializeOwned>(text: &[u8]) -> Result<T, Vec<Problem>> {
    if text.len() > MAX_BYTES {
        return Err(vec![too_large()]);
    }
    let text = std::str::from_utf8(text).map_err(|error| vec![whole(format!("not UTF-8 after {} bytes", error.valid_up_to()))])?;
    check_json(text).map_err(|problem| vec![problem])?;
    let mut documents = tree::read(&escaped(text)).map_err(|error| vec![super::at(error.mark, error.message)])?;
    let Some(mut node) = documents.pop() else { return Err(vec![whole("there is nothing in it".to_owned())]) };
    let mut findings: Vec<Finding> = forms::take_duplicates(&mut node);
    let (object, found) = decode::decode::<T>(&mut node, MAX_PROBLEMS);
    findings.extend(found);
    match object {
        Some(object) if findings.is_empty() => Ok(object),
        Some(_) | None => {
            if findings.is_empty() {
                findings.push(Finding::new(Path::default(), "it can't be read"));
            }
            let mut problems: Vec<Problem> = findings.into_iter().map(|finding| located(&node, finding)).collect();
            problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(problems)
        }
    }
}
