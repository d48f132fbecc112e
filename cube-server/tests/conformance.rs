//! Keeps conformance.toml true: every promise is there once, and every test that it names is a test of this workspace that runs.

mod source;

use std::collections::BTreeSet;

use serde::Deserialize;
use source::{Source, Token, rust_files, tokens, workspace};

/// What has to be listed: each part, with how many promises it has.
const PROMISES: &[(&str, u32)] = &[
    // What was asked for, word by word.
    ("A", 15),
    // The invariants.
    ("I", 15),
    // What comes to pass when faults have stopped.
    ("L", 4),
    // The faults that are tried: on the leader, followers, Docker, the network, and by clients.
    ("EL", 7),
    ("EF", 6),
    ("ED", 9),
    ("EN", 7),
    ("EC", 6),
    // What people know from Kubernetes.
    ("C", 10),
    // Scheduling; what nodes have and give; nodes that people look after; many nodes and pods; spare sandboxes.
    ("SC", 9),
    ("RS", 6),
    ("ND", 7),
    ("SCALE", 7),
    ("PL", 6),
    // Resources that are neither pods nor nodes.
    ("OB", 4),
    // Host ports, and what containers are told.
    ("PO", 5),
    // Pods' files.
    ("VO", 10),
    // Images, and what pods may do.
    ("IM", 7),
    // Probes.
    ("PR", 9),
    // The life of a pod: init containers, sidecars, hooks, deadlines, last words.
    ("LC", 10),
    // Deployments.
    ("DE", 10),
    // Jobs and cronjobs.
    ("JO", 13),
    // What the classic teaching orchestrators offer, and the faults of the best-known one.
    ("B", 12),
    ("BF", 10),
];

/// Numbered with the others, and not kept by this version, so that nobody lists one: several leaders of one cluster (B11).
const OPEN: [&str; 1] = ["B11"];

