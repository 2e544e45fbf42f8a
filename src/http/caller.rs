//! Who asks: from what the listener knows about a peer, and what the request carries, to one authenticated caller.
//!
//! In scope: Unix socket credentials and bearer tokens; exactly one identity per request. Out of scope: what the caller may do.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::listener::Peer;
use crate::policy::{Caller, CallerAttributes, Identity};
use crate::refusal::{Code, Refusal};

/// Longest `Authorization` header that is looked at: a token has 43 characters.
const LONGEST_AUTHORIZATION: usize = 512;

/// Which identities a listener accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// `SO_PEERCRED` of a Unix socket.
    pub unix: bool,
    /// Bearer tokens of the configuration.
    pub bearer: bool,
}

/// The callers that the configuration knows.
#[derive(Default)]
pub struct Callers {
    attributes: HashMap<Identity, CallerAttributes>,
    tokens: HashMap<[u8; 32], Arc<Caller>>,
}

impl Callers {
    /// Takes every configured caller with its attributes and, for `token:` callers, the SHA-256 of its token.
    pub fn new(configured: impl IntoIterator<Item = (Identity, CallerAttributes, Option<[u8; 32]>)>) -> Self {
        let mut callers = Self::default();
        for (identity, attributes, token_sha256) in configured {
            if let Some(sha256) = token_sha256 {
                callers.tokens.insert(sha256, Arc::new(Caller::new(identity.clone(), &attributes)));
            }
            callers.attributes.insert(identity, attributes);
        }
        callers
    }

    /// The one identity of a request.
    ///
    /// # Errors
    ///
    /// [`Code::Unauthenticated`] if there is none, more than one, or a wrong token.
    pub fn identify(&self, accepts: Accepts, peer: &Peer, headers: &HeaderMap) -> Result<Arc<Caller>, Refusal> {
        let bearer = bearer(headers)?;
        let credentials = match peer {
            Peer::Unix { uid, gid } if accepts.unix => Some((*uid, *gid)),
            _ => None,
        };
        match (credentials, bearer) {
            (Some(_), Some(_)) => Err(unauthenticated("the request has two identities, a socket's and a token's; send one")),
            (Some((uid, gid)), None) => Ok(self.unix(uid, gid)),
            (None, Some(_)) if !accepts.bearer => Err(unauthenticated("this listener accepts no bearer token")),
            (None, Some(token)) => self.by_token(token),
            (None, None) => Err(unauthenticated("this listener needs an identity; send `Authorization: Bearer ...`")),
        }
    }

    fn unix(&self, uid: u32, gid: u32) -> Arc<Caller> {
        let none = CallerAttributes::default();
        let attributes = self.attributes.get(&Identity::Unix(uid)).unwrap_or(&none);
        Arc::new(Caller::unix(uid, gid, attributes))
    }

    /// Tokens are compared by their hash: a look-up then tells nothing about how much of a token was right.
    fn by_token(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        let sha256: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.tokens.get(&sha256).cloned().ok_or_else(|| unauthenticated("the bearer token is not known here"))
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthenticated("the request has two Authorization headers; send one"));
    }
    let text = value.to_str().ok().filter(|text| text.len() <= LONGEST_AUTHORIZATION);
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    let token = text.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token {
        Some((_, token)) => Ok(Some(token.trim())),
        None => Err(unauthenticated("the Authorization header is not a bearer token")),
    }
}

fn unauthenticated(detail: &str) -> Refusal {
    Refusal::new(Code::Unauthenticated, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Accepts = Accepts { unix: true, bearer: true };
    const PEER: Peer = Peer::Unix { uid: 1000, gid: 100 };

    fn callers() -> Callers {
        let identity: Identity = "token:demo".parse().expect("an identity");
        Callers::new([(identity, CallerAttributes::default(), Some(Sha256::digest(b"secret").into()))])
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a header value"))])
    }

    fn tcp() -> Peer {
        Peer::Tcp("127.0.0.1:1".parse().expect("an address"))
    }

    #[test]
    fn a_request_has_exactly_one_identity() {
        let callers = callers();
        let unix = callers.identify(BOTH, &PEER, &HeaderMap::new()).expect("socket credentials");
        assert_eq!(unix.id(), "unix:uid=1000");
        let token = callers.identify(BOTH, &tcp(), &headers("bearer secret")).expect("a known token");
        assert_eq!(token.id(), "token:demo");
        for (peer, headers) in [
            (PEER, headers("Bearer secret")),
            (tcp(), HeaderMap::new()),
            (tcp(), headers("Bearer wrong")),
            (tcp(), headers("Basic c2VjcmV0")),
        ] {
            assert_eq!(callers.identify(BOTH, &peer, &headers).expect_err("refused").code, Code::Unauthenticated);
        }
    }

    #[test]
    fn a_listener_accepts_only_what_it_lists() {
        let callers = callers();
        let (unix, bearer) = (Accepts { unix: true, bearer: false }, Accepts { unix: false, bearer: true });
        assert!(callers.identify(unix, &tcp(), &headers("Bearer secret")).is_err());
        assert!(callers.identify(bearer, &PEER, &HeaderMap::new()).is_err());
        assert_eq!(callers.identify(bearer, &PEER, &headers("Bearer secret")).expect("a known token").id(), "token:demo");
    }
}
