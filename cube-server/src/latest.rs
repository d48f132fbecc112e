//! A value of which the newest counts: one side sets it, others look at it and wait for it to change.
//!
//! As tokio's `watch`, whose words it has, except that those who wait are woken in the order in which they began to wait. tokio's wakes them in an
//! order that it draws, from numbers that only an unstable build can seed: a simulation would run differently each time.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// Sets the value. Clones share it.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Looks at the value. Each clone has seen what the one it was cloned from has seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Nobody can set the value any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is not set any more")]
pub struct Closed;

struct Shared<T> {
    state: RwLock<State<T>>,
    senders: AtomicUsize,
    news: Notify,
}

struct State<T> {
    value: T,
    /// Counts the changes.
    version: u64,
}

/// The value, held for as long as this lives: whoever sets it waits.
pub struct Ref<'a, T> {
    state: RwLockReadGuard<'a, State<T>>,
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.state.value
    }
}

/// A sender, and a receiver that has seen this first value.
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let state = RwLock::new(State { value: first, version: 0 });
    let shared = Arc::new(Shared { state, senders: AtomicUsize::new(1), news: Notify::new() });
    (Sender { shared: shared.clone() }, Receiver { shared, seen: 0 })
}

impl<T> Shared<T> {
    /// Only a closure of a caller can have panicked while it held the lock, and then the value is as that closure left it.
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<T>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Sets the value; the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut value = value;
        self.send_modify(|current| std::mem::swap(current, &mut value));
        value
    }

    /// Changes the value in place.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|current| {
            change(current);
            true
        });
    }

    /// Changes the value in place; `change` tells whether it did, and nobody is woken if it didn't.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.shared.write();
        let changed = change(&mut state.value);
        if changed {
            state.version += 1;
        }
        drop(state);
        if changed {
            self.shared.news.notify_waiters();
        }
        changed
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { state: self.shared.read() }
    }

    /// A receiver that has seen the value of now.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.shared.read().version }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.news.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// The value; it stays unseen, if it is.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { state: self.shared.read() }
    }

    /// The value, seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.read();
        self.seen = state.version;
        Ref { state }
    }

    /// Lets the next [`Receiver::changed`] return at once.
    pub fn mark_changed(&mut self) {
        self.seen = u64::MAX;
    }

    /// Waits for a value that wasn't seen, and has seen it then. May be dropped and called again.
    ///
    /// # Errors
    /// Everything was seen, and nobody can set it any more.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Before the look: it is woken by whatever comes from here on.
            let news = self.shared.news.notified();
            let version = self.shared.read().version;
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                return Err(Closed);
            }
            news.await;
        }
    }

    /// Waits until the value is such, and has seen it then. May be dropped and called again.
    ///
    /// # Errors
    /// It isn't, and nobody can set it any more.
    pub async fn wait_for(&mut self, mut is_such: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let is_closed = self.shared.senders.load(Ordering::Acquire) == 0;
            {
                let state = self.shared.read();
                self.seen = state.version;
                if is_such(&state.value) {
                    break;
                }
            }
            if is_closed {
                return Err(Closed);
            }
            // A sender that went meanwhile is seen by the next look.
            self.changed().await.ok();
        }
        Ok(Ref { state: self.shared.read() })
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_began() {
        let (sender, receiver) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiting = (0..50).map(|number| {
            let (mut receiver, woken) = (receiver.clone(), woken.clone());
            tokio::spawn(async move {
                receiver.changed().await.expect("a sender is there");
                woken.lock().expect("no test panics while it holds it").push(number);
            })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await;
        sender.send_replace(1);
        for task in waiting {
            task.await.expect("no panic");
        }
        assert_eq!(*woken.lock().expect("nobody holds it"), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_one_between_two_looks_is_not_missed() {
        let (sender, mut receiver) = channel(0);
        sender.send_replace(1);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow(), 1);
        assert!(futures::poll!(std::pin::pin!(receiver.changed())).is_pending());
        assert!(!sender.send_if_modified(|_| false));
        assert!(futures::poll!(std::pin::pin!(receiver.changed())).is_pending());
        receiver.mark_changed();
        assert_eq!(receiver.changed().await, Ok(()));
        sender.send_modify(|value| *value += 1);
        assert_eq!(*receiver.borrow_and_update(), 2);
        assert!(futures::poll!(std::pin::pin!(receiver.changed())).is_pending());
        assert!(futures::poll!(std::pin::pin!(sender.subscribe().changed())).is_pending());
    }

    #[tokio::test]
    async fn the_last_value_is_seen_after_its_sender_has_gone() {
        let (sender, mut receiver) = channel(0);
        let other = sender.clone();
        drop(sender);
        let task = tokio::spawn(async move {
            let seen = receiver.wait_for(|value| *value == 7).await.map(|value| *value);
            (seen, receiver.wait_for(|value| *value == 8).await.map(|value| *value), receiver.changed().await)
        });
        tokio::task::yield_now().await;
        other.send_replace(7);
        drop(other);
        assert_eq!(task.await.expect("no panic"), (Ok(7), Err(Closed), Err(Closed)));
    }
}
