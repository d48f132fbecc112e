//! `$(VAR)` in the words of a command.

use std::collections::BTreeMap;

/// A word of a container's `command` or `args` with each `$(VAR)` replaced from its environment, by Kubernetes' rules: a variable that isn't
/// there leaves the text as it is, and `$$` is one `$` that begins nothing.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        match (after.strip_prefix('$'), reference) {
            (Some(after_both), _) => {
                expanded.push('$');
                rest = after_both;
            }
            (None, Some((name, after_reference))) => {
                match env.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.extend(["$(", name, ")"]),
                }
                rest = after_reference;
            }
            (None, None) => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_expanded_by_the_rules_of_kubernetes() {
        let env = BTreeMap::from([("A", "a"), ("B_2", "$(A)"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "a"),
            ("<$(A)$(A)>", "<aa>"),
            ("$(B_2)", "$(A)"),
            ("$(EMPTY)|", "|"),
            ("$(NOT_THERE)", "$(NOT_THERE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$(A$(A))", "$(A$(A))"),
            ("$((A))", "$((A))"),
            ("\u{e4}$(A)\u{e4}", "\u{e4}a\u{e4}"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn without_variables_only_doubled_dollars_change(text in "[$()A-C ]{0,40}") {
            prop_assume!(!text.contains("$$"));
            prop_assert_eq!(expand(&text, &BTreeMap::new()), text);
        }
    }
}
