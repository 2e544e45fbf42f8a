//! Errors on the wire: RFC 9457 `application/problem+json`, and the one map from refusals to HTTP status codes.
//!
//! In scope: status, code, a sentence the caller can act on, Retry-After, the request id. Out of scope: internal text; it goes to the log.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::refusal::{Code, Refusal};

/// The body of a refusal.
#[derive(Debug, Serialize)]
pub(super) struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    request: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    broken: Vec<BrokenRule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invariant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

/// One broken rule of a profile.
#[derive(Debug, Serialize)]
struct BrokenRule<'a> {
    rule: &'a str,
    claim: &'a str,
    detail: &'a str,
}

/// The status that a code means.
pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::Malformed => StatusCode::BAD_REQUEST,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Denied | Code::PolicyError => StatusCode::FORBIDDEN,
        Code::UnknownKeyring | Code::UnknownKey | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotNow => StatusCode::CONFLICT,
        Code::Profile => StatusCode::UNPROCESSABLE_ENTITY,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::KeystoreUnavailable
        | Code::Overloaded
        | Code::LogUnwritable
        | Code::LogDoubted
        | Code::NoSigner
        | Code::Suspended
        | Code::Clock
        | Code::PolicyInvalid
        | Code::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(super) fn body<'a>(refusal: &'a Refusal, request: &'a str) -> Problem<'a> {
    let status = status(refusal.code);
    Problem {
        kind: format!("urn:claviger:problem:{}", refusal.code.name()),
        title: status.canonical_reason().unwrap_or("Refused"),
        status: status.as_u16(),
        code: refusal.code.name(),
        detail: &refusal.detail,
        request,
        broken: refusal.broken.iter().map(|b| BrokenRule { rule: &b.rule, claim: &b.claim, detail: &b.detail }).collect(),
        invariant: refusal.invariant.as_deref(),
        until: refusal.until.map(|date| date.to_string()),
    }
}

/// The whole answer.
pub(super) fn response(refusal: &Refusal, request: &str) -> Response<Body> {
    let text = serde_json::to_vec(&body(refusal, request)).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status(refusal.code);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = refusal.retry_after {
        // Whole seconds, rounded up: RFC 9110 section 10.2.3 knows no fractions.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs() + u64::from(after.subsec_nanos() > 0)));
    }
    if refusal.code == Code::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"claviger\""));
    }
    response
}
