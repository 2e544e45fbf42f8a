//! Operators' verbs and questions over HTTP: what the command line calls.
//!
//! In scope: the shapes of requests and answers. Out of scope: who may and what follows (`operator`).

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use claviger_audit::Timestamp;
use claviger_audit::event::LogKind;
use claviger_audit::jwk::PublicKey;
use serde_json::{Map, Value, json};

use super::App;
use super::exchange::{Answer, Exchange, identified, json, json_object};
use crate::operator::{Done, Verb, keyring_of};
use crate::refusal::{Code, Refusal};
use crate::rotation::{timeline, verbs};
use crate::views;

/// How long a verb waits for a quorum unless it says otherwise, and at most: a witness that has not cosigned by then is a matter for people.
const WITNESSED_WITHIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(10));
/// Largest body of a verb: a set of 100 RSA keys fits.
const LARGEST_BODY: usize = 256 * 1024;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/admin/keyrings", get(list))
        .route("/admin/keyrings/{keyring}", get(show))
        .route("/admin/keyrings/{keyring}/plan", get(plan))
        .route("/admin/keyrings/{keyring}/{verb}", post(keyring_verb))
        .route("/admin/keys/{key}", get(explain))
        .route("/admin/keys/{key}/{verb}", post(key_verb))
        .route("/admin/log/{log}/rotate-key", post(rotate_log_key))
        .route("/admin/log/uses/prune", post(prune))
        .route("/admin/subjects/{year}/erase", post(erase))
        .route("/admin/clock/confirm", post(confirm_clock))
        .route("/admin/reload", post(reload))
        .route("/admin/status", get(status))
}

async fn list(State(app): State<App>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let readable = app.operator.readable(&exchange.ask);
        let snapshot = app.operator.keyrings();
        let now = app.clock.wall();
        let rows = readable.iter().filter_map(|name| views::keyring(&snapshot.keyrings, name, now));
        Ok(json(StatusCode::OK, &json!({ "keyrings": rows.collect::<Vec<_>>() })))
    })
    .await
}

async fn show(State(app): State<App>, Path(keyring): Path<String>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        app.operator.may_read(&exchange.ask, &keyring).await?;
        let view = views::keyring(&app.operator.keyrings().keyrings, &keyring, app.clock.wall());
        Ok(json(StatusCode::OK, &view.ok_or_else(|| unknown_keyring(&keyring))?))
    })
    .await
}

async fn plan(State(app): State<App>, Path(keyring): Path<String>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        app.operator.may_read(&exchange.ask, &keyring).await?;
        let (snapshot, now) = (app.operator.keyrings(), app.clock.wall());
        let entries = timeline::timeline(&snapshot.keyrings, &keyring, now);
        let entries: Vec<Value> = entries.iter().map(views::entry).collect();
        let paused = app.operator.watch.is_paused();
        let risks: Vec<Value> = app.readiness.risks_of(Some(&keyring)).iter().map(views::risk).collect();
        let body = json!({ "keyring": keyring, "now": now.to_string(), "clock_paused": paused, "entries": entries, "risks": risks });
        Ok(json(StatusCode::OK, &body))
    })
    .await
}

async fn explain(State(app): State<App>, Path(key): Path<String>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let (snapshot, now) = (app.operator.keyrings(), app.clock.wall());
        let Some(keyring) = keyring_of(&snapshot.keyrings, &key) else {
            return Err(unknown_key(&app, &exchange, &key));
        };
        app.operator.may_read(&exchange.ask, &keyring).await?;
        let mut view = views::key_story(&snapshot.keyrings, &key, now).ok_or_else(|| unknown_key(&app, &exchange, &key))?;
        view["clock_paused"] = json!(app.operator.watch.is_paused());
        Ok(json(StatusCode::OK, &view))
    })
    .await
}

async fn keyring_verb(State(app): State<App>, Path((keyring, verb)): Path<(String, String)>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let mut members = json_object(&exchange)?;
        let verb = match verb.as_str() {
            "rotate" => {
                let force = members.remove("force").is_some_and(|force| force == Value::Bool(true));
                let reason = optional_text(&mut members, "reason")?;
                if force && reason.is_none() {
                    return Err(malformed("a forced rotation needs a `reason`"));
                }
                Verb::Rotate { keyring, force: reason.filter(|_| force) }
            }
            "retire" => Verb::Retire { keyring, reason: text(&mut members, "reason")? },
            "import-jwks" => {
                let keys = jwks_entries(members.remove("jwks"))?;
                let until = time(&mut members, "until")?.ok_or_else(|| malformed("`until` is missing"))?;
                Verb::Import { keyring, keys, until, reason: text(&mut members, "reason")? }
            }
            _ => return Err(Refusal::new(Code::NotFound, "a keyring knows rotate, retire and import-jwks")),
        };
        perform(&app, &exchange, verb, &members).await
    })
    .await
}

