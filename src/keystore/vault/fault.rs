//! What went wrong with a call: from an answer, or the lack of one, to what speaks against the server and what the caller is told.
//!
//! In scope: the inner error of this adapter, read off status and content, its weight for the breaker, and its translation into the port's
//! error. Out of scope: what is done about it.

use std::time::Duration;

use serde::Deserialize;

use super::transport::Answer;
use crate::keystore::KeystoreError;
use crate::keystore::breaker::Verdict;

/// When to ask again where nobody says it.
const AFTER: Duration = Duration::from_secs(1);
/// How much of the server's own words is repeated.
const LONGEST_WORDS: usize = 300;
/// So much of a secret is never repeated, in bytes.
const TOLD: usize = 8;

/// Why a call failed. The texts go to operators: what happened, and what to do. No token and no secret is in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// It was sent, and no complete answer came: it may have been carried out.
    #[error("{0}")]
    Unanswered(String),
    /// Likewise, but whoever asked gave it so little time that this says nothing against the server.
    #[error("Vault did not answer within {0:?}")]
    Impatient(Duration),
    /// The time was up before anything was sent.
    #[error("the deadline passed before the request was sent")]
    Expired,
    /// The storage is there and locked.
    #[error("Vault is sealed: unseal it (`vault operator unseal` or `bao operator unseal`); keys can be used again without a restart")]
    Sealed,
    /// Likewise, a namespace of OpenBao with a seal of its own alone.
    #[error("the namespace is sealed: unseal it (`bao namespace unseal`); keys can be used again without a restart")]
    SealedNamespace,
    /// There is no storage yet.
    #[error("Vault is not initialised: initialise and unseal it, then run deploy/vault/setup.sh")]
    Uninitialised,
    /// A node that does not serve, and does not hand requests on.
    #[error("this node of Vault is a standby and redirects requests: let `address` name the active node, or what forwards to it")]
    Standby,
    /// The token is good, and its policy is not enough. (Or it is not good any more: Vault does not tell the two apart.)
    #[error("Vault denies {capability:?} on {path}: {}", REMEDY)]
    Denied {
        /// Of Vault's policies.
        capability: &'static str,
        /// The path of the API, without `/v1/`.
        path: String,
    },
    /// Who we are is not believed.
    #[error("{0}")]
    Credential(String),
    /// Too much is asked.
    #[error("Vault asks for fewer requests (429)")]
    Busy(Option<Duration>),
    /// A proxy before the server got no answer from it: the request may have been carried out.
    #[error("what stands before Vault got no answer from it (status {0})")]
    Gateway(u16),
    /// The server failed.
    #[error("Vault failed with status {status}{words}")]
    Broken {
        /// The HTTP status.
        status: u16,
        /// What it said.
        words: String,
    },
    /// Nothing is there.
    #[error("nothing is at {path}{words}")]
    Absent {
        /// The path of the API, without `/v1/`.
        path: String,
        /// What it said.
        words: String,
        /// Whether the engine itself says so. That no engine, or no namespace, is there has words, and a proxy's page has another form.
        certain: bool,
    },
    /// It can never succeed as it was asked.
    #[error("Vault refused {path} with status {status}{words}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The path of the API, without `/v1/`.
        path: String,
        /// What it said.
        words: String,
    },
    /// The key is not there, and the engine itself said so.
    #[error("no transit key is called {0}")]
    Gone(String),
    /// The key is not what it must be.
    #[error("{0}")]
    Inadmissible(String),
    /// What it answered cannot be right.
    #[error("Vault's answer cannot be right: {0}")]
    Nonsense(String),
    /// It signed, and what it answered cannot be used.
    #[error("Vault's signature cannot be used: {reason}")]
    Unusable {
        /// What is wrong with it.
        reason: String,
        /// The server's own id of the request.
        request_id: Option<String>,
    },
    /// Our own settings are at fault.
    #[error("{0}")]
    Settings(String),
    /// What was asked for may have been done all the same: a node that hands a request on says this too when its answer is lost.
    #[error("{0}")]
    Uncertain(Box<Self>),
}

/// What helps against a denial.
const REMEDY: &str = "give the login's role a policy that grants it, and its parameters (deploy/vault/claviger.hcl has all that is needed); while no daemon runs, \
     `claviger doctor` looks at each path, but sees no parameters";

