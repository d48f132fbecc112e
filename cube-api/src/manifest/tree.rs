//! A manifest's text as a tree of values that know where they stand in it.
//!
//! The tree keeps each scalar's text as it was typed (`1.20`, `no`): what it means is decided where the wanted type is known. It knows
//! nothing of resources. Everything that a hostile text could blow up is limited here: depth, values, and the text that aliases repeat.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::MAX_BYTES;
use super::path::{Path, Step};

/// The most lists and maps inside each other. A pod needs 6; the rest of the code recurses over the tree and must fit any thread's stack.
pub(super) const MAX_DEPTH: usize = 64;

/// The most values of a manifest, keys not counted. Small pods written without a blank have 350,000 in 4 MiB; the tree takes about 130 bytes
/// for each, so that the worst text costs 50 MB while it is read.
pub(super) const MAX_VALUES: usize = 400_000;

/// Line and column in the text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A scalar with its text as typed.
    Scalar {
        /// After escapes, without quotes.
        text: String,
        /// Without quotes in the source: may mean a number, a truth value or nothing, where one is wanted.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the text's order.
    Map(Vec<Entry>),
    /// A problem was reported here; decoding goes on as if the field were not there.
    Refused,
    /// A problem was reported here, of something that can't be left out: decodes as anything, so that the rest can be checked too.
    StandIn,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) mark: Mark,
    pub(super) node: Node,
}

/// Why a text is not a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) mark: Mark,
    pub(super) message: String,
}

/// Reads all documents of a text. Duplicate keys are still in the maps.
pub(super) fn read(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut builder = Builder::default();
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| not_yaml(&error))?;
        builder.take(event, mark_of(&span))?;
    }
    Ok(builder.documents)
}

fn mark_of(span: &Span) -> Mark {
    Mark { line: span.start.line(), column: span.start.col() + 1 }
}

fn not_yaml(error: &ScanError) -> SyntaxError {
    let mark = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
    match error.kind() {
        granit_parser::ErrorKind::RecursionLimitExceeded => too_deep(mark),
        _ => SyntaxError { mark, message: format!("neither JSON nor YAML: {}", error.info()) },
    }
}

fn too_deep(mark: Mark) -> SyntaxError {
    SyntaxError { mark, message: format!("more than {MAX_DEPTH} lists and maps inside each other") }
}

/// A list or map whose end hasn't been read.
struct Open {
    mark: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Mark)> },
}

/// Puts the parser's events together. The stack is on the heap: the depth of the text costs no stack here.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    documents: Vec<Node>,
    /// What aliases of this document may repeat, by the parser's number of the anchor.
    anchored: HashMap<usize, Rc<Node>>,
    values: usize,
    text_bytes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, _) => self.scalar(text, style, anchor, mark),
            Event::SequenceStart(_, anchor, _) => self.begin(anchor, mark, Content::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => self.begin(anchor, mark, Content::Map { entries: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, mark),
            Event::DocumentEnd => {
                self.anchored.clear();
                Ok(())
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) => Ok(()),
            // The parser's type may grow; what it doesn't do unless asked to is no value of the manifest.
            _ => Err(SyntaxError { mark, message: "this form of YAML is not understood".to_owned() }),
        }
    }

    fn scalar(&mut self, text: Cow<'_, str>, style: ScalarStyle, anchor: usize, mark: Mark) -> Result<(), SyntaxError> {
        let text = text.into_owned();
        if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            let bytes = text.len();
            *key = Some((text, mark));
            return self.count(0, bytes, mark);
        }
        self.count(1, text.len(), mark)?;
        self.put(Node { mark, value: Value::Scalar { text, plain: style == ScalarStyle::Plain } }, anchor)
    }

    fn begin(&mut self, anchor: usize, mark: Mark, content: Content) -> Result<(), SyntaxError> {
        self.count(1, 0, mark)?;
        if self.open.len() == MAX_DEPTH {
            return Err(too_deep(mark));
        }
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(SyntaxError { mark, message: "a list or a map can't be a key".to_owned() });
        }
        self.open.push(Open { mark, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Open { mark, anchor, content } = self.open.pop().expect("the parser ends only what it began");
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        self.put(Node { mark, value }, anchor)
    }

    /// Repeats what an anchor holds, within the limits: nine lines of aliases of aliases would be a billion values.
    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), SyntaxError> {
        let Some(node) = self.anchored.get(&anchor).map(Rc::clone) else {
            return Err(SyntaxError { mark, message: "an alias inside of what it repeats".to_owned() });
        };
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(SyntaxError { mark, message: "an alias can't be a key".to_owned() });
        }
        let size = Size::of(&node);
        if self.open.len() + size.depth > MAX_DEPTH {
            return Err(too_deep(mark));
        }
        self.count(size.values, size.text_bytes, mark)?;
        self.put(Node::clone(&node), 0)
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            let size = Size::of(&node);
            self.count(size.values, size.text_bytes, node.mark)?;
            self.anchored.insert(anchor, Rc::new(node.clone()));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key }) => {
                let (key, mark) = key.take().expect("a list or a map is not begun, and a scalar not put, in a map that waits for a key");
                entries.push(Entry { key, mark, node });
            }
        }
        Ok(())
    }

    /// Counts what is about to be kept, copies for aliases included.
    fn count(&mut self, values: usize, text_bytes: usize, mark: Mark) -> Result<(), SyntaxError> {
        self.values += values;
        self.text_bytes += text_bytes;
        if self.values > MAX_VALUES {
            return Err(SyntaxError { mark, message: format!("more than {MAX_VALUES} values, aliases written out") });
        }
        if self.text_bytes > MAX_BYTES {
            return Err(SyntaxError { mark, message: format!("more than {MAX_BYTES} bytes, aliases written out") });
        }
        Ok(())
    }
}

