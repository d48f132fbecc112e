//! Keeps the arrows between the modules: which part may name what. A scan of words, not of meaning: it finds a name that is written, and nothing that
//! goes through another module. Unit tests (`#[cfg(test)]`, `tests.rs`, `testing.rs`) may name anything.

mod source;

use source::{Source, Token, rust_files, tokens};

/// What some files must not name.
struct Rule {
    /// Files and folders, without `.rs`.
    places: &'static [&'static str],
    /// Those of them that may.
    except: &'static [&'static str],
    /// Names and paths: `rusqlite`, `Timestamp::now`.
    words: &'static [&'static str],
    /// Why not.
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        places: &["cube-server/src/leader"],
        except: &[],
        words: &["crate::follower"],
        reason: "the leader speaks to every node alike, its own too: over a session",
    },
    Rule {
        places: &["cube-server/src/follower", "cube-server/src/hollow"],
        except: &[],
        words: &["crate::leader"],
        reason: "a follower knows the leader's wire (cube-api) only",
    },
    Rule {
        places: &[
            "cube-server/src/leader/plan",
            "cube-server/src/follower/plan",
            "cube-server/src/follower/restart",
            "cube-server/src/follower/status",
        ],
        except: &[],
        words: &[
            "async",
            "await",
            "tokio",
            "futures",
            "rusqlite",
            "axum",
            "hyper",
            "bollard",
            "rand",
            "Timestamp::now",
            "Instant::now",
            "SystemTime",
            "crate::ambient",
        ],
        reason: "decisions are pure: the same input gives the same output",
    },
    Rule {
        places: &["cube-server/src"],
        except: &["cube-server/src/follower/runtime/docker"],
        words: &["bollard"],
        reason: "Docker's words are translated in one place",
    },
    Rule {
        places: &["cube-server/src"],
        except: &["cube-server/src/sqlite", "cube-server/src/leader/store", "cube-server/src/follower/ledger"],
        words: &["rusqlite", "rusqlite_migration"],
        reason: "each server's SQL is in one module",
    },
    Rule {
        places: &["cube-server/src/leader/api"],
        except: &[],
        words: &["crate::sqlite", "crate::leader::plan", "super::plan"],
        reason: "the API records intent and pokes loops; it never decides",
    },
    Rule {
        places: &["cube-server/src/leader/store"],
        except: &[],
        words: &["axum", "hyper", "crate::leader::plan", "super::plan"],
        reason: "the store keeps what others decide, whoever asks",
    },
    Rule {
        places: &["cube-server/src/leader/control"],
        except: &[],
        words: &["axum", "hyper", "http", "http_body", "http_body_util"],
        reason: "a loop is snapshot, plan, write; who called is not its business",
    },
    Rule {
        places: &["cube-server/src/leader/nodes"],
        except: &[],
        words: &["crate::sqlite"],
        reason: "sessions keep nothing: the store does",
    },
    Rule {
        places: &["cube-server/src"],
        except: &["cube-server/src/tasks"],
        words: &["tokio::spawn", "task::spawn", "spawn_local"],
        reason: "every task has a name, an end and a panic that is seen: Tasks::spawn",
    },
    Rule {
        places: &["cube-server/src"],
        except: &["cube-server/src/blocking"],
        words: &["spawn_blocking", "block_in_place"],
        reason: "a simulation runs blocking work inline: blocking::run",
    },
    Rule {
        places: &["cube-server/src"],
        except: &["cube-server/src/ambient"],
        words: &["Timestamp::now", "Zoned::now", "SystemTime::now", "Uuid::new_v4", "Uuid::now_v7", "rand"],
        reason: "the clock and the dice are passed in: Ambient",
    },
    Rule {
        places: &["cube-server/src"],
        except: &[],
        words: &["tokio::sync::watch"],
        reason: "it wakes in a random order, which no seed decides: crate::latest",
    },
    Rule {
        places: &["cube-server/src"],
        except: &["cube-server/src/net", "cube-server/src/serve", "cube-server/src/follower/runtime/docker"],
        words: &["tokio::net"],
        reason: "a simulation has its own network: crate::net",
    },
    Rule { places: &["cube-api/src"], except: &[], words: &["cube_server", "cube_cli"], reason: "the nouns depend on none of ours" },
    Rule { places: &["cube-cli/src"], except: &[], words: &["cube_server"], reason: "the command line knows the wire only" },
];

