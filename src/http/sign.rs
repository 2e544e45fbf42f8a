//! `POST /sign` and `POST /sign/batch`.
//!
//! In scope: the shapes of requests and replies. Out of scope: the story of a signature (`signer`).

use std::num::NonZeroU32;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::exchange::{Answer, Exchange, identified, json, json_object};
use super::{App, problem};
use crate::refusal::{Code, Refusal};
use crate::signer::{Ask, Content, DryRun, Reply, Request};

/// Most items of one batch: what one sync carries without making the others wait.
const MOST_ITEMS: usize = 256;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/sign", post(sign)).route("/sign/batch", post(batch))
}

async fn sign(State(app): State<App>, request: HttpRequest) -> Response<Body> {
    let limit = app.limits.body;
    identified(app, request, limit, sign_one).await
}

async fn batch(State(app): State<App>, request: HttpRequest) -> Response<Body> {
    let limit = app.limits.batch_body;
    identified(app, request, limit, sign_batch).await
}

async fn sign_one(app: App, exchange: Exchange) -> Answer {
    let _slot = app.signer.admit(&exchange.ask.caller, NonZeroU32::MIN)?;
    let dry_run = wants_dry_run(exchange.query.as_deref());
    let request = counted(
        &app,
        &exchange.ask,
        json_object(&exchange).and_then(|mut members| {
            let keyring = take_text(&mut members, "keyring")?;
            parse_item(keyring, members)
        }),
    )?;
    if dry_run {
        return Ok(json(StatusCode::OK, &dry_run_body(&app.signer.dry_run(&exchange.ask, request)?)));
    }
    // In a task of its own: a caller that hangs up must not cut off the record of a signature that was already asked for.
    let (signer, ask) = (app.signer.clone(), exchange.ask.clone());
    let signing = tokio::spawn(async move { signer.sign(&ask, request).await });
    let reply = signing.await.unwrap_or_else(|_| Err(Refusal::new(Code::NotReady, "the request failed; ask again")))?;
    let accept = exchange.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/jwt")) {
        let mut response = Response::new(Body::from(reply.token));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwt"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    Ok(json(StatusCode::OK, &reply_body(&reply)))
}

async fn sign_batch(app: App, exchange: Exchange) -> Answer {
    let parsed = json_object(&exchange).and_then(|mut members| {
        let keyring = take_text(&mut members, "keyring")?;
        let items = match members.remove("items") {
            Some(Value::Array(items)) if (1..=MOST_ITEMS).contains(&items.len()) => items,
            _ => return Err(malformed(&format!("`items` is not a list of 1 to {MOST_ITEMS} objects"))),
        };
        nothing_else(&members)?;
        Ok((keyring, items))
    });
    let (keyring, items) = counted(&app, &exchange.ask, parsed)?;
    let count = u32::try_from(items.len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let _slot = app.signer.admit(&exchange.ask.caller, count)?;
    let ask = Ask { batch: true, ..exchange.ask.clone() };
    // All items are under way together, so that their records share a sync; the answers keep the order of the items.
    let signing = items.into_iter().map(|item| {
        let (signer, ask, keyring) = (app.signer.clone(), ask.clone(), keyring.clone());
        tokio::spawn(async move {
            let Value::Object(members) = item else { return Err(malformed("an item is not an object")) };
            signer.sign(&ask, parse_item(keyring, members)?).await
        })
    });
    let signing: Vec<_> = signing.collect();
    let mut results = Vec::with_capacity(signing.len());
    for task in signing {
        let result = task.await.unwrap_or_else(|_| Err(Refusal::new(Code::NotReady, "the item failed; ask again")));
        results.push(match result {
            Ok(reply) => reply_body(&reply),
            Err(refusal) => json!({ "problem": problem::body(&refusal, &ask.request) }),
        });
    }
    Ok(json(StatusCode::OK, &json!({ "results": results })))
}

/// Malformed requests are counted here: they never reach the signer.
fn counted<T>(app: &App, ask: &Ask, parsed: Result<T, Refusal>) -> Result<T, Refusal> {
    parsed.inspect_err(|refusal| app.signer.count_refusal(refusal, Some(ask.caller.id())))
}

fn wants_dry_run(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| matches!(pair, "dry_run=1" | "dry_run=true" | "dry_run")))
}

fn parse_item(keyring: String, mut members: Map<String, Value>) -> Result<Request, Refusal> {
    let header = match members.remove("header") {
        None => None,
        Some(Value::Object(header)) => Some(header),
        Some(_) => return Err(malformed("`header` is not an object")),
    };
    let content = match (members.remove("claims"), members.remove("payload")) {
        (Some(Value::Object(claims)), None) => Content::Claims(claims),
        (None, Some(Value::String(payload))) => {
            let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed("`payload` is not unpadded base64url"))?;
            let detached = take_flag(&mut members, "detached", false)?;
            Content::Payload { bytes, detached, encode: take_flag(&mut members, "b64", true)? }
        }
        _ => return Err(malformed("send either `claims` (an object) or `payload` (base64url)")),
    };
    nothing_else(&members)?;
    Ok(Request { keyring, content, header })
}

fn take_text(members: &mut Map<String, Value>, name: &str) -> Result<String, Refusal> {
    match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(malformed(&format!("`{name}` is missing or not a string"))),
    }
}

fn take_flag(members: &mut Map<String, Value>, name: &str, default: bool) -> Result<bool, Refusal> {
    match members.remove(name) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(malformed(&format!("`{name}` is not true or false"))),
    }
}

fn nothing_else(members: &Map<String, Value>) -> Result<(), Refusal> {
    match members.keys().next() {
        None => Ok(()),
        Some(name) => Err(malformed(&format!("member {name:?} is not known here"))),
    }
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Code::Malformed, detail)
}

fn reply_body(reply: &Reply) -> Value {
    let receipt = json!({ "log": &*reply.receipt.log, "seq": reply.receipt.seq, "leaf": reply.receipt.leaf.to_string() });
    let mut body = json!({ "token": reply.token, "kid": reply.kid, "alg": reply.algorithm.name(), "exp": reply.exp, "receipt": receipt });
    if let (Some(members), Some(jti)) = (body.as_object_mut(), &reply.jti) {
        members.insert("jti".into(), jti.clone().into());
        members.insert("iat".into(), reply.iat.into());
    }
    body
}

fn dry_run_body(run: &DryRun) -> Value {
    let broken: Vec<Value> = run.broken.iter().map(|b| json!({ "rule": b.rule, "claim": b.claim, "detail": b.detail })).collect();
    json!({ "claims": run.claims, "broken": broken, "permitted": run.permitted })
}
