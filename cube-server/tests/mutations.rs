//! Keeps `simulation/mutations` alive: each deliberate bug says what it breaks, and still applies to the source as it stands. That the simulation
//! finds each one takes builds and minutes: `scripts/mutations` shows it.

use std::path::Path;

/// The fewest deliberate bugs.
const LEAST: usize = 12;

/// A place of a patch: the lines that must be there, in this order.
struct Hunk {
    file: String,
    before: Vec<String>,
    changes: bool,
}

#[test]
fn every_mutation_says_what_it_breaks_and_applies_at_exactly_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cube-server is a folder of the workspace");
    let folder = root.join("cube-server/simulation/mutations");
    let (mut seen, mut faults) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        let patch = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let source = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        faults.extend(faults_of(&patch, source).into_iter().map(|fault| format!("{name}: {fault}")));
        seen += 1;
    }
    assert!(seen >= LEAST, "{seen} of at least {LEAST} mutations are left");
    assert!(faults.is_empty(), "write them anew:\n{}", faults.join("\n"));
}

#[test]
fn a_mutation_that_is_silent_stale_or_ambiguous_is_a_fault() {
    let patch = "breaks: it.\nviolates: I1\n\n--- a/one.rs\n+++ b/one.rs\n@@ -1,2 +1,2 @@\n fn one() {\n-    two();\n+    three();\n";
    let faults = |patch: &str, source: &'static str| faults_of(patch, |file| (file == "one.rs").then(|| source.to_owned()));
    assert_eq!(faults(patch, "fn one() {\n    two();\n}\n"), Vec::<String>::new());
    assert_eq!(faults(patch, "fn one() {\n    four();\n}\n"), ["its lines are 0 times in one.rs: fn one() {"]);
    assert_eq!(faults(patch, "fn one() {\n    two();\nfn one() {\n    two();\n"), ["its lines are 2 times in one.rs: fn one() {"]);
    assert_eq!(faults(&patch.replace("one.rs", "two.rs"), ""), ["two.rs is not there"]);
    assert_eq!(faults(&patch.replace("breaks: it.", "breaks:"), "fn one() {\n    two();\n"), ["it does not say what it breaks"]);
    assert_eq!(faults(&patch.replace("violates: I1\n", ""), "fn one() {\n    two();\n"), ["it does not say which promise it violates"]);
    assert_eq!(faults("breaks: it.\nviolates: I1\n", ""), ["it changes nothing"]);
    let idle = patch.replace("-    two();\n+    three();\n", "     two();\n");
    assert_eq!(faults(&idle, "fn one() {\n    two();\n"), ["it changes nothing"]);
}

/// What is wrong with a mutation. `source` has the files as they are.
fn faults_of(patch: &str, source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let says = |word: &str| patch.lines().filter_map(|line| line.strip_prefix(word)).any(|rest| !rest.trim().is_empty());
    if !says("breaks:") {
        faults.push("it does not say what it breaks".to_owned());
    }
    if !says("violates:") {
        faults.push("it does not say which promise it violates".to_owned());
    }
    let hunks = hunks(patch);
    if !hunks.iter().any(|hunk| hunk.changes) {
        faults.push("it changes nothing".to_owned());
    }
    for Hunk { file, before, changes: _ } in &hunks {
        let Some(text) = source(file) else {
            faults.push(format!("{file} is not there"));
            continue;
        };
        let lines: Vec<_> = text.lines().collect();
        let places = lines.windows(before.len().max(1)).filter(|window| window.iter().eq(before.iter())).count();
        if places != 1 {
            let first = before.first().map_or("", |line| line.trim());
            faults.push(format!("its lines are {places} times in {file}: {first}"));
        }
    }
    faults
}

fn hunks(patch: &str) -> Vec<Hunk> {
    let (mut hunks, mut file) = (Vec::<Hunk>::new(), String::new());
    for line in patch.lines() {
        if let Some(named) = line.strip_prefix("+++ b/") {
            file = named.to_owned();
        } else if line.starts_with("@@ ") {
            hunks.push(Hunk { file: file.clone(), before: Vec::new(), changes: false });
        } else if let Some(hunk) = hunks.last_mut()
            && !line.starts_with("--- ")
        {
            match line.split_at_checked(1) {
                Some((" ", kept)) => hunk.before.push(kept.to_owned()),
                Some(("-", old)) => {
                    hunk.changes = true;
                    hunk.before.push(old.to_owned());
                }
                Some(("+", _)) => hunk.changes = true,
                // An editor may have taken the blank off an empty line.
                None => hunk.before.push(String::new()),
                Some(_) => {}
            }
        }
    }
    hunks
}
