//! The leader's HTTP: errors as they are answered, and who may do what. Knows no rusqlite and no plan.

pub mod auth;
pub mod error;