fn wanted() -> Vec<String> {
    let all = PROMISES.iter().flat_map(|(part, count)| (1..=*count).map(move |number| format!("{part}{number}")));
    all.filter(|id| !OPEN.contains(&id.as_str())).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conformance {
    promise: Vec<Promise>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    id: String,
    text: String,
    tests: Vec<String>,
}

#[test]
fn every_promise_is_listed_once_and_shown_by_tests_that_exist() {
    let path = workspace().join("conformance.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let conformance: Conformance = toml::from_str(&text).unwrap_or_else(|error| panic!("conformance.toml: {error}"));
    let tests = ["cube-api", "cube-server", "cube-cli"].into_iter().flat_map(tests_of).collect();
    let faults = faults(&conformance, &tests);
    assert!(faults.is_empty(), "conformance.toml has {} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_missing_repeated_unknown_or_unproven_promise_is_a_fault() {
    let known = BTreeSet::from(["cube-cli::a::b".to_owned()]);
    let promise = |id: &str, tests: &[&str]| Promise {
        id: id.to_owned(),
        text: "it works".to_owned(),
        tests: tests.iter().map(|test| (*test).to_owned()).collect(),
    };
    let complete = || wanted().iter().map(|id| promise(id, &["cube-cli::a::b"])).collect::<Vec<_>>();
    let faults_with = |change: fn(&mut Vec<Promise>)| {
        let mut list = complete();
        change(&mut list);
        faults(&Conformance { promise: list }, &known)
    };
    assert_eq!(faults_with(|_| {}), Vec::<String>::new());
    assert_eq!(faults_with(|list| drop(list.remove(1))), ["A2 is not listed"]);
    assert_eq!(faults_with(|list| list[1].id = "A1".to_owned()), ["A1 is listed twice", "A2 is not listed"]);
    assert_eq!(faults_with(|list| list[0].id = "A01".to_owned()), ["A01 is not a promise of cube", "A1 is not listed"]);
    assert_eq!(faults_with(|list| list[0].text.clear()), ["A1 says nothing"]);
    assert_eq!(faults_with(|list| list[2].tests.clear()), ["A3 names no test"]);
    assert_eq!(faults_with(|list| list[3].tests.push("cube-cli::a::c".to_owned())), ["A4: there is no test cube-cli::a::c"]);
}

#[test]
fn tests_are_found_by_their_attribute_under_the_name_that_the_runner_prints() {
    let code = "
        #[test] fn plain() {}
        #[tokio::test(start_paused = true)] /// doc
        async fn paused() {}
        #[test] #[ignore] fn ignored() {}
        #[test] #[should_panic] pub fn panics() {}
        fn helper() { }
        #[cfg(test)] mod tests { use x::{y}; mod deep { #[test] fn inner() { if a { b } } } #[test] fn nested() {} }
        #[test] fn last() {}
    ";
    let found = |path: &str| tests_in(&Source { path: path.to_owned(), tokens: tokens(code) }).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found("cube-api/src/pod.rs"),
        ["last", "panics", "paused", "plain", "tests::deep::inner", "tests::nested"].map(|name| format!("cube-api::pod::{name}"))
    );
    assert!(found("cube-server/src/leader/plan/mod.rs").contains(&"cube-server::leader::plan::plain".to_owned()));
    assert!(found("cube-server/tests/stories/main.rs").contains(&"cube-server::stories::plain".to_owned()));
    assert!(found("cube-server/tests/stories/pods.rs").contains(&"cube-server::stories::pods::plain".to_owned()));
    assert!(found("cube-cli/src/main.rs").contains(&"cube-cli::plain".to_owned()));
}

fn faults(conformance: &Conformance, tests: &BTreeSet<String>) -> Vec<String> {
    let wanted = wanted();
    let mut faults = Vec::new();
    let mut listed = BTreeSet::new();
    for Promise { id, text, tests: named } in &conformance.promise {
        if !wanted.contains(id) {
            faults.push(format!("{id} is not a promise of cube"));
        }
        if !listed.insert(id) {
            faults.push(format!("{id} is listed twice"));
        }
        if text.is_empty() {
            faults.push(format!("{id} says nothing"));
        }
        if named.is_empty() {
            faults.push(format!("{id} names no test"));
        }
        faults.extend(named.iter().filter(|test| !tests.contains(*test)).map(|test| format!("{id}: there is no test {test}")));
    }
    faults.extend(wanted.iter().filter(|id| !listed.contains(id)).map(|id| format!("{id} is not listed")));
    faults
}

fn tests_of(package: &str) -> BTreeSet<String> {
    let sources = ["src", "tests", "simulation"].into_iter().flat_map(|folder| rust_files(&format!("{package}/{folder}")));
    sources.flat_map(|source| tests_in(&source)).collect()
}

/// The tests of a file that are not ignored.
fn tests_in(source: &Source) -> BTreeSet<String> {
    let (code, mut found) = (&source.tokens, BTreeSet::new());
    // The inline modules that are open, with the depth of their braces.
    let (mut modules, mut depth) = (Vec::<(String, usize)>::new(), 0);
    let mut attributes = Vec::<&[Token]>::new();
    let mut at = 0;
    while at < code.len() {
        let text = |ahead: usize| code.get(at + ahead).map_or("", |token| token.text.as_str());
        let mut next = at + 1;
        match text(0) {
            "#" if text(1) == "[" => {
                let end = attribute_end(code, at);
                attributes.push(&code[at + 2..end]);
                next = end + 1;
            }
            "mod" if text(2) == "{" => modules.push((text(1).to_owned(), depth + 1)),
            "fn" if is_test(&attributes) => {
                let path = module_path(&source.path).into_iter().chain(modules.iter().map(|(name, _)| name.clone()));
                found.insert(path.chain([text(1).to_owned()]).collect::<Vec<_>>().join("::"));
            }
            "{" => depth += 1,
            "}" => {
                modules.pop_if(|(_, opened)| *opened == depth);
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        if ["{", "}", ";"].contains(&text(0)) {
            attributes.clear();
        }
        at = next;
    }
    found
}

/// Where the `]` of the attribute is that begins here.
fn attribute_end(code: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in code.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "[" => depth += 1,
            "]" if depth == 1 => return at,
            "]" => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether `#[test]` or a `#[...::test(...)]` is among them, and no `#[ignore]`.
fn is_test(attributes: &[&[Token]]) -> bool {
    let name = |attribute: &&[Token]| attribute.iter().map(|token| token.text.clone()).take_while(|text| text != "(" && text != "=").last();
    let names: Vec<String> = attributes.iter().filter_map(name).collect();
    names.iter().any(|name| name == "test") && !names.iter().any(|name| name == "ignore")
}

/// `cube-server/tests/stories/pods.rs` is `cube-server::stories::pods`. The simulation's folder has a program beside its tests.
fn module_path(path: &str) -> Vec<String> {
    if path == "cube-server/simulation/tests.rs" {
        return vec!["cube-server".to_owned(), "simulation".to_owned()];
    }
    let parts = path.trim_end_matches(".rs").split('/').map(str::to_owned);
    let mut parts: Vec<String> = parts.enumerate().filter(|(at, _)| *at != 1).map(|(_, part)| part).collect();
    parts.pop_if(|last| ["mod", "main", "lib"].contains(&last.as_str()));
    parts
}
