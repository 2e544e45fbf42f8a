//! `claviger sign`: one token or payload, or what would be signed.
//!
//! In scope: the request, from a file or standard input. Out of scope: signing. `--dry-run --as` needs no daemon: configuration and policies
//! are files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{self, Failure, Format, Outcome, cell};
use super::{exit, input, policy};
use crate::clock::Clock;
use crate::config::Surface;
use crate::policy::Origin;
use crate::signer::{Ask, Content, Request, offline_dry_run};

/// What to sign.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The keyring
    #[arg(long)]
    keyring: String,
    /// A JSON object of claims, `-` for standard input
    #[arg(long, conflicts_with = "payload", required_unless_present = "payload")]
    claims: Option<PathBuf>,
    /// A payload for a `jws` keyring, `-` for standard input
    #[arg(long)]
    payload: Option<PathBuf>,
    /// Leave the payload out of the result (RFC 7515 appendix F)
    #[arg(long, requires = "payload")]
    detached: bool,
    /// Do not sign: show the claims that would be signed, every broken rule, and the decision
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: judge as this caller, from the files alone, without the daemon
    #[arg(long = "as", requires = "dry_run", value_name = "CALLER")]
    as_caller: Option<String>,
    /// The daemon's signing socket; without it, the one of the configuration
    #[arg(long, env = "CLAVIGER_SIGN_SOCKET")]
    sign_socket: Option<PathBuf>,
}

pub(super) async fn run(args: Args, config: &Path, clock: Arc<dyn Clock>, format: Format) -> Outcome {
    if let Some(caller) = &args.as_caller {
        return offline(&args, caller, config, clock.as_ref(), format);
    }
    let client = Client::new(socket(&args, config)?);
    let mut body = json!({ "keyring": args.keyring });
    match content(&args)? {
        Content::Claims(claims) => body["claims"] = Value::Object(claims),
        Content::Payload { bytes, detached, .. } => {
            body["payload"] = URL_SAFE_NO_PAD.encode(bytes).into();
            body["detached"] = detached.into();
        }
    }
    let answer = client.post(if args.dry_run { "/sign?dry_run=1" } else { "/sign" }, &body).await?;
    if args.dry_run {
        return Ok(tell(&answer, format));
    }
    if format == Format::Json {
        output::json(&answer);
    } else {
        output::line(answer["token"].as_str().unwrap_or_default());
    }
    Ok(exit::OK)
}

fn offline(args: &Args, caller: &str, file: &Path, clock: &dyn Clock, format: Format) -> Outcome {
    let config = super::config::load(file)?;
    let rules = policy::offline_rules(&config)?;
    let caller = Arc::new(policy::caller(&config, caller)?);
    let ask = Ask { caller, origin: Origin::default(), request: "dry-run".to_owned(), deadline: clock.monotonic(), batch: false };
    let request = Request { keyring: args.keyring.clone(), content: content(args)?, header: None };
    let run = offline_dry_run(&rules, &ask, request, clock.wall()).map_err(|refusal| Failure::new(exit::NOT_FOUND, refusal.detail))?;
    let broken: Vec<Value> = run.broken.iter().map(|b| json!({ "rule": b.rule, "claim": b.claim, "detail": b.detail })).collect();
    Ok(tell(&json!({ "claims": run.claims, "broken": broken, "permitted": run.permitted }), format))
}

/// Says what a dry run found, whoever made it; the exit code tells whether the same request would be signed.
fn tell(run: &Value, format: Format) -> u8 {
    let broken = run["broken"].as_array().map(Vec::as_slice).unwrap_or_default();
    let permitted = run["permitted"].as_bool();
    if format == Format::Json {
        output::json(run);
    } else {
        for b in broken {
            output::line(format_args!("broken: {}: {} [{}]", cell(&b["claim"]), cell(&b["detail"]), cell(&b["rule"])));
        }
        match permitted {
            Some(true) => output::line("permitted"),
            Some(false) => output::line("denied; `claviger policy explain` tells why"),
            None => output::line("not judged by policies: the profile is broken"),
        }
        output::line(serde_json::to_string_pretty(&run["claims"]).unwrap_or_default());
    }
    if broken.is_empty() && permitted == Some(true) { exit::OK } else { exit::FOUND }
}

fn socket(args: &Args, file: &Path) -> Result<PathBuf, Failure> {
    if let Some(socket) = &args.sign_socket {
        return Ok(socket.clone());
    }
    let config = super::config::load(file)?;
    let missing = || Failure::new(exit::CONFIG, format!("{} has no signing listener on a Unix socket; say --sign-socket", file.display()));
    crate::daemon::setup::socket_of(&config, Surface::Sign).ok_or_else(missing)
}

fn content(args: &Args) -> Result<Content, Failure> {
    if let Some(file) = &args.payload {
        return Ok(Content::Payload { bytes: input::read(file)?, detached: args.detached, encode: true });
    }
    let file = args.claims.as_deref().unwrap_or(Path::new("-"));
    input::json_object(file).map(Content::Claims)
}
