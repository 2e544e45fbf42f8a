//! Reading a trust file line by line.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, Log, MAX_ENTRIES, MAX_POLICY, Member, Policy, PolicyError, PolicyErrorKind as Kind, Witness};
use crate::note::{SignatureType, VerifierKey};

const LOG: &str = "log <verifier key> [<url>]";
const WITNESS: &str = "witness <name> <verifier key> [<url>]";
const GROUP: &str = "group <name> <number>|all|any <member>...";
const QUORUM: &str = "quorum <name>|none";

pub(super) fn policy(bytes: &[u8]) -> Result<Policy, PolicyError> {
    if bytes.len() > MAX_POLICY {
        return Err(PolicyError { line: 1, kind: Kind::TooLong(bytes.len()) });
    }
    let mut reader = Reader::default();
    let mut last = 0;
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        last = index + 1;
        reader.line(last, line).map_err(|kind| PolicyError { line: last, kind })?;
    }
    reader.finish().map_err(|kind| PolicyError { line: last + 1, kind })
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    /// The quorum and its line.
    quorum: Option<(Option<Member>, usize)>,
    /// The one name space of witnesses and groups.
    names: BTreeMap<String, Member>,
    /// Names that are members of a group already.
    members: BTreeSet<String>,
    /// Public keys and their lines; a key may be a log's and a witness's, but not two of a kind.
    log_keys: BTreeMap<Vec<u8>, usize>,
    witness_keys: BTreeMap<Vec<u8>, usize>,
}

impl Reader {
    fn line(&mut self, number: usize, bytes: &[u8]) -> Result<(), Kind> {
        let text = str::from_utf8(bytes).map_err(|_| Kind::NotUtf8)?;
        let text = text.strip_suffix('\n').ok_or(Kind::NoLineFeed)?;
        // DEL is not among the octets that the specification allows either.
        if let Some(control) = text.chars().find(|c| c.is_ascii_control() && *c != '\t') {
            return Err(Kind::ControlCharacter(control.into()));
        }
        let words: Vec<&str> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", rest @ ..] => self.log(number, rest),
            ["witness", rest @ ..] => self.witness(number, rest),
            ["group", rest @ ..] => self.group(rest),
            ["quorum", rest @ ..] => self.quorum(number, rest),
            [other, ..] => Err(Kind::Keyword((*other).to_owned())),
        }
    }

    fn log(&mut self, number: usize, words: &[&str]) -> Result<(), Kind> {
        let (key, url) = match words {
            [key] => (key, None),
            [key, url] => (key, Some((*url).to_owned())),
            _ => return Err(Kind::Usage(LOG)),
        };
        let key: VerifierKey = key.parse()?;
        if key.signature_type() == SignatureType::CosignatureEd25519 {
            return Err(Kind::NotALogKey);
        }
        once(&mut self.log_keys, &key, number)?;
        push(&mut self.logs, Log { key, url }).map(drop)
    }

    fn witness(&mut self, number: usize, words: &[&str]) -> Result<(), Kind> {
        let (name, key, url) = match words {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some((*url).to_owned())),
            _ => return Err(Kind::Usage(WITNESS)),
        };
        let name = self.new_name(name)?;
        let key: VerifierKey = key.parse()?;
        if key.signature_type() != SignatureType::CosignatureEd25519 {
            return Err(Kind::NotAWitnessKey);
        }
        once(&mut self.witness_keys, &key, number)?;
        let index = push(&mut self.witnesses, Witness { name: name.clone(), key, url })?;
        self.names.insert(name, Member::Witness(index));
        Ok(())
    }

    fn group(&mut self, words: &[&str]) -> Result<(), Kind> {
        let [name, threshold, members @ ..] = words else { return Err(Kind::Usage(GROUP)) };
        if members.is_empty() {
            return Err(Kind::Usage(GROUP));
        }
        let name = self.new_name(name)?;
        let threshold = parse_threshold(threshold, members.len()).ok_or_else(|| Kind::Threshold((*threshold).to_owned()))?;
        let members = members.iter().map(|member| self.join(member)).collect::<Result<_, _>>()?;
        let index = push(&mut self.groups, Group { name: name.clone(), threshold, members })?;
        self.names.insert(name, Member::Group(index));
        Ok(())
    }

    fn quorum(&mut self, number: usize, words: &[&str]) -> Result<(), Kind> {
        let [name] = words else { return Err(Kind::Usage(QUORUM)) };
        if let Some((_, line)) = self.quorum {
            return Err(Kind::SecondQuorum(line));
        }
        let member = if *name == "none" { None } else { Some(self.named(name)?) };
        self.quorum = Some((member, number));
        Ok(())
    }

    fn finish(self) -> Result<Policy, Kind> {
        let (quorum, _) = self.quorum.ok_or(Kind::NoQuorum)?;
        Ok(Policy { logs: self.logs, witnesses: self.witnesses, groups: self.groups, quorum })
    }

    fn new_name(&self, name: &str) -> Result<String, Kind> {
        match name {
            "none" => Err(Kind::ReservedName),
            _ if self.names.contains_key(name) => Err(Kind::DuplicateName(name.to_owned())),
            _ => Ok(name.to_owned()),
        }
    }

    fn named(&self, name: &str) -> Result<Member, Kind> {
        self.names.get(name).copied().ok_or_else(|| Kind::UnknownName(name.to_owned()))
    }

    /// Makes `name` a member of the group of this line.
    fn join(&mut self, name: &str) -> Result<Member, Kind> {
        if name == "none" {
            return Err(Kind::ReservedName);
        }
        let member = self.named(name)?;
        if self.members.insert(name.to_owned()) { Ok(member) } else { Err(Kind::SecondMembership(name.to_owned())) }
    }
}

fn once(keys: &mut BTreeMap<Vec<u8>, usize>, key: &VerifierKey, number: usize) -> Result<(), Kind> {
    match keys.insert(key.public_key(), number) {
        Some(line) => Err(Kind::DuplicateKey(line)),
        None => Ok(()),
    }
}

fn push<T>(list: &mut Vec<T>, entry: T) -> Result<usize, Kind> {
    if list.len() == MAX_ENTRIES {
        return Err(Kind::TooMany);
    }
    list.push(entry);
    Ok(list.len() - 1)
}

fn parse_threshold(text: &str, members: usize) -> Option<usize> {
    match text {
        "all" => Some(members),
        "any" => Some(1),
        _ if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) => None,
        _ => text.parse().ok().filter(|k| *k <= members),
    }
}
