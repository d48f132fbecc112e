//! From text to a tree: JSON, YAML, and what is neither.

use super::*;

#[test]
fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
    let text = r#"{"type": "pod", "metadata": {"name": "web", "labels": {"a": "1", "a": "2"}}, "type": "pod",
 "spec": {"containers": [{"name": "app", "image": "nginx", "image": "nginx", "env": {"A": "1", "A": "1"}}]}}"#;
    let expected = [
        "1:66: pod/web: metadata.labels.a: `a` is there twice",
        "1:78: pod/web: type: `type` is there twice",
        "2:60: pod/web: spec.containers[0].image: `image` is there twice",
        "2:96: pod/web: spec.containers[0].env.A: `A` is there twice",
    ];
    assert_eq!(problems(text), expected);
    assert_eq!(from_json(text.as_bytes()), parse(text));
    assert_eq!(
        problems("a: 1\na: 2\n"),
        ["1:1: resource 1: the field `type` is missing; write `type: pod`", "2:1: resource 1: a: `a` is there twice"]
    );
}

#[test]
fn a_text_without_quotes_stays_as_typed() {
    let pod = pod(&with_container("env: {A: no, B: 1.20, C: true, D: 0x10, E: 1e3, F: 010, G: '', H: null text, I: 2026-11-21}"));
    let values: Vec<&str> = pod.spec.containers[0].env.iter().filter_map(|variable| variable.value.as_deref()).collect();
    assert_eq!(values, ["no", "1.20", "true", "0x10", "1e3", "010", "", "null text", "2026-11-21"]);
}

#[test]
fn characters_that_yaml_wants_escaped_may_stand_in_json_as_they_are() {
    let json = SMALLEST.replace("value1", "\u{7f}\u{feff}\u{80}\u{1f600}");
    for read in [from_json(json.as_bytes()), parse(&json)] {
        let resources = read.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let Resource::Pod(pod) = &resources[0] else { panic!("a pod") };
        assert_eq!(pod.spec.containers[0].env.value("ENV_VAR1"), Some("\u{7f}\u{feff}\u{80}\u{1f600}"));
    }
}

#[test]
fn nothing_is_not_a_text() {
    assert_eq!(
        problems(&with_container("env:\n  A:\n  B: null\n  C: ~")),
        ["A", "B", "C"]
            .iter()
            .zip(9..)
            .map(|(name, line)| { format!("{line}:9: pod/web: spec.containers[0].env.{name}: found nothing; a text is expected") })
            .collect::<Vec<_>>()
    );
}

#[test]
fn yaml_documents_may_each_be_a_resource_or_a_list() {
    let one = |name: &str| format!("{{type: pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: nginx}}]}}}}");
    let text = format!("# a comment\n---\n{}\n---\n---\n- {}\n- {}\n...\n", one("a"), one("b"), one("c"));
    let names: Vec<String> = parse(&text).expect("right").iter().map(|resource| resource.reference().to_string()).collect();
    assert_eq!(names, ["pod/a", "pod/b", "pod/c"]);
}

#[test]
fn an_empty_manifest_is_a_problem_and_not_a_success() {
    for empty in ["", "  \n", "# nothing\n", "---\n---\n", "[]", "null"] {
        assert_eq!(problems(empty), ["no resource in it; a manifest is a resource such as a pod, or a list of them"], "{empty:?}");
    }
}

#[test]
fn what_is_neither_json_nor_yaml_says_where_it_stops() {
    assert_eq!(problems(&SMALLEST[..60]), ["3:40: not JSON: EOF while parsing a string"]);
    assert_eq!(problems("a: b: c"), ["1:5: neither JSON nor YAML: mapping values are not allowed in this context"]);
    assert_eq!(problems("type: \"pod"), ["1:7: neither JSON nor YAML: unclosed quote"]);
    assert_eq!(from_json(b"type: pod").expect_err("YAML")[0].to_string(), "1:2: not JSON: expected ident");
    assert_eq!(from_json(b"{\"a\": \xff}").expect_err("bytes")[0].to_string(), "not UTF-8 after 6 bytes");
    assert_eq!(from_json(b"").expect_err("empty")[0].to_string(), "1:1: not JSON: EOF while parsing a value");
}

#[test]
fn a_text_over_the_limit_is_refused_unread() {
    let large = vec![b'['; MAX_BYTES + 1];
    let expected = "larger than 4 MiB, the most of a manifest; apply it in parts";
    assert_eq!(from_json(&large).expect_err("too large")[0].to_string(), expected);
    assert_eq!(problems(std::str::from_utf8(&large).expect("ASCII")), [expected]);
}