#[test]
fn no_module_names_what_it_must_not_know() {
    let sources = workspace_sources();
    let violations: Vec<String> = RULES.iter().flat_map(|rule| sources.iter().flat_map(|source| violations(rule, source))).collect();
    assert!(violations.is_empty(), "{} names across an arrow:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn every_select_has_an_order() {
    let sources: Vec<_> = rust_files("cube-server/src").into_iter().filter(|source| !is_test(&source.path)).collect();
    let unbiased: Vec<_> = sources.iter().flat_map(unbiased_selects).collect();
    assert!(sources.iter().any(|source| source.tokens.iter().any(|token| token.text == "select")), "the scan finds none at all");
    assert!(
        unbiased.is_empty(),
        "an unbiased select draws numbers that no seed decides; begin it with `biased;`:\n{}",
        unbiased.join("\n")
    );
    let planted = |text| unbiased_selects(&Source { path: "a.rs".to_owned(), tokens: tokens(text) }).len();
    assert_eq!(planted("tokio::select! { () = a => {} }  select! { biased; () = a => {} }  fn select() {}"), 1);
}

/// `file:line` of each `select!` that doesn't begin with `biased;`.
fn unbiased_selects(source: &Source) -> Vec<String> {
    let text = |at: usize| source.tokens.get(at).map(|token| token.text.as_str());
    let selects = (0..source.tokens.len()).filter(|at| text(*at) == Some("select") && text(at + 1) == Some("!"));
    let unbiased = selects.filter(|at| text(at + 3) != Some("biased"));
    unbiased.map(|at| format!("{}:{}", source.path, source.tokens[at].line)).collect()
}

#[test]
fn every_rule_looks_at_a_file() {
    let sources = workspace_sources();
    for rule in RULES {
        assert!(
            sources.iter().any(|source| applies(rule, &source.path)),
            "no file is under the rule for {:?}: {}",
            rule.places,
            rule.reason
        );
    }
}

#[test]
fn every_rule_finds_each_of_its_words() {
    for rule in RULES {
        for word in rule.words {
            let planted = Source { path: format!("{}.rs", rule.places[0]), tokens: tokens(&format!("fn f() {{\n    {word}::x();\n}}\n")) };
            assert_eq!(violations(rule, &planted).len(), 1, "'{word}' was planted and not found by: {}", rule.reason);
            assert!(violations(rule, &planted)[0].starts_with(&format!("{}:2: ", planted.path)));
            let nested = match word.rsplit_once("::") {
                Some((parent, name)) => format!("use {parent}::{{self, other::{{Thing, x}}, {name} as y}};"),
                None => format!("use x::{{{word}::y, z}};"),
            };
            let planted = Source { tokens: tokens(&nested), ..planted };
            assert_eq!(violations(rule, &planted).len(), 1, "'{nested}' was planted and not found by: {}", rule.reason);
        }
    }
}

#[test]
fn comments_strings_tests_and_longer_words_are_no_names() {
    let rule = Rule { places: &["a"], except: &["a/b"], words: &["tokio", "crate::leader"], reason: "" };
    let found = |path: &str, text: &str| violations(&rule, &Source { path: path.to_owned(), tokens: tokens(text) }).len();
    let harmless = r##"
        // tokio
        /* crate::leader */
        const A: &str = "tokio \" tokio";
        const B: &str = r#"tokio " tokio"#;
        const C: (char, u8) = ('"', b'\'');
        fn tokio_like<'a>(leader: &'a str) -> other_crate::leader_of { leader }
        #[cfg(test)]
        mod testing;
        #[cfg(test)]
        mod tests { use tokio::x; fn f() { if a { crate::leader::b() } } }
    "##;
    assert_eq!(found("a/c.rs", harmless), 0);
    assert_eq!(found("a/c.rs", &format!("{harmless} fn g() {{ tokio::x() }}")), 1);
    assert_eq!(found("a.rs", "use tokio;"), 1);
    for elsewhere in ["a/b.rs", "a/b/c.rs", "ab.rs", "a/tests.rs", "a/testing.rs", "a/tests/c.rs"] {
        assert_eq!(found(elsewhere, "use tokio;"), 0, "{elsewhere}");
    }
}

