//! The loops on a real store.