/// What was asked for, in the words of Vault's policies.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The capability that it takes.
    pub(super) capability: &'static str,
    /// The path of the API, without `/v1/`.
    pub(super) path: String,
}

/// What a refusal holds.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// The answer, if it is a success.
pub(super) fn judged(answer: Answer, call: &Call) -> Result<Answer, Fault> {
    let Call { capability, path } = call;
    let said = serde_json::from_slice::<Errors>(&answer.body).ok().map(|said| said.errors);
    let (certain, is_own) = (said.as_ref().is_some_and(Vec::is_empty), said.is_some());
    let (status, words) = (answer.status, words(&said.unwrap_or_default()));
    Err(match status {
        200..=208 => return Ok(answer),
        // Vault's own redirect to the active node; no other is followed either.
        300..=399 => Fault::Standby,
        403 => Fault::Denied { capability, path: path.clone() },
        404 => Fault::Absent { path: path.clone(), words, certain },
        412 | 429 => Fault::Busy(answer.retry_after),
        501 => Fault::Uninitialised,
        502 | 504 => Fault::Gateway(status),
        // A proxy says so too when the connection breaks under a request.
        503 if !is_own => Fault::Gateway(status),
        503 if words.contains("namespace is sealed") => Fault::SealedNamespace,
        503 if words.contains("sealed") => Fault::Sealed,
        // A key that may not sign any more is no failure of the server, though it is told as one: its first version is too old, or (OpenBao)
        // it was put aside.
        500 if words.contains("requested version") || words.contains("soft-deleted key") => {
            Fault::Refused { status, path: path.clone(), words }
        }
        500.. => Fault::Broken { status, words },
        _ => Fault::Refused { status, path: path.clone(), words },
    })
}

