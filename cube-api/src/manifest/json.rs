//! JSON as a tree, without places: a request's body that is in order, without YAML's parser, which was an eighth of a busy leader's CPU time.
//!
//! Whatever is out of order is `None` here: it is read again by [`super::tree::read`], which knows where each value stands.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::tree::{Entry, MAX_DEPTH, MAX_VALUES, Mark, Node, Value};

/// Where nothing stands.
const NOWHERE: Mark = Mark { line: 0, column: 0 };

/// Reads a text within the limits of [`super::tree::read`], to the same values. A number that isn't whole stays with the other way, which keeps its
/// digits as they were typed.
pub(super) fn read(text: &str) -> Option<Node> {
    let mut json = serde_json::Deserializer::from_str(text);
    let left = Cell::new(MAX_VALUES);
    let node = Reading { left: &left, depth: 0 }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(node)
}

/// One value, inside so many others.
#[derive(Clone, Copy)]
struct Reading<'a> {
    /// How many values there may be yet.
    left: &'a Cell<usize>,
    depth: usize,
}

impl Reading<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        self.left.set(left);
        Ok(())
    }

    fn scalar<E: Error>(self, text: String, plain: bool) -> Result<Node, E> {
        self.count()?;
        Ok(Node { mark: NOWHERE, value: Value::Scalar { text, plain } })
    }

    /// For what is in this value.
    fn inside<E: Error>(self) -> Result<Self, E> {
        self.count()?;
        if self.depth == MAX_DEPTH { Err(E::custom("too deep")) } else { Ok(Self { depth: self.depth + 1, ..self }) }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of a manifest")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.scalar("null".to_owned(), true)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        self.scalar(text.to_owned(), false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let (inside, mut items) = (self.inside()?, Vec::new());
        while let Some(item) = list.next_element_seed(inside)? {
            items.push(item);
        }
        Ok(Node { mark: NOWHERE, value: Value::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (inside, mut entries) = (self.inside()?, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            entries.push(Entry { key, mark: NOWHERE, node: map.next_value_seed(inside)? });
        }
        Ok(Node { mark: NOWHERE, value: Value::Map(entries) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tree;
    use super::*;

    fn without_places(mut node: Node) -> Node {
        node.mark = NOWHERE;
        node.value = match node.value {
            Value::List(items) => Value::List(items.into_iter().map(without_places).collect()),
            Value::Map(entries) => {
                let entry = |Entry { key, mark: _, node }| Entry { key, mark: NOWHERE, node: without_places(node) };
                Value::Map(entries.into_iter().map(entry).collect())
            }
            value @ (Value::Scalar { .. } | Value::Refused | Value::StandIn) => value,
        };
        node
    }

    fn read_as_yaml(text: &str) -> Option<Node> {
        let [document] = <[Node; 1]>::try_from(tree::read(text).ok()?).ok()?;
        Some(without_places(document))
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let scalar = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|value| json!(value)),
            any::<i64>().prop_map(|value| json!(value)),
            any::<u64>().prop_map(|value| json!(value)),
            // Without what YAML wants escaped, which `manifest::escaped` sees to.
            "[ -~\n\t\"\\\\:{}é]{0,12}".prop_map(|value| json!(value)),
        ];
        scalar.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| json!(items)),
                prop::collection::btree_map("[a-z\"]{0,4}", inner, 0..5).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_in_order_reads_as_the_parser_of_yaml_reads_it(value in values(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("plain data");
            prop_assert_eq!(read(&text), read_as_yaml(&text));
        }
    }

    #[test]
    fn duplicate_keys_stay_and_what_the_other_way_has_to_read_is_left_to_it() {
        let text = r#"{"a": 1, "a": [true, -3]}"#;
        assert!(read(text).is_some());
        assert_eq!(read(text), read_as_yaml(text));
        for left in ["1.20", "1e3", "-0", "18446744073709551616", "{", "[1] 2", "a: b", ""] {
            assert_eq!(read(left), None, "{left}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(MAX_DEPTH)).is_some() && read(&nested(MAX_DEPTH + 1)).is_none());
        let many = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert!(read(&many(MAX_VALUES)).is_some() && read(&many(MAX_VALUES + 1)).is_none());
    }
}
