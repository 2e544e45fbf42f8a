//! Callers: who may be asked about in a policy, and the attributes that the file gives them.
//!
//! In scope: attributes, and the hash of a bearer token. Out of scope: the forms of an identity (`policy::caller`), authenticating anybody.

use std::collections::BTreeMap;

use super::error::{Place, Problems};
use super::raw::RawAttribute;
use crate::policy::{BadCaller, CallerAttributes, Identity};

/// What the file itself understands.
const KNOWN: [&str; 2] = ["groups", "token_sha256"];

/// What to write instead of a text that is no identity.
const FORMS: &str = "write spiffe://DOMAIN/PATH, dns:NAME, unix:uid=N, oidc:ISSUER#SUB or token:NAME";

/// What the file says of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerConfig {
    /// What policies may read about it.
    pub attributes: CallerAttributes,
    /// SHA-256 of its bearer token: there for [`Identity::Token`] alone.
    pub token_sha256: Option<[u8; 32]>,
}

/// Reads all callers.
pub(super) fn callers(
    raw: BTreeMap<String, BTreeMap<String, RawAttribute>>,
    issuer_urls: &[&str],
    problems: &mut Problems<'_>,
) -> BTreeMap<Identity, CallerConfig> {
    let mut callers: BTreeMap<Identity, CallerConfig> = BTreeMap::new();
    for (text, attributes) in raw {
        let at = Place::of("caller").key(&text);
        let id = match text.parse::<Identity>() {
            Ok(id) => id,
            Err(error) => {
                refuse(&error, &at, problems);
                continue;
            }
        };
        if let Identity::Oidc { issuer, .. } = &id
            && issuer_urls.contains(&issuer.as_str())
        {
            let remedy = "take callers from another issuer: else whoever may sign could mint an operator";
            problems.add(&at, "is a caller of an issuer whose tokens are signed here", remedy);
        }
        let Some(caller) = caller(&id, attributes, &at, problems) else { continue };
        let same = |other: &&CallerConfig| caller.token_sha256.is_some() && other.token_sha256 == caller.token_sha256;
        if let Some((other, _)) = callers.iter().find(|(_, other)| same(other)) {
            problems.add(&at.key("token_sha256"), format!("is the token of {other} too"), "make a token for each caller");
        }
        // A host name has several spellings, and a caller has one.
        if callers.contains_key(&id) {
            problems.add(&at, format!("is {id}, which stands here already"), "write what is known of a caller in one section");
        }
        callers.insert(id, caller);
    }
    callers
}

fn caller(id: &Identity, raw: BTreeMap<String, RawAttribute>, at: &Place, problems: &mut Problems<'_>) -> Option<CallerConfig> {
    let (mut groups, mut attributes, mut token) = (Vec::new(), BTreeMap::new(), None);
    let misspelt = |name: &str| KNOWN.into_iter().find(|known| strsim::damerau_levenshtein(name, known) == 1);
    for (name, value) in raw {
        let place = at.key(&name);
        match (name.as_str(), value) {
            ("groups", RawAttribute::List(names)) => groups = names,
            ("groups", RawAttribute::Text(_)) => problems.add(&place, "is a list of names", "write groups = [\"NAME\"]"),
            ("token_sha256", RawAttribute::Text(hash)) => token = Some(hash),
            (_, RawAttribute::Text(_)) if let Some(known) = misspelt(&name) => {
                problems.add(&place, "is almost the name of a setting", format!("did you mean `{known}`?"));
            }
            (_, RawAttribute::Text(text)) => {
                attributes.insert(name, text);
            }
            (_, RawAttribute::List(_)) => problems.add(&place, "is a list", "write one string; only groups is a list"),
        }
    }
    if groups.iter().any(String::is_empty) {
        problems.add(&at.key("groups"), "holds an empty name", "remove it");
    }
    let attributes = CallerAttributes::new(groups, attributes).map_err(|error| refuse(&error, at, problems));
    let token_sha256 = token_hash(id, token.as_deref(), &at.key("token_sha256"), problems);
    Some(CallerConfig { attributes: attributes.ok()?, token_sha256: token_sha256.ok()? })
}

/// Says it without the text of the caller, which is in the place already.
fn refuse(error: &BadCaller, at: &Place, problems: &mut Problems<'_>) {
    match error {
        BadCaller::UnknownForm(_) => problems.add(at, "is not a caller", FORMS),
        BadCaller::Malformed { why, .. } => problems.add(at, format!("is not a caller: {why}"), FORMS),
        BadCaller::Attribute { name, why } => problems.add(&at.key(name), *why, "choose another name, or have fewer"),
    }
}

/// `Err` once the problem is told.
fn token_hash(id: &Identity, hash: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Result<Option<[u8; 32]>, ()> {
    let is_token = matches!(id, Identity::Token(_));
    let parsed = hash.map(from_hex);
    match (is_token, parsed) {
        (false, None) => return Ok(None),
        (true, Some(Some(hash))) => return Ok(Some(hash)),
        (true, None) => problems.add(place, "is missing", "write the SHA-256 of the caller's bearer token in hex"),
        // The text is not repeated: it may be the token itself.
        (true, Some(None)) => problems.add(place, "is not a SHA-256", "write 64 lower-case hex digits"),
        (false, Some(_)) => problems.add(place, "is for callers of the form token:NAME", "remove it"),
    }
    Err(())
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    <[u8; 32]>::try_from(bytes).ok().filter(|_| text.len() == 64)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}
