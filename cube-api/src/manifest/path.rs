//! Where in a resource something is: `spec.containers[0].image`.

use std::fmt;

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a map, by its key.
    Key(String),
    /// Into a list, by its place from 0.
    Index(usize),
}

/// Steps from the resource inwards. Empty is the resource itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    pub(super) fn from_inner(mut innermost_first: Vec<Step>) -> Self {
        innermost_first.reverse();
        Self(innermost_first)
    }

    /// The path of the value under a key.
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The path of a list's element.
    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Path {
    /// A key with anything but letters, digits, `-` and `_` is written as `labels["example.com/app"]`, so that its dots are not taken for steps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if !is_plain(key) => write!(f, "[{key:?}]")?,
                Step::Key(key) if place == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let path = Path::default().key("spec").key("containers").index(0).key("env").key("A_B");
        assert_eq!(path.to_string(), "spec.containers[0].env.A_B");
        assert_eq!(Path::default().key("metadata").key("labels").key("x.io/a").to_string(), r#"metadata.labels["x.io/a"]"#);
        assert_eq!(Path::default().to_string(), "");
    }
}
