//! Files of an audit device of Vault or OpenBao, in JSON.
//!
//! In scope: one entry a line, a request and its response under one `request.id`; signatures of the transit engine, and requests after which
//! the device no longer shows all that is done with a key. Out of scope: devices in XML, sockets and syslog. Nothing that the device hashes is
//! ever looked at. The forms are those of Vault's documentation, "Audit log entry schema", and of the transit engine's API:
//! `POST /transit/sign/:name(/:hash_algorithm)`, `export`, `backup`, `byok-export`, and `config`, `csr` and `rotate` of `keys/:name`.

use std::io::{self, BufRead, Read as _};

use memchr::memmem;
use serde::Deserialize;

use super::loose::{Object, Present, Text, Yes};
use super::{Entry, Exposed, Key, Read, Signature, What, caller, invalid};
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
    exportable: Yes,
    allow_plaintext_backup: Yes,
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

/// What was asked of a key.
#[derive(Clone, Copy)]
enum Asks {
    Sign,
    Export,
    Backup,
    Configure,
    Certify,
    Rotate,
}

impl Line {
    fn what(self) -> What {
        let Line { error, auth: Object(auth), request: Object(request), response: Object(Response { data: Object(answered) }), .. } = self;
        let Some((asks, key)) = asked(&request) else { return What::Other };
        let role = auth.metadata.0.role_name.0;
        let who = if role.is_empty() { auth.display_name.0 } else { format!("{} role {role}", auth.display_name.0) };
        let caller = caller(&who, &request.remote_address.0);
        let (Object(asked), request) = (request.data, request.id.0);
        let what = match asks {
            Asks::Sign => {
                let several = asked.batch_input.0 || answered.batch_results.0;
                // Some refusals of the engine stand in the data alone.
                let refused = !error.0.is_empty() || answered.error.0 && !answered.signature.0 && !several;
                return if refused { What::Refused } else { What::Signature(Signature { request, key, caller, several }) };
            }
            _ if !error.0.is_empty() => return What::Other,
            Asks::Export => "the private key was exported: no record of the keystore shows what is signed with the copy",
            Asks::Backup => "the private key left in a backup: no record of the keystore shows what is signed with the copy",
            // A text is hashed, so one that means no is taken for one that means yes. Claviger itself sends `deletion_allowed` alone.
            Asks::Configure if asked.exportable.0 => "the key was made exportable, or that was asked for",
            Asks::Configure if asked.allow_plaintext_backup.0 => "plaintext backups of the key were allowed, or that was asked for",
            Asks::Configure => return What::Other,
            Asks::Certify => "the key signed a request for a certificate, which Claviger never asks for",
            Asks::Rotate => "the key got a new version, which Claviger never asks for",
        };
        What::Exposed(Exposed { request, key, caller, what })
    }
}

/// What the path asks of which transit key, if its name is one that Claviger gives. A mount may have slashes in its name.
fn asked(request: &Request) -> Option<(Asks, Key)> {
    if !matches!(request.mount_type.0.as_str(), "" | "transit") {
        return None;
    }
    let path: Vec<&str> = request.path.0.trim_matches('/').split('/').collect();
    let named = |at: usize| operation(&path[at..]).filter(|(_, name)| name.parse::<KeyName>().is_ok()).map(|found| (at, found));
    let (at, (asks, name)) = (1..path.len()).rev().find_map(named)?;
    let mount = format!("{}{}", request.namespace.0.path.0, path[..at].join("/"));
    Some((asks, Key::Vault { mount, name: name.to_owned() }))
}

/// The operation of the transit engine, and the name that it is given.
fn operation<'p>(path: &[&'p str]) -> Option<(Asks, &'p str)> {
    match path {
        ["sign", name] | ["sign", name, _] => Some((Asks::Sign, name)),
        // What is public may leave.
        ["export", "public-key" | "certificate-chain", ..] => None,
        ["export" | "byok-export", _, name] | ["export" | "byok-export", _, name, _] => Some((Asks::Export, name)),
        ["backup", name] => Some((Asks::Backup, name)),
        ["keys", name, "config"] => Some((Asks::Configure, name)),
        ["keys", name, "csr"] => Some((Asks::Certify, name)),
        ["keys", name, "rotate"] => Some((Asks::Rotate, name)),
        _ => None,
    }
}
