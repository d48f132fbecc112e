//! A whole cluster in one process: the real leader behind its real listener, real agents over real sessions, on engines in memory.

mod classic;
mod deployments;
mod drain;
mod flood;
mod hollow;
mod lost;
mod nodes;
mod pods;
mod resources;
mod restore;
mod rig;
mod streams;