/// What a copy of a node costs.
#[derive(Default)]
struct Size {
    values: usize,
    text_bytes: usize,
    depth: usize,
}

impl Size {
    fn of(node: &Node) -> Self {
        match &node.value {
            Value::Scalar { text, .. } => Self { values: 1, text_bytes: text.len(), depth: 0 },
            Value::List(items) => Self::around(items.iter().map(Self::of)),
            Value::Map(entries) => Self::around(entries.iter().map(|entry| {
                let size = Self::of(&entry.node);
                Self { text_bytes: size.text_bytes + entry.key.len(), ..size }
            })),
            Value::Refused | Value::StandIn => Self::default(),
        }
    }

    fn around(inner: impl Iterator<Item = Self>) -> Self {
        inner.fold(Self { values: 1, text_bytes: 0, depth: 1 }, |sum, size| Self {
            values: sum.values + size.values,
            text_bytes: sum.text_bytes + size.text_bytes,
            depth: sum.depth.max(size.depth + 1),
        })
    }
}

impl Node {
    /// The value under a key, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value under a key, to be changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
    }

    /// Takes the entry of a key out, if this is a map that has it.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index))
    }

    /// The value at a path.
    pub(super) fn at_mut(&mut self, path: &Path) -> Option<&mut Node> {
        path.steps().iter().try_fold(self, |node, step| match (step, &mut node.value) {
            (Step::Key(key), Value::Map(entries)) => entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.node),
            (Step::Index(index), Value::List(items)) => items.get_mut(*index),
            (Step::Key(_) | Step::Index(_), _) => None,
        })
    }

    /// A path as people would say it here: the place of a variable that is written in a map is its key there.
    pub(super) fn spelled(&self, path: &Path) -> Path {
        let mut spelled = Path::default();
        let mut node = Some(self);
        for step in path.steps() {
            let entry = match (step, node.map(|node| &node.value)) {
                // What was refused wasn't read either, and has no place.
                (Step::Index(index), Some(Value::Map(entries))) => {
                    entries.iter().filter(|entry| entry.node.value != Value::Refused).nth(*index)
                }
                (Step::Key(_) | Step::Index(_), _) => None,
            };
            (spelled, node) = match (step, entry) {
                (_, Some(entry)) => (spelled.key(&entry.key), Some(&entry.node)),
                (Step::Key(key), None) => (spelled.key(key), node.and_then(|node| node.get(key))),
                (Step::Index(index), None) => (spelled.index(*index), node.and_then(|node| node.item(*index))),
            };
        }
        spelled
    }

    fn item(&self, index: usize) -> Option<&Node> {
        let Value::List(items) = &self.value else { return None };
        items.get(index)
    }

    /// Where a path leads in the text, as far as the text has it (a missing field is where its map begins), and whether a problem was
    /// reported on the way there.
    pub(super) fn locate(&self, path: &Path) -> (Mark, bool) {
        let mut node = self;
        let mut mark = self.mark;
        for step in path.steps() {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    entries.iter().find(|entry| entry.key == *key).map(|entry| (&entry.node, entry.mark))
                }
                (Step::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.mark)),
                (Step::Key(_) | Step::Index(_), _) => None,
            };
            let Some((inner, inner_mark)) = next else { break };
            (node, mark) = (inner, inner_mark);
        }
        (mark, matches!(node.value, Value::Refused | Value::StandIn))
    }

    /// Whether this is YAML's or JSON's way to say "nothing".
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What stands here, in words, for "found ...".
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, plain: true } => excerpt(text),
            Value::Scalar { text, plain: false } => format!("the text \"{}\"", excerpt(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Refused | Value::StandIn => "nothing".to_owned(),
        }
    }
}

/// A text as it may stand in a message: at most 60 characters of it.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
