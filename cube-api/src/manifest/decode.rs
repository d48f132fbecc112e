//! From a tree to a typed value, with every problem on the way, not just the first.
//!
//! Serde stops at its first error. So decoding is tried again after each one, with the place that failed taken out of the tree
//! ([`Value::Refused`]), or, where it can't be left out, filled with what decodes as anything ([`Value::StandIn`]). What comes out with
//! problems is only good for looking for more of them. The types themselves say what is allowed: nothing here knows a field's name.
//!
//! A field that a type doesn't have is refused here, not by the type: a manifest with a slip must not be half obeyed, but the same types come
//! from peers of other versions and from rows of other versions too, and what those say beyond is theirs to say.

use std::fmt;

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};

use super::path::{Path, Step};
use super::tree::{Entry, Mark, Node, Value, excerpt};

/// A problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) path: Path,
    pub(super) message: String,
    /// Where it stands in the text; without it, the path is looked up in the tree.
    pub(super) mark: Option<Mark>,
}

impl Finding {
    /// At the place that the path leads to.
    pub(super) fn new(path: Path, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), mark: None }
    }

    /// At another place: the path leads to what the tree hasn't got any more.
    pub(super) fn at(mark: Mark, path: Path, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), mark: Some(mark) }
    }
}

/// Decodes a node. With findings the value (if any) holds stand-ins, and the node says where.
pub(super) fn decode<T: DeserializeOwned>(node: &mut Node, most_findings: usize) -> (Option<T>, Vec<Finding>) {
    let mut findings = Vec::new();
    // Each finding costs at most two tries: after one its place is left out, after the other it is stood in for. One more finds nothing.
    for _ in 0..=most_findings.saturating_mul(2) {
        match T::deserialize(Decoder { node }) {
            Ok(value) => return (Some(value), findings),
            Err(error) => findings.extend(repair(node, error)),
        }
        if findings.len() >= most_findings {
            break;
        }
    }
    (None, findings)
}

/// Changes the tree so that the next try gets past the error. `None` where the error is only the echo of an earlier one.
fn repair(root: &mut Node, error: Error) -> Option<Finding> {
    let path = Path::from_inner(error.path);
    let in_list = matches!(path.steps().last(), None | Some(Step::Index(_)));
    let node = root.at_mut(&path).expect("an error's path is made of the steps that the decoder took");
    let message = match error.kind {
        Kind::Other(message) => {
            // What is taken out of a list would move all that follows to other places.
            node.value = if in_list { Value::StandIn } else { Value::Refused };
            message
        }
        Kind::Missing(field) => {
            if let Some(entry) = node.get_mut(field) {
                // It is there, and was refused for what it holds.
                entry.value = Value::StandIn;
                return None;
            }
            let mark = node.mark;
            let Value::Map(entries) = &mut node.value else { unreachable!("only a map misses a field: a stand-in has them all") };
            entries.push(Entry { key: field.to_owned(), mark, node: Node { mark, value: Value::StandIn } });
            format!("the field `{field}` is missing")
        }
    };
    Some(Finding::new(path, message))
}

/// Why decoding stopped, and where: the steps of the path are added on the way out.
#[derive(Debug)]
struct Error {
    kind: Kind,
    /// Innermost first.
    path: Vec<Step>,
}

#[derive(Debug)]
enum Kind {
    Missing(&'static str),
    Other(String),
}

impl Error {
    fn other(message: String) -> Self {
        Self { kind: Kind::Other(message), path: Vec::new() }
    }

