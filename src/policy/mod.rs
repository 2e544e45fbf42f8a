//! Who may do what (policies, in Cedar), and what a token of a keyring looks like (profile).
//!
//! In scope: the vocabulary that policies are written in, loading and checking policy text, one [`PolicySet::decide`], its explanation, and the
//! token rules of a keyring. Out of scope: reading files, authenticating callers, HTTP status codes, the log. Nothing here does I/O, reads a
//! clock or draws randomness: text, times and identifiers are arguments.
//!
//! Reading order: [`caller`] and [`vocabulary`] (the nouns), [`request`] (one question), `load`, `slices` and [`engine`] (the answer),
//! [`lint`] (what looks wrong in a set that is valid), [`profile`], [`table`] (tests that operators write).

pub mod caller;
pub mod engine;
pub mod lint;
mod load;
pub mod profile;
mod reach;
mod reads;
pub mod request;
mod slices;
pub mod table;
pub mod vocabulary;

pub use caller::{BadCaller, Caller, CallerAttributes, Identity};
pub use engine::{Considered, Decision, Explanation, ListedPolicy, Outcome, PolicySet, Refusal};
pub use lint::{Finding, FindingKind};
pub use load::{PolicyErrors, Problem};
pub use profile::{BrokenRule, Checked, JwsProfile, Profile, Rule};
pub use request::{DecisionRequest, Origin, Resource, TokenFacts};
pub use vocabulary::{Action, ClaimType, KeyringFacts, Purpose, Vocabulary};
