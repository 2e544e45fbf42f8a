//! JWKS and discovery: prepared bytes from memory, whatever keystores, policies or disks do.
//!
//! In scope: addresses, headers, conditional requests. Out of scope: building the sets (`publisher`). Routes go by path, never by Host.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use claviger_audit::jwks::SetName;
use serde_json::json;

use super::App;
use super::exchange::{dress, request_id};
use crate::refusal::{Code, Refusal};

/// The size of the key log that the body was made from, so that whoever compares a set with a log can tell a newer one from a foreign one.
pub(super) const LOG_SIZE: HeaderName = HeaderName::from_static("claviger-log-size");

/// What an address serves.
#[derive(Clone, Debug)]
enum Page {
    Set(SetName),
    Discovery(Bytes),
}

/// An issuer, as discovery describes it.
#[derive(Clone, Debug)]
pub struct IssuerPage {
    /// Its configured name.
    pub name: String,
    /// Its URL, the `iss` of its tokens.
    pub url: String,
    /// Where its routes begin, without a slash at the end; empty for the root.
    pub path: String,
    /// Whether it is also served at the root.
    pub default: bool,
    /// Whether it has a discovery document.
    pub discovery: bool,
    /// The algorithms of its keyrings.
    pub algorithms: Vec<String>,
}

/// Every public address.
#[derive(Debug, Default)]
pub struct PublicRoutes {
    pages: HashMap<String, Page>,
}

impl PublicRoutes {
    /// The addresses of these issuers and keyrings.
    pub fn new(issuers: &[IssuerPage], keyrings: impl IntoIterator<Item = String>) -> Self {
        let mut pages = HashMap::new();
        for issuer in issuers {
            let root = issuer.default.then_some("");
            for path in [Some(issuer.path.as_str()), root].into_iter().flatten() {
                pages.insert(format!("{path}/.well-known/jwks.json"), Page::Set(SetName::Issuer(issuer.name.clone())));
                if issuer.discovery {
                    pages.insert(format!("{path}/.well-known/openid-configuration"), Page::Discovery(discovery(issuer)));
                }
            }
        }
        for keyring in keyrings {
            pages.insert(format!("/keyrings/{keyring}/jwks.json"), Page::Set(SetName::Keyring(keyring)));
        }
        Self { pages }
    }
}

/// What OpenID Connect Discovery 1.0 section 3 requires and Claviger knows: it issues tokens and authenticates nobody.
fn discovery(issuer: &IssuerPage) -> Bytes {
    let document = json!({
        "issuer": issuer.url,
        "jwks_uri": format!("{}/.well-known/jwks.json", issuer.url),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": issuer.algorithms,
    });
    Bytes::from(document.to_string())
}

pub(super) async fn serve(State(app): State<App>, request: Request) -> Response<Body> {
    let id = request_id(request.headers());
    let page = app.routes.load().pages.get(request.uri().path()).cloned();
    let answer = match (page, request.method()) {
        (None, _) => Err(Refusal::new(Code::NotFound, "nothing is served at this address")),
        (Some(_), &Method::OPTIONS) => Ok(preflight()),
        (Some(Page::Set(name)), &Method::GET | &Method::HEAD) => set(&app, &name, request.headers()),
        (Some(Page::Discovery(document)), &Method::GET | &Method::HEAD) => Ok(discovery_response(document)),
        (Some(_), _) => Err(Refusal::new(Code::MethodNotAllowed, "this address is read with GET")),
    };
    let mut response = dress(answer, &id);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 section 15.5.6 asks for it.
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn set(app: &App, name: &SetName, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    app.readiness.may_serve_sets()?;
    let Some(set) = app.publisher.set(name) else {
        return Err(Refusal::new(Code::NotReady, "this set has no key yet; see /readyz/sign"));
    };
    let fresh = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| names_tag(value, &set.etag));
    let mut response = Response::new(if fresh { Body::empty() } else { Body::from(set.body.clone()) });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    if let Ok(tag) = HeaderValue::from_str(&set.etag) {
        headers.insert(header::ETAG, tag);
    }
    let cache = format!("public, max-age={}, must-revalidate", app.publisher.max_age(&set, app.clock.wall()));
    if let Ok(value) = HeaderValue::from_str(&cache) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    headers.insert(LOG_SIZE, HeaderValue::from(set.log_size));
    open_to_all(headers);
    Ok(response)
}

/// RFC 9110 section 13.1.2: a list of tags, or `*`; a weak comparison.
fn names_tag(value: &HeaderValue, etag: &str) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn discovery_response(document: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(document));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    open_to_all(headers);
    response
}

fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    open_to_all(response.headers_mut());
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    response
}

fn open_to_all(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
}