    fn below(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Missing(field) => write!(f, "the field `{field}` is missing"),
            Kind::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::other(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::other(format!("found {found}; {expected} is expected"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::other(format!("`{}` is not allowed; {}", excerpt(found), near_or_all(found, known, "allowed")))
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        Self::other(format!("unknown field `{}`; {}", excerpt(found), near_or_all(found, known, "the fields")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { kind: Kind::Missing(field), path: Vec::new() }
    }
}

/// `did you mean ...?`, or all that there is.
pub(super) fn near_or_all(found: &str, known: &[&str], of: &str) -> String {
    // Only as much as a typing slip: a third of the longer word, at least one letter. Words of 40 letters are no slips of ours.
    let near = known.iter().filter(|_| found.len() <= 40).map(|&word| {
        let distance = strsim::damerau_levenshtein(&found.to_lowercase(), &word.to_lowercase());
        (distance, word)
    });
    match near.min() {
        Some((distance, word)) if distance <= (found.len().max(word.len()) / 3).max(1) => format!("did you mean `{word}`?"),
        Some(_) | None => format!("{of} are {}", known.join(", ")),
    }
}

/// What every field of a struct is that is stood in for.
static STAND_IN: Node = Node { mark: Mark { line: 0, column: 0 }, value: Value::StandIn };

/// A node as serde reads it.
#[derive(Clone, Copy)]
struct Decoder<'a> {
    node: &'a Node,
}

impl<'a> Decoder<'a> {
    fn expected(self, what: impl fmt::Display) -> Error {
        Error::other(format!("found {}; {what} is expected", self.node.found()))
    }

    /// The text of a scalar that isn't "nothing".
    fn text(self, wanted: &str) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => Ok(text),
            // A name, an image and a port can all be this.
            Value::StandIn => Ok("1"),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) | Value::Refused => Err(self.expected(wanted)),
        }
    }

    fn whole_number(self, most: u64) -> Result<u64, Error> {
        let wanted = || self.expected(format_args!("a whole number from 0 to {most}"));
        match &self.node.value {
            Value::Scalar { text, plain: true } => text.parse().ok().filter(|number| *number <= most).ok_or_else(wanted),
            Value::StandIn => Ok(1),
            Value::Scalar { plain: false, .. } | Value::List(_) | Value::Map(_) | Value::Refused => Err(wanted()),
        }
    }

    fn list(self) -> Result<&'a [Node], Error> {
        match &self.node.value {
            Value::List(items) => Ok(items),
            Value::StandIn => Ok(&[]),
            Value::Scalar { .. } | Value::Map(_) | Value::Refused => Err(self.expected("a list")),
        }
    }

    fn map(self, wanted: impl fmt::Display) -> Result<&'a [Entry], Error> {
        match &self.node.value {
            Value::Map(entries) => Ok(entries),
            Value::StandIn => Ok(&[]),
            Value::Scalar { .. } | Value::List(_) | Value::Refused => Err(self.expected(wanted)),
        }
    }
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar { .. } if self.node.is_null() => visitor.visit_unit(),
            Value::Scalar { .. } | Value::StandIn => self.deserialize_str(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Refused => visitor.visit_unit(),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if text == "true" => visitor.visit_bool(true),
            Value::Scalar { text, plain: true } if text == "false" => visitor.visit_bool(false),
            Value::StandIn => visitor.visit_bool(false),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) | Value::Refused => Err(self.expected("true or false")),
        }
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u16::MAX.into())?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u32::MAX.into())?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.whole_number(u64::MAX)?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text("a text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() || matches!(self.node.value, Value::StandIn) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { items: self.list()?, next: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { entries: self.map("a map")?, fields: None, current: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.node.value == Value::StandIn {
            return visitor.visit_map(MapDeserializer::new(fields.iter().map(|field| (*field, Decoder { node: &STAND_IN }))));
        }
        let entries = self.map(format_args!("a map with the fields {}", fields.join(", ")))?;
        visitor.visit_map(Entries { entries, fields: Some(fields), current: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = match self.node.value {
            Value::StandIn => variants[0],
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) | Value::Refused => {
                self.text(&format!("one of {}", variants.join(", ")))?
            }
        };
        let word: StrDeserializer<'_, Error> = text.into_deserializer();
        visitor.visit_enum(word)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

impl<'de> IntoDeserializer<'de, Error> for Decoder<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Decoder { node }).map(Some).map_err(|error| error.below(Step::Index(index)))
    }
}

struct Entries<'a> {
    entries: &'a [Entry],
    /// All that a struct has; a map takes any key.
    fields: Option<&'static [&'static str]>,
    current: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some((entry, rest)) = self.entries.split_first() {
            self.entries = rest;
            if entry.node.value == Value::Refused {
                continue;
            }
            if let Some(fields) = self.fields
                && !fields.contains(&entry.key.as_str())
            {
                return Err(<Error as de::Error>::unknown_field(&entry.key, fields).below(Step::Key(entry.key.clone())));
            }
            self.current = Some(entry);
            let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
            return seed.deserialize(key).map(Some).map_err(|error| error.below(Step::Key(entry.key.clone())));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self.current.take().expect("serde asks for a key before its value");
        seed.deserialize(Decoder { node: &entry.node }).map_err(|error| error.below(Step::Key(entry.key.clone())))
    }
}
