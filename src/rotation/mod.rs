//! Rotation: when keys come, sign, stop and leave, decided by pure functions.
//!
//! In scope: the inequalities that settings must keep ([`timing`]), what brings the log to the configuration ([`reconcile`]), what to do
//! next ([`plan()`]), when dates count ([`gate`]), what caches are told ([`cache`]), how long a replica goes on that is cut off ([`lease`]),
//! what operators may order ([`verbs`]), why each date is what it is ([`timeline`]), and what is late ([`risk`]). Out of scope: everything
//! that acts. Nothing here reads a clock, draws a random number, waits, traces or touches a file; the transition table itself is the log's
//! (`claviger_audit::keyrings`). How all of it is tried in virtual time, 100,000 schedules if asked, stands in `tests/replicas`.

pub mod cache;
pub mod duration;
pub mod gate;
pub mod lease;
pub mod plan;
pub mod reconcile;
pub mod risk;
pub mod timeline;
pub mod timing;
pub mod verbs;

#[cfg(test)]
mod tests;

pub use plan::{Conditions, DateGate, Plan, plan, sets_to_serve};
