//! The workspace's own source code as tokens: enough Rust to see names, not to understand them. Comments, strings and characters are left out.

use std::path::{Path, PathBuf};

/// A source file.
#[derive(Debug)]
pub struct Source {
    /// From the workspace's folder on, with `/`.
    pub path: String,
    /// Its code.
    pub tokens: Vec<Token>,
}

/// A name, a keyword, a number, `::` or one other character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// From 1.
    pub line: usize,
    /// As written.
    pub text: String,
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cube-server is a folder of the workspace").to_path_buf()
}

/// Every Rust file below a folder of the workspace, in order of their paths.
pub fn rust_files(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&workspace().join(folder), &mut found);
    found.sort();
    found.into_iter().map(|path| read(&path)).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("the source folders can be listed").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let relative = path.strip_prefix(workspace()).expect("it was found below the workspace");
    Source { path: relative.to_string_lossy().replace('\\', "/"), tokens: tokens(&text) }
}

/// The code of a text.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let end = skipped(&chars, at).unwrap_or_else(|| {
            let end = word_end(&chars, at);
            tokens.push(Token { line, text: chars[at..end].iter().collect() });
            end
        });
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

fn word_end(chars: &[char], at: usize) -> usize {
    if chars[at..].starts_with(&[':', ':']) {
        return at + 2;
    }
    let word = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    at + word.max(1)
}

/// Where what isn't code ends, if it begins here: white space, a comment, a string, a character, a lifetime.
fn skipped(chars: &[char], at: usize) -> Option<usize> {
    let after = |needle: &str| Some(at + position(&chars[at..], needle)? + needle.len());
    let rest = &chars[at..];
    match rest {
        [c, ..] if c.is_whitespace() => Some(at + 1),
        ['/', '/', ..] => Some(after("\n").unwrap_or(chars.len())),
        ['/', '*', ..] => Some(after("*/").unwrap_or(chars.len())),
        ['r', '"' | '#', ..] | ['b', 'r', '"' | '#', ..] => raw_string_end(chars, at),
        ['"', ..] => Some(quoted_end(chars, at, '"')),
        ['b', quote @ ('"' | '\''), ..] => Some(quoted_end(chars, at + 1, *quote)),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => Some(quoted_end(chars, at, '\'')),
        ['\'', ..] => Some(word_end(chars, (at + 1).min(chars.len() - 1))),
        _ => None,
    }
}

fn position(chars: &[char], needle: &str) -> Option<usize> {
    let needle: Vec<char> = needle.chars().collect();
    chars.windows(needle.len()).position(|window| window == needle)
}

fn quoted_end(chars: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `None` for a raw identifier (`r#type`).
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let open = at + position(&chars[at..], "r")? + 1;
    let hashes = chars[open..].iter().take_while(|c| **c == '#').count();
    if chars.get(open + hashes) != Some(&'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = open + hashes + 1;
    Some(position(&chars[body..], &close).map_or(chars.len(), |end| body + end + close.len()))
}