async fn key_verb(State(app): State<App>, Path((key, verb)): Path<(String, String)>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let mut members = json_object(&exchange)?;
        let verb = match verb.as_str() {
            "compromise" => {
                let since = time(&mut members, "since")?;
                if since.is_some_and(|since| since > app.clock.wall()) {
                    return Err(malformed("`since` lies in the future"));
                }
                Verb::Compromise { kid: key, since, reason: text(&mut members, "reason")? }
            }
            "suspend" => Verb::Suspend { kid: key, reason: text(&mut members, "reason")? },
            "resume" => Verb::Resume { kid: key, reason: text(&mut members, "reason")? },
            "abandon" => Verb::Abandon { key, reason: text(&mut members, "reason")? },
            "destroy" => Verb::Destroy { key },
            _ => return Err(Refusal::new(Code::NotFound, "a key knows compromise, suspend, resume, abandon and destroy")),
        };
        perform(&app, &exchange, verb, &members).await
    })
    .await
}

async fn rotate_log_key(State(app): State<App>, Path(log): Path<String>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let mut members = json_object(&exchange)?;
        let log = match log.as_str() {
            "keys" => LogKind::Keys,
            "uses" => LogKind::Uses,
            _ => return Err(Refusal::new(Code::NotFound, "the logs are called keys and uses")),
        };
        let reason = optional_text(&mut members, "reason")?;
        nothing_else(&members)?;
        let turned = app.upkeep.rotate_key(&exchange.ask, log, reason.as_deref()).await?;
        Ok(json(StatusCode::OK, &views::turned(&turned)))
    })
    .await
}

async fn erase(State(app): State<App>, Path(year): Path<String>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let mut members = json_object(&exchange)?;
        let year = year.parse().map_err(|_| malformed("a year is a number, such as 2025"))?;
        let reason = text(&mut members, "reason")?;
        nothing_else(&members)?;
        Ok(json(StatusCode::OK, &views::done(&app.upkeep.erase(&exchange.ask, year, reason).await?)))
    })
    .await
}

async fn prune(State(app): State<App>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let mut members = json_object(&exchange)?;
        let before = time(&mut members, "before")?.ok_or_else(|| malformed("`before` is a time, such as 2026-01-31T00:00:00.000Z"))?;
        let reason = optional_text(&mut members, "reason")?;
        let only_look = match members.remove("dry_run") {
            None => false,
            Some(Value::Bool(only_look)) => only_look,
            Some(_) => return Err(malformed("`dry_run` is true or false")),
        };
        nothing_else(&members)?;
        if !only_look && reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(malformed("`reason` is missing: records are deleted, and the log says why"));
        }
        let pruned = app.upkeep.prune(&exchange.ask, before, reason.filter(|_| !only_look)).await?;
        Ok(json(StatusCode::OK, &views::pruned(&pruned)))
    })
    .await
}

async fn confirm_clock(State(app): State<App>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        let mut members = json_object(&exchange)?;
        let reason = text(&mut members, "reason")?;
        if reason.trim().is_empty() {
            return Err(malformed("a `reason` is needed; it is recorded"));
        }
        let wait = wait_of(&app, &exchange, &members)?;
        let done = app.operator.confirm_clock(&exchange.ask, reason).await?;
        answer(&app, &done, wait).await
    })
    .await
}

async fn reload(State(app): State<App>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, exchange: Exchange| {
        Ok(json(StatusCode::OK, &app.operator.reload(&exchange.ask).await?))
    })
    .await
}

async fn status(State(app): State<App>, request: Request) -> Response<Body> {
    identified(app, request, LARGEST_BODY, async |app: App, _: Exchange| {
        let health = &app.readiness.health;
        let keystores = app.readiness.keystores.iter().map(|(name, port)| {
            let condition = port.condition();
            let complaints = health.complaints.of(name).into_iter();
            let complaints: Vec<_> = complaints.map(|(work, text)| json!({ "work": work.to_string(), "text": text })).collect();
            json!({
                "keystore": name, "answers": health.is_up(name), "orphans": health.orphans(name), "complaints": complaints,
                "hung": condition.hung, "wedged": condition.wedged,
            })
        });
        let keyrings = app.readiness.keyrings().into_iter().map(|name| match app.readiness.signing(&app.signer, &name) {
            Ok(()) => json!({ "keyring": name, "ready": true }),
            Err(refusal) => json!({ "keyring": name, "ready": false, "code": refusal.code.name(), "detail": refusal.detail }),
        });
        let body = json!({
            "jwks": app.readiness.sets().map_or_else(|refusal| refusal.detail, |()| "served".to_owned()),
            "keystores": keystores.collect::<Vec<_>>(),
            "keyrings": keyrings.collect::<Vec<_>>(),
            "risks": app.readiness.risks().iter().map(views::risk).collect::<Vec<_>>(),
            "policies": app.signer.rules().load().policies.as_ref().map(crate::policy::PolicySet::len),
            "log": app.readiness.log(),
            "disk": app.readiness.disk(),
            "clock": json!({ "paused": app.operator.watch.is_paused(), "difference_ms": app.operator.watch.read().1 }),
            "log_keys_cut_off": app.upkeep.cut_off(),
            "witnesses": app.operator.witnesses.as_ref().map(|witnesses| witnesses.report()),
        });
        Ok(json(StatusCode::OK, &body))
    })
    .await
}

