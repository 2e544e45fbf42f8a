//! Files of an audit device of Vault or OpenBao, in JSON.
//!
//! In scope: one entry a line, a request and its response under one `request.id`; signatures of the transit engine. Out of scope: devices in
//! XML, sockets and syslog. Nothing that the device hashes is ever looked at. The forms are those of Vault's documentation, "Audit log entry
//! schema", and of the transit engine's API, `POST /transit/sign/:name(/:hash_algorithm)`.

use std::io::{self, BufRead, Read as _};

use memchr::memmem;
use serde::Deserialize;

use super::loose::{Object, Present, Text};
use super::{Entry, Key, Read, Signature, What, caller, invalid};
use crate::names::KeyName;
use crate::time::Timestamp;

/// Most bytes of a line: Vault takes no request of more than 32 MiB, and hashes texts to some 80 bytes each.
pub const MAX_LINE: usize = 32 << 20;

/// How an entry begins: of older Vaults and of OpenBao with the first, of newer ones, which sort their members, with the others.
const BEGINNINGS: [&[u8]; 3] = [b"{\"time\":", b"{\"auth\":", b"{\"request\":"];

/// Reads one file and calls `each` with every entry.
///
/// # Errors
///
/// It could not be read, none of its lines is an entry, or one has more than [`MAX_LINE`] bytes.
pub fn read(reader: &mut dyn BufRead, each: &mut dyn FnMut(Entry)) -> io::Result<Read> {
    let (mut line, mut entries, mut torn) = (Vec::new(), 0_u64, 0_u64);
    for number in 1.. {
        line.clear();
        if reader.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() > MAX_LINE {
            return Err(invalid(format!("line {number} has more than {MAX_LINE} bytes; an audit device writes no such line")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (entry, whole) = parse(&line);
        torn += u64::from(!whole);
        if let Some((time, what)) = entry {
            entries += 1;
            each(Entry { number, time, scope: String::new(), what });
        }
    }
    if entries == 0 && torn > 0 {
        return Err(invalid(
            "no line of the file is an entry of an audit device in JSON; give the file of a `file` device with format=json",
        ));
    }
    Ok(Read { torn, is_digest: false })
}

/// The entry, and whether the line is one and nothing else. A write that was cut short is joined by the entry after it, which is whole.
fn parse(line: &[u8]) -> (Option<(Timestamp, What)>, bool) {
    // The device may be told to begin each line with a text of the operator's.
    let begin = memchr::memchr(b'{', line).unwrap_or(line.len());
    if let Some(entry) = entry(&line[begin..]) {
        return (Some(entry), true);
    }
    let mut later = BEGINNINGS.iter().filter_map(|beginning| memmem::rfind(line, beginning)).filter(|later| *later > begin);
    (later.find_map(|later| entry(&line[later..])), false)
}

fn entry(bytes: &[u8]) -> Option<(Timestamp, What)> {
    let Object(line): Object<Line> = serde_json::from_slice(bytes).ok()?;
    let time = Timestamp::from_rfc3339(&line.time.0)?;
    match line.kind.0.as_str() {
        "request" => Some((time, What::Other)),
        "response" => Some((time, line.what())),
        _ => None,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    time: Text,
    #[serde(rename = "type")]
    kind: Text,
    error: Text,
    auth: Object<Auth>,
    request: Object<Request>,
    response: Object<Response>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    display_name: Text,
    metadata: Object<Metadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    role_name: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    id: Text,
    path: Text,
    mount_type: Text,
    namespace: Object<Namespace>,
    remote_address: Text,
    data: Object<Asked>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace {
    path: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    batch_input: Present,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response {
    data: Object<Answered>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answered {
    batch_results: Present,
    error: Present,
    signature: Present,
}

impl Line {
    fn what(self) -> What {
        let Line { error, auth: Object(auth), request: Object(request), response: Object(Response { data: Object(answered) }), .. } = self;
        let Some(key) = key(&request) else { return What::Other };
        let several = request.data.0.batch_input.0 || answered.batch_results.0;
        // Some refusals of the engine stand in the data alone.
        let refused = !error.0.is_empty() || answered.error.0 && !answered.signature.0 && !several;
        if refused {
            return What::Refused;
        }
        let role = auth.metadata.0.role_name.0;
        let who = if role.is_empty() { auth.display_name.0 } else { format!("{} role {role}", auth.display_name.0) };
        What::Signature(Signature { request: request.id.0, key, caller: caller(&who, &request.remote_address.0), several })
    }
}

/// The transit key that `<mount>/sign/<name>` or `<mount>/sign/<name>/<hash>` names, if its name is one that Claviger gives.
fn key(request: &Request) -> Option<Key> {
    let is_transit = matches!(request.mount_type.0.as_str(), "" | "transit");
    let path: Vec<&str> = request.path.0.trim_matches('/').split('/').collect();
    let at = [2, 3].into_iter().filter_map(|from_end| path.len().checked_sub(from_end));
    let mut signs = at.filter(|at| *at > 0 && path[*at] == "sign" && path[at + 1].parse::<KeyName>().is_ok());
    let at = signs.next().filter(|_| is_transit)?;
    let mount = format!("{}{}", request.namespace.0.path.0, path[..at].join("/"));
    Some(Key::Vault { mount, name: path[at + 1].to_owned() })
}
