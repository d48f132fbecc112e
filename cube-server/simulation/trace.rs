//! What happened, a line for each event with its simulated time. The same seed gives the same lines.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::clock::Clock;

/// The events so far. Clones share them.
#[derive(Clone)]
pub struct Trace {
    clock: Clock,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), lines: Arc::default() }
    }

    pub fn note(&self, who: &str, what: impl Display) {
        let line = format!("{:>10.3} {who:<8} {what}", self.clock.now().as_secs_f64());
        self.lines.lock().expect("nothing panics while it is held").push(line);
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nothing panics while it is held").clone()
    }

    /// Names the whole of it.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for line in self.lines.lock().expect("nothing panics while it is held").iter() {
            hash.update(line);
            hash.update("\n");
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