async fn perform(app: &App, exchange: &Exchange, verb: Verb, rest: &Map<String, Value>) -> Answer {
    let wait = wait_of(app, exchange, rest)?;
    let done = app.operator.perform(&exchange.ask, verb).await?;
    answer(app, &done, wait).await
}

/// How long to wait for a quorum once it is done, asked before anything is done.
fn wait_of(app: &App, exchange: &Exchange, rest: &Map<String, Value>) -> Result<Option<Duration>, Refusal> {
    nothing_else(rest)?;
    let wait = witnessed_within(exchange.query.as_deref())?;
    if wait.is_some() {
        app.operator.may_wait()?;
    }
    Ok(wait)
}

async fn answer(app: &App, done: &Done, wait: Option<Duration>) -> Answer {
    let mut body = views::done(done);
    if let Some(live) = app.operator.live_tokens(done).await {
        body["live_tokens"] = views::live_tokens(&live);
    }
    let Some(within) = wait else { return Ok(json(StatusCode::OK, &body)) };
    let size = app.operator.wait_witnessed(done, within).await?;
    body["witnessed"] = json!({ "reached": size.is_some(), "size": size });
    // RFC 9110 section 15.3.3: done, as far as it is ours to do; the witnesses have not said so yet.
    Ok(json(if size.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED }, &body))
}

/// How long to wait for a quorum, from `wait=witnessed` and `within_ms` of the query.
fn witnessed_within(query: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let (default, longest) = WITNESSED_WITHIN;
    let (mut wait, mut within) = (false, default);
    for (name, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
        match (name, value) {
            ("wait", "witnessed") => wait = true,
            ("wait", _) => return Err(malformed("`wait` can only be `witnessed`")),
            ("within_ms", millis) => {
                let span = millis.parse().ok().map(Duration::from_millis).filter(|span| *span <= longest);
                within = span.ok_or_else(|| malformed("`within_ms` is not a number of milliseconds up to 10 minutes"))?;
            }
            _ => {}
        }
    }
    Ok(wait.then_some(within))
}

/// Refuses members that nobody took.
fn nothing_else(rest: &Map<String, Value>) -> Result<(), Refusal> {
    rest.keys().next().map_or(Ok(()), |name| Err(malformed(&format!("member {name:?} is not known here"))))
}

/// The keys of a JWKS, with their `kid` and `alg`; private members are refused by the type.
fn jwks_entries(jwks: Option<Value>) -> Result<Vec<verbs::Entry>, Refusal> {
    let Some(Value::Array(keys)) = jwks.and_then(|mut jwks| jwks.get_mut("keys").map(Value::take)) else {
        return Err(malformed("`jwks` is not a JWK set with `keys`"));
    };
    keys.into_iter().map(jwk_entry).collect()
}

fn jwk_entry(jwk: Value) -> Result<verbs::Entry, Refusal> {
    let Value::Object(mut members) = jwk else { return Err(malformed("a member of `keys` is not an object")) };
    let kid = text(&mut members, "kid")?;
    let algorithm = text(&mut members, "alg")?.parse().map_err(|error| malformed(&format!("key {kid:?}: {error}")))?;
    // What RFC 7517 lets a public key carry beside its material has no meaning here.
    for unused in ["use", "key_ops", "x5c", "x5t", "x5t#S256", "x5u"] {
        members.remove(unused);
    }
    let public: PublicKey = serde_json::from_value(Value::Object(members))
        .map_err(|_| malformed(&format!("key {kid:?} is not a public EC, RSA or Ed25519 key with exactly the public members")))?;
    Ok(verbs::Entry { kid, jwk: public, algorithm })
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<String, Refusal> {
    optional_text(members, name)?.ok_or_else(|| malformed(&format!("`{name}` is missing")))
}

fn optional_text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(&format!("`{name}` is not a string"))),
    }
}

fn time(members: &mut Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let text = optional_text(members, name)?;
    text.map(|text| text.parse().map_err(|error| malformed(&format!("`{name}`: {error}")))).transpose()
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Code::Malformed, detail)
}

fn unknown_keyring(keyring: &str) -> Refusal {
    Refusal::new(Code::UnknownKeyring, format!("no keyring is called {keyring:?}"))
}

/// Told only to those who may read some keyring.
fn unknown_key(app: &App, exchange: &Exchange, key: &str) -> Refusal {
    if app.operator.readable(&exchange.ask).is_empty() {
        return Refusal::new(Code::Denied, "no policy permits this");
    }
    Refusal::new(Code::UnknownKey, format!("no key has the kid or name {key:?}"))
}