/// What the server said, as a part of a line. (What is not in its own form, such as a proxy's page, says nothing.)
fn words(said: &[String]) -> String {
    let line: String = said.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line[..line.floor_char_boundary(LONGEST_WORDS)].trim();
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

impl Fault {
    /// What it says of the server, if anything.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        Some(match self {
            Self::Unreachable(_)
            | Self::Sealed
            | Self::SealedNamespace
            | Self::Uninitialised
            | Self::Standby
            | Self::Gateway(_)
            | Self::Broken { status: 503, .. } => Verdict::Down,
            Self::Busy(after) => Verdict::Busy(after.unwrap_or(AFTER)),
            Self::Unanswered(_) | Self::Broken { .. } | Self::Nonsense(_) | Self::Unusable { .. } => Verdict::Doubtful,
            Self::Denied { .. } | Self::Absent { .. } | Self::Refused { .. } | Self::Gone(_) | Self::Inadmissible(_) => Verdict::Well,
            // It was not asked, or not about this.
            Self::Credential(_) | Self::Expired | Self::Impatient(_) | Self::Settings(_) => return None,
            Self::Uncertain(fault) => return fault.verdict(),
        })
    }

    /// What a caller is told; `after` is when the server will be asked again.
    pub(super) fn tell(&self, after: Option<Duration>) -> KeystoreError {
        let after = after.unwrap_or(AFTER);
        match self {
            Self::Unanswered(_) | Self::Uncertain(_) | Self::Gateway(_) | Self::Impatient(_) | Self::Expired => KeystoreError::Unanswered,
            Self::Gone(_) => KeystoreError::Gone(self.to_string()),
            Self::Unreachable(_)
            | Self::Sealed
            | Self::SealedNamespace
            | Self::Uninitialised
            | Self::Standby
            | Self::Busy(_)
            | Self::Broken { .. } => KeystoreError::Unavailable { reason: self.to_string(), after },
            Self::Nonsense(_) => KeystoreError::Retry(self.to_string()),
            Self::Unusable { request_id, .. } => KeystoreError::Unusable { reason: self.to_string(), backend_request: request_id.clone() },
            Self::Denied { .. }
            | Self::Credential(_)
            | Self::Absent { .. }
            | Self::Refused { .. }
            | Self::Inadmissible(_)
            | Self::Settings(_) => KeystoreError::Rejected(self.to_string()),
        }
    }

    /// Whether it may concern more than the one key, or the one request: then it has to be looked at again how the server is.
    pub(super) fn concerns_all(&self) -> bool {
        !matches!(
            self,
            Self::Gone(_) | Self::Inadmissible(_) | Self::Refused { .. } | Self::Absent { .. } | Self::Expired | Self::Impatient(_)
        )
    }

    /// The same for a request to sign, which may have been carried out unless it is certain that it was not.
    pub(super) fn of_signing(self) -> Self {
        match self {
            Self::Standby | Self::Nonsense(_) => Self::Uncertain(Box::new(self)),
            other => other,
        }
    }

    /// Without the server's words, where they repeat the beginning of this secret: a longer one may be cut off in them.
    pub(super) fn without(mut self, secret: &str) -> Self {
        let beginning = secret.get(..TOLD).unwrap_or(secret);
        if let Self::Broken { words, .. } | Self::Absent { words, .. } | Self::Refused { words, .. } = &mut self
            && words.contains(beginning)
        {
            words.clear();
        }
        self
    }

    /// Whether the engine itself says that it has no such key.
    pub(super) fn is_certainly_absent(&self) -> bool {
        matches!(self, Self::Absent { certain: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        let call = Call { capability: "update", path: "transit/sign/k".into() };
        judged(Answer { status, retry_after: None, index: None, body: body.into() }, &call).err().expect("a fault")
    }

    #[test]
    fn every_status_has_its_meaning() {
        let call = Call { capability: "read", path: "x".into() };
        for status in [200, 204] {
            assert!(judged(Answer { status, retry_after: None, index: None, body: Vec::new() }, &call).is_ok());
        }
        for (status, body, verdict, kind) in [
            (307, "", Verdict::Down, "unavailable"),
            (400, r#"{"errors":["signing key not found"]}"#, Verdict::Well, "rejected"),
            (403, r#"{"errors":["permission denied"]}"#, Verdict::Well, "rejected"),
            (404, r#"{"errors":[]}"#, Verdict::Well, "rejected"),
            (429, "", Verdict::Busy(AFTER), "unavailable"),
            (500, r#"{"errors":["internal error"]}"#, Verdict::Doubtful, "unavailable"),
            (500, r#"{"errors":["1 error occurred:\n\t* refusing to use soft-deleted key\n\n"]}"#, Verdict::Well, "rejected"),
            (502, "<html>bad gateway</html>", Verdict::Down, "unanswered"),
            (503, "<html>no server is available</html>", Verdict::Down, "unanswered"),
            (504, "", Verdict::Down, "unanswered"),
            (503, r#"{"errors":["Vault is sealed"]}"#, Verdict::Down, "unavailable"),
        ] {
            let found = fault(status, body);
            assert_eq!(found.verdict(), Some(verdict), "{status}");
            let told = match found.tell(None) {
                KeystoreError::Unavailable { .. } => "unavailable",
                KeystoreError::Rejected(_) => "rejected",
                KeystoreError::Unanswered => "unanswered",
                other => panic!("{status}: {other}"),
            };
            assert_eq!(told, kind, "{status}");
        }
        assert_eq!(fault(503, r#"{"errors":["Vault is sealed"]}"#), Fault::Sealed);
        assert_eq!(fault(503, r#"{"errors":["namespace is sealed"]}"#), Fault::SealedNamespace);
        assert!(fault(503, "<html>secret page</html>").to_string().ends_with("(status 503)"));
        // A node that handed the request on and lost the answer says so in the same way.
        let redirected = fault(307, "").of_signing();
        assert_eq!((redirected.verdict(), redirected.tell(None)), (Some(Verdict::Down), KeystoreError::Unanswered));
    }

    #[test]
    fn only_an_engine_can_say_that_a_key_is_gone() {
        assert!(fault(404, r#"{"errors":[]}"#).is_certainly_absent());
        assert!(!fault(404, r#"{"errors":["no handler for route \"transit/keys/k\""]}"#).is_certainly_absent());
        for (status, body) in [(400, r#"{"errors":[]}"#), (404, "<html>not found</html>"), (404, ""), (404, "{}")] {
            assert!(!fault(status, body).is_certainly_absent(), "{status} {body}");
        }
    }

    #[test]
    fn words_are_one_short_line() {
        let long = format!(r#"{{"errors":["a\nb","{}"]}}"#, "é".repeat(LONGEST_WORDS));
        let text = fault(400, &long).to_string();
        assert!(text.contains(": a b; é") && text.len() < 400 && !text.contains('\n'), "{text}");
    }
}
