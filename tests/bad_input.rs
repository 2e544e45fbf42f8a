//! Bad input and bad surroundings: each gets the clear error that the design names, and nothing is lost.
//!
//! In scope: requests, identities, limits, configuration, state, keystores that are away, a full disk; each by its story in `bad_input/`. Out
//! of scope: operators' verbs (`verbs.rs`) and what is served without identity (`serving.rs`).

#[path = "bad_input/disk.rs"]
mod disk;
#[path = "harness/extra.rs"]
mod extra;
mod harness;
#[path = "bad_input/keystores.rs"]
mod keystores;
#[path = "bad_input/limits.rs"]
mod limits;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/settings.rs"]
mod settings;

use harness::{Answer, setup};
use serde_json::{Value, json};

/// The document of a refusal, once everything that every refusal has was looked at.
fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    let problem = answer.json();
    assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], format!("urn:claviger:problem:{code}"));
    let request = answer.header("x-request-id");
    assert!(!request.is_empty() && problem["request"] == request, "the id {request:?} of the header in {problem}");
    let detail = problem["detail"].as_str().expect("a sentence for the caller");
    assert!(
        detail.len() > 10 && !detail.contains(setup::BEARER) && !detail.contains("/tmp"),
        "no secret and no path of ours in {detail:?}"
    );
    problem
}

/// A request that is signed as it is.
fn good() -> Value {
    json!({ "keyring": "access", "claims": { "sub": "user-1", "aud": setup::AUDIENCE } })
}
