//! One record: an event with its place in the log, as one line of canonical JSON.
//!
//! In scope: bytes to record and back. Out of scope: the chain (`prev` is carried, not checked), the file, and whether the event is legal.

mod sign;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::{Event, LogHeartbeat, LogKind};
use crate::json::{self, JsonDefect, NotCanonical};
use crate::merkle::Hash;
use crate::time::Timestamp;

/// The version of the format, the `v` member of every record.
pub const FORMAT_VERSION: u64 = 1;

/// Who asked for what the event tells, and from where. Absent for what Claviger does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The caller's identity.
    pub caller: Option<String>,
    /// The source address, as `audit.subject` says.
    pub src: Option<String>,
    /// The user agent, likewise.
    pub agent: Option<String>,
    /// The request id that the caller was given.
    pub request: Option<String>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which log.
    pub log: LogKind,
    /// Position, from 0; also the leaf's index in the Merkle tree.
    pub seq: u64,
    /// When, never earlier than the record before.
    pub time: Timestamp,
    /// Leaf hash of the record before; for the first one, the genesis hash.
    pub prev: Hash,
    /// How many records were known to be durable when this one was written.
    pub durable: u64,
    /// The node that wrote it.
    pub node: String,
    /// A random name of the process that wrote it.
    pub boot: String,
    /// Who asked.
    pub asked: Asked,
    /// What happened.
    pub event: Event,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The line is not canonical JSON.
    #[error(transparent)]
    Json(#[from] JsonDefect),
    /// The members are not those of a record of this format.
    #[error("not a record of format {FORMAT_VERSION}: {0}")]
    Members(String),
    /// The event does not belong into this log.
    #[error("event {event:?} does not belong into the {log:?} log")]
    WrongLog {
        /// The event.
        event: &'static str,
        /// The log.
        log: LogKind,
    },
}

/// The members that every record has; the rest is the event's. The text is borrowed where a record is written.
#[derive(Serialize, Deserialize)]
struct Head<Text> {
    v: u64,
    log: LogKind,
    seq: u64,
    time: Timestamp,
    prev: Hash,
    durable: u64,
    node: Text,
    boot: Text,
    caller: Option<Text>,
    src: Option<Text>,
    agent: Option<Text>,
    request: Option<Text>,
}

/// A record as it is written: all members in one object.
#[derive(Serialize)]
struct Members<'r> {
    #[serde(flatten)]
    head: Head<&'r str>,
    #[serde(flatten)]
    event: &'r Event,
}

/// Whether a member is one of [`Head`]'s.
fn is_of_head(name: &str) -> bool {
    matches!(name, "v" | "log" | "seq" | "time" | "prev" | "durable" | "node" | "boot" | "caller" | "src" | "agent" | "request")
}

impl Record {
    /// The line, without its LF. What is absent is left out, never `null`.
    pub fn to_line(&self) -> Result<Vec<u8>, NotCanonical> {
        let head = Head {
            v: FORMAT_VERSION,
            log: self.log,
            seq: self.seq,
            time: self.time,
            prev: self.prev,
            durable: self.durable,
            node: self.node.as_str(),
            boot: self.boot.as_str(),
            caller: self.asked.caller.as_deref(),
            src: self.asked.src.as_deref(),
            agent: self.asked.agent.as_deref(),
            request: self.asked.request.as_deref(),
        };
        json::canonical_record(&Members { head, event: &self.event })
    }

    /// Reads a line. The bytes are the truth: whatever is not in the one canonical form is refused.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let bad = |error: serde::de::value::Error| RecordError::Members(error.to_string());
        let members = json::members(line)?;
        if let Some((name, _)) = members.iter().find(|(_, value)| value.is_null()) {
            return Err(RecordError::Members(format!("member {name:?} is null; what is absent is left out")));
        }
        let (of_head, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|(name, _)| is_of_head(name));
        let head = json::Members::new(of_head.into_iter());
        let head = Head::<String>::deserialize(head).map_err(bad)?;
        if head.v != FORMAT_VERSION {
            return Err(RecordError::Members(format!("format version {}; this program reads {FORMAT_VERSION}", head.v)));
        }
        let name = others.iter().find(|(name, _)| *name == "event").map(|(_, name)| <Cow<'_, str>>::deserialize(*name));
        let name = name.unwrap_or_else(|| Err(serde::de::Error::missing_field("event"))).map_err(bad)?;
        let others = others.into_iter().filter(|(name, _)| *name != "event");
        let event = Event::read(&name, json::Members::new(others)).map_err(bad)?;
        if !event.belongs_to(head.log) {
            return Err(RecordError::WrongLog { event: event.name(), log: head.log });
        }
        let asked = Asked { caller: head.caller, src: head.src, agent: head.agent, request: head.request };
        let Head { log, seq, time, prev, durable, node, boot, .. } = head;
        Ok(Self { log, seq, time, prev, durable, node, boot, asked, event })
    }
}

/// Reads one record after the other, those of signatures into the room of the one before: for whoever reads millions.
#[derive(Debug)]
pub struct Reader {
    /// The last signature, or what is left of it, in whose room the next one is read. Before the first one, any other record.
    sign: Record,
    /// The last record of another kind.
    other: Record,
}

impl Default for Reader {
    fn default() -> Self {
        let event = Event::LogHeartbeat(LogHeartbeat {});
        let (node, boot, asked) = (String::new(), String::new(), Asked::default());
        let time = Timestamp::default();
        let nothing = Record { log: LogKind::Uses, seq: 0, time, prev: Hash::EMPTY_ROOT, durable: 0, node, boot, asked, event };
        Self { sign: nothing.clone(), other: nothing }
    }
}

impl Reader {
    /// What [`Record::parse`] would give for a line, without its LF.
    pub fn read(&mut self, line: &str) -> Result<&Record, RecordError> {
        if sign::read(line, &mut self.sign).is_some() {
            return Ok(&self.sign);
        }
        let record = Record::parse(line.as_bytes())?;
        let place = if matches!(record.event, Event::Sign(_)) { &mut self.sign } else { &mut self.other };
        *place = record;
        Ok(place)
    }
}

#[cfg(test)]
mod tests;