fn workspace_sources() -> Vec<Source> {
    ["cube-api/src", "cube-server/src", "cube-cli/src"].into_iter().flat_map(rust_files).collect()
}

/// `file:line: word: reason` for each forbidden name in a file.
fn violations(rule: &Rule, source: &Source) -> Vec<String> {
    if !applies(rule, &source.path) {
        return Vec::new();
    }
    let code = without_tests(&source.tokens);
    let mut found = Vec::new();
    for word in rule.words {
        let needle: Vec<String> = tokens(word).into_iter().map(|token| token.text).collect();
        for at in (0..code.len()).filter(|at| names(&code, *at, &needle)) {
            found.push(format!("{}:{}: {word}: {}", source.path, code[at].line, rule.reason));
        }
    }
    found
}

fn applies(rule: &Rule, path: &str) -> bool {
    let path = path.trim_end_matches(".rs");
    let is_in = |place: &&str| path.strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    rule.places.iter().any(is_in) && !rule.except.iter().any(is_in) && !is_test(path)
}

fn is_test(path: &str) -> bool {
    path.trim_end_matches(".rs").split('/').any(|part| part == "tests" || part == "testing")
}

/// Whether the needle begins here as it is written, or ends here within the braces of a `use` that begins with its parent.
fn names(code: &[Token], at: usize, needle: &[String]) -> bool {
    if code[at..].iter().map(|token| &token.text).take(needle.len()).eq(needle) {
        return true;
    }
    let [parent @ .., separator, name] = needle else { return false };
    if separator != "::" || code[at].text != *name {
        return false;
    }
    let Some(braces) = enclosing_brace(code, at) else { return false };
    let (before, starts_a_branch) = (&code[..braces], ["{", ","].contains(&code[at - 1].text.as_str()));
    starts_a_branch
        && before.len() > parent.len()
        && before.last().is_some_and(|token| token.text == "::")
        && before[..before.len() - 1].iter().rev().map(|token| &token.text).take(parent.len()).eq(parent.iter().rev())
}

/// The `{` that is open here.
fn enclosing_brace(code: &[Token], at: usize) -> Option<usize> {
    let mut depth = 0;
    (0..at).rev().find(|before| match code[*before].text.as_str() {
        "}" => {
            depth += 1;
            false
        }
        "{" if depth == 0 => true,
        "{" => {
            depth -= 1;
            false
        }
        _ => false,
    })
}

/// The code without the items under `#[cfg(test)]`.
fn without_tests(code: &[Token]) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < code.len() {
        if code[at..].iter().map(|token| token.text.as_str()).take(MARK.len()).eq(MARK) {
            at = item_end(code, at + MARK.len());
        } else {
            kept.push(code[at].clone());
            at += 1;
        }
    }
    kept
}

/// Behind the item that begins here: its `;`, or the `}` of its outermost braces.
fn item_end(code: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in code.iter().enumerate().skip(start) {
        match token.text.as_str() {
            ";" if depth == 0 => return at + 1,
            "{" => depth += 1,
            "}" if depth == 1 => return at + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    code.len()
}
