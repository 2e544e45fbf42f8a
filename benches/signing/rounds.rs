//! The run: every floor and every measurement once in a round, and several rounds, so that both meet the same weather.
//!
//! In scope: the order, and how long each takes. Out of scope: what the numbers mean (`report`).

use std::fs;
use std::time::Duration;

use crate::Outcome;
use crate::bare::Bare;
use crate::common::cpu;
use crate::common::floor::{self, Floor};
use crate::floors::{Kind, Token, Verification};
use crate::load::{self, Load};
use crate::stage::{self, ES256, RS256, Stage};

/// How many rounds; medians are taken over them. Odd, so that a median is something that was measured.
const ROUNDS: usize = 11;
/// How long one floor is measured in a round.
const FLOOR: Duration = Duration::from_millis(200);
/// How long one load is measured in a round.
const LOAD: Duration = Duration::from_millis(600);
/// How long everything is warmed up before the first round.
const WARM_UP: Duration = Duration::from_millis(500);
/// Connections of a busy daemon.
pub(crate) const MANY: usize = 16;

/// What one round found.
pub(crate) struct Round {
    /// `C_Sign` with ES256 by one thread, and by as many as there are cores.
    pub(crate) sign_es: [Floor; 2],
    /// `C_Sign` with RS256, likewise.
    pub(crate) sign_rs: [Floor; 2],
    /// An ES256 verification, likewise.
    pub(crate) verify: [Floor; 2],
    /// An append of a record's size with its `fdatasync`.
    pub(crate) sync: Floor,
    /// The bare exchange over one connection and over [`MANY`].
    pub(crate) bare: [Load; 2],
    /// `POST /sign` with ES256, likewise.
    pub(crate) es: [Load; 2],
    /// `POST /sign` with RS256, likewise.
    pub(crate) rs: [Load; 2],
    /// `POST /sign/batch` with ES256, over as many connections as there are cores.
    pub(crate) batch: Load,
    /// JWKS by the bare server and by the daemon, over [`MANY`].
    pub(crate) jwks: [Load; 2],
}

/// All rounds, and what they stand for.
pub(crate) struct Found {
    /// The rounds.
    pub(crate) rounds: Vec<Round>,
    /// Bytes of one record with its LF.
    pub(crate) record: usize,
    /// Bytes of a request and of its answer.
    pub(crate) exchange: (usize, usize),
    /// Load averages before and after.
    pub(crate) load: [String; 2],
}

/// Measures.
pub(crate) fn run(stage: &Stage) -> Outcome<Found> {
    let before = cpu::load_average();
    let (sign, jwks) = (stage::sign_request(ES256), load::get("/.well-known/jwks.json"));
    let (sign_answer, jwks_answer) = (load::once(stage.address, &sign)?, load::once(stage.address, &jwks)?);
    let batch_answer = load::once(stage.address, &stage::batch_request(ES256))?.1;
    if batch_answer.matches(r#""token":"#).count() != stage::BATCH {
        return Err(format!("a batch was not signed whole: {batch_answer}").into());
    }
    let record = record_length(stage)?;
    let parts = Parts {
        stage,
        token: Token::open(stage)?,
        verification: Verification::new(&sign_answer.1, &jwks_answer.1)?,
        bare: Bare::start(&sign_answer, &jwks_answer)?,
        record,
    };
    parts.daemon(&sign, MANY, WARM_UP)?;
    parts.bare(&sign, MANY, WARM_UP)?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        eprintln!("round {number} of {ROUNDS}");
        rounds.push(parts.round()?);
    }
    let exchange = (sign.len(), sign_answer.0.len() + sign_answer.1.len());
    Ok(Found { rounds, record, exchange, load: [before, cpu::load_average()] })
}

struct Parts<'a> {
    stage: &'a Stage,
    token: Token,
    verification: Verification,
    bare: Bare,
    record: usize,
}

impl Parts<'_> {
    /// Each measurement stands beside the floors that it is compared with.
    fn round(&self) -> Outcome<Round> {
        let cores = cpu::cores();
        let (es, rs) = (stage::sign_request(ES256), stage::sign_request(RS256));
        let (batch, jwks) = (stage::batch_request(ES256), load::get("/.well-known/jwks.json"));
        let sign_es = [self.token.sign(Kind::Es256, 1, FLOOR)?, self.token.sign(Kind::Es256, cores, FLOOR)?];
        let es_many = self.daemon(&es, MANY, LOAD)?;
        let verify = [self.verification.measure(1, FLOOR)?, self.verification.measure(cores, FLOOR)?];
        let bare_many = self.bare(&es, MANY, LOAD)?;
        let batch = self.daemon(&batch, cores, LOAD)?;
        let bare_one = self.bare(&es, 1, FLOOR)?;
        let sync = floor::sync(&self.stage.folder, self.record, FLOOR)?;
        let es_one = self.daemon(&es, 1, LOAD)?;
        let rs_one = self.daemon(&rs, 1, FLOOR)?;
        let sign_rs = [self.token.sign(Kind::Rs256, 1, FLOOR)?, self.token.sign(Kind::Rs256, cores, LOAD)?];
        let rs_many = self.daemon(&rs, MANY, LOAD)?;
        let jwks = [self.bare(&jwks, MANY, FLOOR)?, self.daemon(&jwks, MANY, FLOOR)?];
        let (bare, es, rs) = ([bare_one, bare_many], [es_one, es_many], [rs_one, rs_many]);
        Ok(Round { sign_es, sign_rs, verify, sync, bare, es, rs, batch, jwks })
    }

    fn daemon(&self, request: &[u8], connections: usize, span: Duration) -> Outcome<Load> {
        load::run((self.stage.address, Some(self.stage.daemon())), request, connections, span)
    }

    fn bare(&self, request: &[u8], connections: usize, span: Duration) -> Outcome<Load> {
        load::run((self.bare.address, None), request, connections, span)
    }
}

/// The length of the newest signature's record. A reply follows its record, so there is one.
fn record_length(stage: &Stage) -> Outcome<usize> {
    let log = fs::read_to_string(stage.folder.join("state/log/uses/00000000000000000000.jsonl"))?;
    let record = log.lines().rev().find(|line| line.contains(r#""event":"sign","#)).ok_or("no signature is recorded")?;
    Ok(record.len() + 1)
}
