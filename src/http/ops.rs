//! Health and metrics, without identity.
//!
//! In scope: `/livez` (the process answers), `/readyz` (the true JWKS is served), `/readyz/sign` (who can sign, and why not), `/metrics`.
//! Both kinds of readiness tell in their body what is at risk; a risk alone never makes them red.
//! Out of scope: asking keystores: what is known is answered, nothing is probed.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use serde_json::{Value, json};

use super::App;
use super::exchange::{dress, json, request_id};
use crate::refusal::{Code, Refusal};
use crate::views;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/readyz/sign", get(ready_to_sign))
        .route("/metrics", get(metrics))
}

async fn live() -> Response<Body> {
    json(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn ready(State(app): State<App>, request: Request) -> Response<Body> {
    let answer = app.readiness.sets().map(|()| {
        let risks: Vec<Value> = app.readiness.risks().iter().map(views::risk).collect();
        json(StatusCode::OK, &json!({ "status": "ok", "risks": risks }))
    });
    dress(answer, &request_id(request.headers()))
}

async fn ready_to_sign(State(app): State<App>, request: Request) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("keyring="));
    let keyrings = app.readiness.keyrings();
    let chosen: Vec<&String> = keyrings.iter().filter(|name| asked.is_none_or(|asked| asked == *name)).collect();
    if chosen.is_empty() {
        let refusal = Refusal::new(Code::UnknownKeyring, "no keyring is configured, or none of this name");
        return dress(Err(refusal), &request_id(request.headers()));
    }
    let rows: Vec<(bool, Value)> = chosen.into_iter().map(|name| row(name, app.readiness.signing(&app.signer, name))).collect();
    let all = rows.iter().all(|(ready, _)| *ready);
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    let risks: Vec<Value> = app.readiness.risks_of(asked).iter().map(views::risk).collect();
    let mut body = json!({ "ready": all, "keyrings": rows, "risks": risks });
    let alarms = app.operator.witnesses.as_ref().map(|witnesses| witnesses.alarms()).unwrap_or_default();
    if !alarms.is_empty() {
        body["alarms"] = json!(alarms);
    }
    dress(Ok(json(status, &body)), &request_id(request.headers()))
}

fn row(keyring: &str, readiness: Result<(), Refusal>) -> (bool, Value) {
    match readiness {
        Ok(()) => (true, json!({ "keyring": keyring, "ready": true })),
        Err(refusal) => (false, json!({ "keyring": keyring, "ready": false, "code": refusal.code.name(), "detail": refusal.detail })),
    }
}

async fn metrics(State(app): State<App>) -> Response<Body> {
    app.readiness.measure(&app.metrics, &app.signer);
    if let Some(witnesses) = &app.operator.witnesses {
        witnesses.measure(&app.metrics);
    }
    let mut response = Response::new(Body::from(app.metrics.text()));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