#[test]
fn deep_nesting_is_refused_and_costs_no_stack() {
    let lists = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let maps = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    for (text, column) in [(&lists, 65), (&maps, 321)] {
        let expected = format!("1:{column}: more than 64 lists and maps inside each other");
        assert_eq!(from_json(text.as_bytes()).expect_err("too deep")[0].to_string(), expected);
    }
    assert!(problems(&"- ".repeat(20_000))[0].ends_with("more than 64 lists and maps inside each other"));
    assert!(problems(&"[".repeat(20_000))[0].contains("EOF"));
    let deepest = format!("{}{}", "[".repeat(64), "]".repeat(64));
    assert!(problems(&deepest)[0].contains("a resource is expected"));
}

#[test]
fn aliases_repeat_what_they_name_and_bombs_are_refused() {
    let text = with_container("env: &env {A: b}\ncommand: &words [sh, -c]\nargs: *words");
    assert_eq!(pod(&text).spec.containers[0].args, ["sh", "-c"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert!(problems(&bomb)[0].contains("more than 400000 values, aliases written out"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(", "));
    assert!(problems(&long)[0].contains("more than 4194304 bytes, aliases written out"));
    let nested = format!("{}x{}", (0..60).map(|n| format!("&n{n} [")).collect::<String>(), "]".repeat(60));
    assert!(problems(&nested)[0].contains("a resource is expected"), "anchors themselves are fine");
    assert!(problems("&a [*a]")[0].contains("an alias inside of what it repeats"));
    assert!(problems("a: *nowhere")[0].contains("unknown anchor"));
    assert!(problems("? [a]\n: b")[0].contains("can't be a key"));
    assert!(problems("a: &a b\n*a : c")[0].contains("can't be a key"));
}

/// JSON as any program may write it.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let text = "\\PC{0,12}|[a-z/\\\\\"'\\n\\t\\u{0}-\\u{1f}\\u{2028}\\u{7f}-\\u{9f}\\u{feff}\\u{fffe}\\u{ffff}# :,-]{0,12}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(text, inner, 0..6).prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn same(node: &Node, json: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (&node.value, json) {
        (Value::Scalar { .. }, Json::Null) => node.is_null(),
        (Value::Scalar { text, plain }, Json::String(wanted)) => text == wanted && !plain,
        (Value::Scalar { text, plain: true }, Json::Bool(wanted)) => *text == wanted.to_string(),
        (Value::Scalar { text, plain: true }, Json::Number(wanted)) => *text == wanted.to_string(),
        (Value::List(items), Json::Array(wanted)) => {
            items.len() == wanted.len() && items.iter().zip(wanted).all(|(node, json)| same(node, json))
        }
        (Value::Map(entries), Json::Object(wanted)) => {
            entries.len() == wanted.len() && entries.iter().all(|entry| wanted.get(&entry.key).is_some_and(|json| same(&entry.node, json)))
        }
        _ => false,
    }
}

proptest! {
    /// JSON takes the way of YAML; this is what makes that right.
    #[test]
    fn any_json_means_as_yaml_what_it_means_as_json(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.expect("plain data");
        let documents = tree::read(&escaped(&text)).map_err(|error| TestCaseError::fail(format!("{text}: {error:?}")))?;
        prop_assert_eq!(documents.len(), 1);
        prop_assert!(same(&documents[0], &json), "{}: {:?}", text, documents);
    }

    #[test]
    fn any_json_in_a_pods_place_is_answered_with_problems(json in any_json(), place in 0usize..6) {
        let mut manifest: serde_json::Value = serde_json::from_str(SMALLEST).expect("JSON");
        let pointer = ["/0", "/0/metadata", "/0/metadata/labels", "/0/spec/containers", "/0/spec/containers/0", "/0/spec/containers/0/env"][place];
        *manifest.pointer_mut(pointer).expect("it is there") = json;
        let read = from_json(&serde_json::to_vec(&manifest).expect("plain data"));
        prop_assert!(read.is_ok() || read.is_err_and(|problems| !problems.is_empty()));
    }

    #[test]
    fn no_text_panics(text in "\\PC*|[-a-c:{}\\[\\],&*!#|>'\"%@ \n\t0-9~?]{0,60}") {
        prop_assert!(parse(&text).is_ok() || parse(&text).is_err_and(|problems| !problems.is_empty()));
    }
}

#[test]
fn a_list_that_was_printed_is_read_as_its_items_and_nothing_else_is() {
    let pod = "{type: pod, metadata: {name: web}, spec: {containers: [{name: a, image: b}]}}";
    assert_eq!(parse(&format!("revision: 7\nitems: [{pod}]")).expect("a list").len(), 1);
    for refused in [format!("items: {pod}"), format!("items: [{pod}]\nkind: List"), format!("type: pod\nitems: [{pod}]")] {
        assert!(parse(&refused).is_err(), "{refused}");
    }
}
