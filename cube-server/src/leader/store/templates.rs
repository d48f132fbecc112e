//! What many pods have in common is kept once: pods of one template have equal specs and labels.
//!
//! Of 150,000 pods with one container and two labels, copies of these took 300 MB. Found by comparing with a few of the newest, and not by an
//! index of all: whoever makes many pods makes them one template after another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use cube_api::meta::Labels;
use cube_api::pod::PodSpec;
use serde::de::DeserializeOwned;

/// So many are compared with. A comparison that fails takes some 10 ns, keeping a spec some 250 us with its share of a commit.
const COMPARED: usize = 64;

/// So many texts are remembered while the rows are read: few megabytes, if they are no trifles.
const READ: usize = 1_024;

/// The newest specs and labels.
#[derive(Default)]
pub(super) struct Templates {
    pub(super) specs: Newest<PodSpec>,
    pub(super) labels: Newest<Labels>,
}

/// The newest different values, as long as a row has them.
pub(super) struct Newest<T> {
    values: VecDeque<Weak<T>>,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { values: VecDeque::new() }
    }
}

impl<T: Eq> Newest<T> {
    /// The value, shared with those that are equal.
    pub(super) fn share(&mut self, value: T) -> Arc<T> {
        let mut known = self.values.iter().enumerate().filter_map(|(place, known)| Some((place, known.upgrade()?)));
        if let Some((place, found)) = known.find(|(_, known)| **known == value) {
            // Looked at first the next time.
            self.values.swap(0, place);
            return found;
        }
        let value = Arc::new(value);
        self.values.push_front(Arc::downgrade(&value));
        self.values.truncate(COMPARED);
        value
    }
}

/// Values that are read from equal texts, as the rows of pods of one template have them: each is parsed once.
pub(super) struct FromTexts<T> {
    values: BTreeMap<String, Arc<T>>,
}

impl<T> Default for FromTexts<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new() }
    }
}

impl<T: DeserializeOwned> FromTexts<T> {
    /// The value of a JSON text.
    pub(super) fn read(&mut self, text: &str) -> serde_json::Result<Arc<T>> {
        if let Some(known) = self.values.get(text) {
            return Ok(known.clone());
        }
        let value = Arc::new(serde_json::from_str(text)?);
        if self.values.len() >= READ {
            self.values.clear();
        }
        self.values.insert(text.to_owned(), value);
        Ok(self.values[text].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_as_long_as_somebody_has_them() {
        let mut newest = Newest::default();
        let first = newest.share("a".to_owned());
        let others: Vec<_> = (0..COMPARED - 1).map(|number| newest.share(format!("b{number}"))).collect();
        assert!(Arc::ptr_eq(&first, &newest.share("a".to_owned())), "it is among the newest");
        drop(others);
        drop(newest.share("c".to_owned()));
        assert_eq!(newest.values.iter().filter(|value| value.strong_count() > 0).count(), 1, "nothing is kept that nobody has");
    }

    #[test]
    fn equal_texts_give_one_value() {
        let mut texts = FromTexts::<Vec<u8>>::default();
        let first = texts.read("[1]").expect("JSON");
        assert!(Arc::ptr_eq(&first, &texts.read("[1]").expect("JSON")));
        assert!(texts.read("[").is_err());
        for number in 0..2 * READ {
            texts.read(&format!("[{}, {}]", number / 256, number % 256)).expect("JSON");
        }
        assert!(texts.values.len() <= READ);
    }
}
