//! The durable append, without HTTP and without a keystore: the use log of `claviger::journal` on the same disk.
//!
//! In scope: records as large as those of signatures, from one waiter or many. Out of scope: checkpoints, which no append waits for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use claviger::clock::{Clock, Monotonic, SystemClock};
use claviger::journal::{Draft, KeyLog, Opening, UseLog, create};
use claviger_audit::Algorithm;
use claviger_audit::event::{Event, LogCreated, LogKind, Sign};
use claviger_audit::jwk::PublicKey;
use claviger_audit::merkle::Hash;
use claviger_audit::note::VerifierKey;
use claviger_audit::record::Asked;
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::load::quantile;

/// A use log with nothing around it.
pub(crate) struct Log {
    uses: UseLog,
    clock: Arc<SystemClock>,
    runtime: Runtime,
}

impl Log {
    /// Makes both logs in `folder`, for the use log names the key log.
    pub(crate) fn open(folder: &Path) -> Outcome<Self> {
        let clock = Arc::new(SystemClock::start());
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|_| "a seed has 32 bytes")?;
        let public = PublicKey::from_ed25519(pair.public_key().as_ref().try_into()?);
        let opening = |kind: LogKind| Opening::local(kind, folder.join(kind.name()), clock.clone(), "a".to_owned(), "b00t".to_owned());
        for kind in [LogKind::Keys, LogKind::Uses] {
            let origin = format!("localhost/claviger/{}", kind.name());
            let key = VerifierKey::from_jwk(&origin, &public)?.to_string();
            let text = |text: &str| text.to_owned();
            let first =
                LogCreated { origin, key, keystore: text("hsm"), locator: text("01"), installation: text("bench"), version: text("0") };
            create(&opening(kind), kind, Asked::default(), first)?;
        }
        let keys = KeyLog::open(&opening(LogKind::Keys))?.log;
        let uses = UseLog::open(&opening(LogKind::Uses), keys)?.log;
        Ok(Self { uses, clock, runtime: Builder::new_multi_thread().enable_all().build()? })
    }

    /// Appends from `waiters` waiters for `span`: the median, in seconds, of the time that one append took.
    pub(crate) fn measure(&self, waiters: usize, span: Duration) -> Outcome<f64> {
        let until = self.clock.monotonic().plus(span);
        let mut spans = self.runtime.block_on(async {
            let tasks: Vec<_> = (0..waiters).map(|_| tokio::spawn(wait(self.uses.clone(), self.clock.clone(), until))).collect();
            let mut spans = Vec::new();
            for task in tasks {
                spans.extend(task.await??);
            }
            Outcome::Ok(spans)
        })?;
        spans.sort_unstable();
        Ok(quantile(&spans, 0.5))
    }
}

async fn wait(uses: UseLog, clock: Arc<SystemClock>, until: Monotonic) -> Outcome<Vec<Duration>> {
    let mut spans = Vec::new();
    let mut before = clock.monotonic();
    while before < until {
        uses.append(draft()).await?;
        let now = clock.monotonic();
        spans.push(now.since(before));
        before = now;
    }
    Ok(spans)
}

fn draft() -> Draft {
    let text = |text: &str| Some(text.to_owned());
    let pseudonym = text("hmac-2026:AAAAAAAAAAAAAAAAAAAAAA");
    let event = Sign {
        keyring: "access-tokens".to_owned(),
        kid: "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U".to_owned(),
        alg: Algorithm::ES256,
        input: Hash::digest(b"input"),
        typ: text("at+jwt"),
        jti: Some(Hash::digest(b"jti")),
        subject: pseudonym.clone(),
        iat: Some(1_800_000_000),
        exp: 1_800_000_900,
        size: 12,
        policy: vec!["issuers-sign-access-tokens".to_owned()],
        backend_request: None,
    };
    let asked = Asked { caller: text("token:bench"), src: pseudonym.clone(), agent: pseudonym, request: text("AAAAAAAAAAAAAAAA") };
    Draft { asked, event: Event::Sign(event) }
}
