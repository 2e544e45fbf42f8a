//! A key log under construction: records that are applied one after the other, and the events of one keyring.
//!
//! In scope: building. Out of scope: the tests themselves.

use super::super::*;
use crate::event::{
    DaemonStart, Event, JwksServed, KeyAbandoned, KeyCompromised, KeyCreated, KeyDestroyed, KeyImported, KeyPublished, KeyRequested,
    KeyResumed, KeyRotated, KeySuspended, KeyringCreated, KeyringRetired, KeyringTiming, LogCreated, LogKind, RotationReason,
};
use crate::record::{Asked, Record};
use crate::timing::tests::defaults;

use sha2::{Digest as _, Sha256};

/// D + e and Q + T + 2e of the default settings.
pub(super) const LEAD: Duration = Duration::from_secs(940);
pub(super) const OVERLAP: Duration = Duration::from_secs(962);
pub(super) const DAY: Duration = Duration::from_hours(24);
pub(super) const MILLI: Duration = Duration::from_millis(1);
/// The record that holds the settings of [`Log::with_keyring`].
pub(super) const TIMING: u64 = 3;

pub(super) struct Log {
    pub(super) keyrings: Keyrings,
    pub(super) now: Timestamp,
    pub(super) node: &'static str,
}

impl Log {
    pub(super) fn new() -> Self {
        let mut log = Self { keyrings: Keyrings::default(), now: Timestamp::from_seconds(1_800_000_000), node: "a" };
        log.ok(Event::LogCreated(LogCreated {
            origin: "example.org/claviger/keys".into(),
            key: "key".into(),
            keystore: "hsm".into(),
            locator: "0".into(),
            installation: "prod".into(),
            version: "0".into(),
        }));
        log.ok(start());
        log
    }

    pub(super) fn with_keyring() -> Self {
        let mut log = Self::new();
        log.ok(keyring("tokens"));
        log.ok(Event::KeyringTiming(KeyringTiming { keyring: "tokens".into(), timing: defaults() }));
        log
    }

    /// A keyring whose first key signs and whose standby is served.
    pub(super) fn standing() -> Self {
        let mut log = Self::with_keyring();
        log.publish(1);
        log.ok(Event::KeyRotated(KeyRotated { reason: RotationReason::Bootstrap, ..log.rotation(1) }));
        log.publish(2);
        log.serve();
        log
    }

    pub(super) fn record(&self, event: Event) -> Record {
        Record {
            log: LogKind::Keys,
            seq: self.keyrings.size(),
            time: self.now,
            prev: Hash::from([0; 32]),
            durable: 0,
            node: self.node.into(),
            boot: "test".into(),
            asked: Asked::default(),
            event,
        }
    }

