//! What is served: key sets, discovery, health, metrics; over plain sockets and TLS; and how serving ends.
//!
//! In scope: headers and conditions of public answers, listeners, graceful stop. Out of scope: signing's refusals (`bad_input.rs`), verbs
//! (`verbs.rs`).

#[path = "harness/extra.rs"]
mod extra;
mod harness;
#[path = "serving/public.rs"]
mod public;
#[path = "serving/stop.rs"]
mod stop;
#[path = "serving/tls.rs"]
mod tls;
