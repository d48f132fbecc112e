//! Label selectors, as Kubernetes writes them: `app=web,tier!=db,env in (a,b),zone notin (x),owner,!legacy`.
//!
//! Pure. `!=` and `notin` also hold where the label is absent, as in Kubernetes.

use cube_api::meta::Labels;
use cube_api::{ApiError, ErrorCode};

/// What labels must be like: every requirement holds. The empty selector takes everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads a selector.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = |part: &str| {
            ApiError::new(ErrorCode::BadRequest, format!("'{}' is not a label selector", part.trim()))
                .hint("write app=web, tier!=db, 'env in (a,b)', 'env notin (a,b)', owner or !legacy, joined by commas")
        };
        let parts = parts(text).ok_or_else(|| bad(text))?;
        parts.into_iter().map(|part| requirement(part.trim()).ok_or_else(|| bad(part))).collect::<Result<_, _>>().map(Self)
    }

    /// Whether labels fulfil it.
    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

/// Splits at the commas outside parentheses; `None` where these don't match up.
fn parts(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if inside => return None,
            ')' if !inside => return None,
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return None;
    }
    if !text.trim().is_empty() {
        parts.push(&text[start..]);
    }
    Some(parts)
}

fn requirement(part: &str) -> Option<Requirement> {
    let (key, test) = if let Some((head, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let values = list.split(',').map(|value| word_of(value, true)).collect::<Option<_>>()?;
        let test = match word {
            "in" => Test::In(values),
            "notin" => Test::NotIn(values),
            _ => return None,
        };
        (key, test)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Test::NotIn(vec![word_of(value, true)?]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Test::In(vec![word_of(value, true)?]))
    } else if let Some(key) = part.strip_prefix('!') {
        (key, Test::Absent)
    } else {
        (part, Test::Exists)
    };
    Some(Requirement { key: word_of(key, false)?, test })
}

/// A key or a value without the characters that only the syntax uses.
fn word_of(text: &str, may_be_empty: bool) -> Option<String> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    (plain && (may_be_empty || !text.is_empty())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn every_form_of_kubernetes_selects_as_kubernetes_does() {
        let web = labels("app=web env=prod");
        for (text, wanted) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , env=prod", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("env in (test, prod)", true),
            ("env in (test)", false),
            ("env notin (test)", true),
            ("missing notin (x)", true),
            ("app", true),
            ("missing", false),
            ("!missing", true),
            ("!app", false),
            ("app=web,missing", false),
            ("app=", false),
        ] {
            assert_eq!(Selector::parse(text).expect(text).matches(&web), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_and_never_selects_everything() {
        for text in ["=", "=web", "app=web,", "env in prod", "env in (a", "env within (a)", "a b", "!", "app=we(b", "app===web", "a,,b"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}