    pub(super) fn ok(&mut self, event: Event) {
        let record = self.record(event);
        self.keyrings.apply(&record).unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    /// The rule and the date of a refusal, which must change nothing.
    pub(super) fn refused(&mut self, event: Event) -> (Rule, Option<Timestamp>) {
        let record = self.record(event);
        self.refused_record(&record)
    }

    pub(super) fn refused_record(&mut self, record: &Record) -> (Rule, Option<Timestamp>) {
        let before = format!("{:?}", self.keyrings);
        let illegal = self.keyrings.apply(record).expect_err("illegal");
        assert_eq!(format!("{:?}", self.keyrings), before, "{illegal} changed the state");
        (illegal.rule, illegal.until)
    }

    pub(super) fn publish(&mut self, number: u32) {
        self.ok(requested(number));
        self.ok(created(number));
        self.ok(self.publication(number));
    }

    pub(super) fn publication(&self, number: u32) -> Event {
        Event::KeyPublished(KeyPublished { kid: kid(number), earliest_activation: self.now + LEAD, timing: TIMING })
    }

    /// A rotation to the key of this number, with the earliest dates that are legal now.
    pub(super) fn rotation(&self, to: u32) -> KeyRotated {
        let from = self.tokens().current();
        KeyRotated {
            keyring: "tokens".into(),
            from: from.and_then(|key| key.kid.clone()),
            to: kid(to),
            reason: RotationReason::OnDemand,
            forced: false,
            note: None,
            withdraw_after: from.map(|_| self.now + OVERLAP),
            next_rotation: self.now + 30 * DAY,
            timing: TIMING,
        }
    }

    pub(super) fn served(&self, set: &str) -> JwksServed {
        let body = jwks::body(&self.keyrings, &set.parse().expect("a set")).expect("it exists");
        let sha256 = Hash::from(<[u8; 32]>::from(Sha256::digest(body)));
        JwksServed { set: set.into(), size: self.keyrings.size(), sha256 }
    }

    pub(super) fn serve(&mut self) {
        for set in ["issuer/main", "keyring/tokens"] {
            self.ok(Event::JwksServed(self.served(set)));
        }
    }

    pub(super) fn tokens(&self) -> &Keyring {
        self.keyrings.keyring("tokens").expect("created")
    }

    pub(super) fn states(&self) -> Vec<State> {
        self.tokens().keys.iter().map(|key| key.state).collect()
    }
}

pub(super) fn start() -> Event {
    Event::DaemonStart(DaemonStart { version: "0".into(), unclean: false, in_flight: 0 })
}

pub(super) fn keyring(name: &str) -> Event {
    Event::KeyringCreated(KeyringCreated {
        keyring: name.into(),
        purpose: Purpose::Jwt,
        issuer: Some("main".into()),
        issuer_url: Some("https://auth.example.org".into()),
        typ: None,
        algorithm: Algorithm::EdDSA,
        keystore: "hsm".into(),
        standby_keystore: None,
    })
}

pub(super) fn name(number: u32) -> KeyName {
    KeyName::new("prod", "tokens", number, 0xabc).expect("well-formed")
}

pub(super) fn jwk(number: u32) -> PublicKey {
    PublicKey::from_ed25519(&Sha256::digest(number.to_be_bytes()).into())
}

pub(super) fn kid(number: u32) -> String {
    jwk(number).thumbprint()
}

pub(super) fn requested(number: u32) -> Event {
    let key = name(number);
    Event::KeyRequested(KeyRequested { key, keyring: "tokens".into(), keystore: "hsm".into(), algorithm: Algorithm::EdDSA })
}

pub(super) fn created(number: u32) -> Event {
    Event::KeyCreated(creation(number))
}

pub(super) fn creation(number: u32) -> KeyCreated {
    let (key, kid, jwk) = (name(number), kid(number), jwk(number));
    KeyCreated { key, kid, jwk, locator: "1".into(), attributes: BTreeMap::new(), backend_request: None, self_test: None }
}

pub(super) fn suspended(number: u32) -> Event {
    Event::KeySuspended(KeySuspended { kid: kid(number), reason: "doubt".into() })
}

pub(super) fn resumed(number: u32) -> Event {
    Event::KeyResumed(KeyResumed { kid: kid(number), reason: "cleared".into() })
}

pub(super) fn abandoned(number: u32) -> Event {
    Event::KeyAbandoned(KeyAbandoned { key: name(number), reason: "unwanted".into() })
}

pub(super) fn destroyed(number: u32) -> Event {
    Event::KeyDestroyed(KeyDestroyed { key: name(number), deleted_on: None })
}

pub(super) fn retired(withdraw_after: Option<Timestamp>) -> Event {
    Event::KeyringRetired(KeyringRetired { keyring: "tokens".into(), reason: "done".into(), withdraw_after })
}

pub(super) fn compromise(number: u32, since: Timestamp) -> KeyCompromised {
    KeyCompromised { kid: kid(number), since, to: None, reason: "leaked".into(), next_rotation: None, timing: TIMING }
}

pub(super) fn import(index: u32, until: Timestamp) -> KeyImported {
    let (keyring, kid, reason) = ("tokens".into(), format!("old-{index}"), "move".into());
    KeyImported { keyring, kid, jwk: jwk(1000), algorithm: Algorithm::EdDSA, until, reason }
}
