//! Issuers: whose tokens are signed, and where their keys are served.
//!
//! In scope: addresses and routes. Out of scope: serving them.

use std::collections::BTreeMap;

use super::error::{Place, Problems};
use super::names;
use super::raw::RawIssuer;

/// The first segments of our own routes; an issuer's path begins with none of them. (`.well-known` cannot, as no segment begins with a dot.)
pub const OUR_ROUTES: [&str; 10] =
    ["admin", "console", "keyrings", "livez", "log", "metrics", "openapi.json", "readyz", "revocations", "sign"];
/// Longest path in bytes: it stands in every request line.
const LONGEST_PATH: usize = 128;

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// What stands in `iss`, byte by byte: https, or http on loopback; no query, fragment or slash at the end.
    pub url: String,
    /// The path under which its keys are served: `/` and one or more plain segments, unique.
    pub path: String,
    /// Whether it is served at `/.well-known/` too; true for one issuer at most.
    pub default: bool,
    /// Whether `openid-configuration` is served.
    pub discovery: bool,
}

/// Reads all issuers.
pub(super) fn issuers(raw: BTreeMap<String, RawIssuer>, problems: &mut Problems<'_>) -> BTreeMap<String, Issuer> {
    let mut issuers: BTreeMap<String, Issuer> = BTreeMap::new();
    for (name, raw) in raw {
        let at = Place::of("issuer").key(&name);
        let label = names::label(&name, &at, problems);
        let url = url(raw.url, &at.key("url"), problems);
        let path = path(raw.path, &at.key("path"), problems);
        let (Some(label), Some(url), Some(path)) = (label, url, path) else { continue };
        for (other, issuer) in &issuers {
            if issuer.url == url {
                problems.add(&at.key("url"), format!("issuer {other} has it too"), "give each issuer a url of its own");
            }
            if issuer.path == path {
                problems.add(&at.key("path"), format!("issuer {other} has it too"), "give each issuer a path of its own");
            }
            if issuer.default && raw.default {
                problems.add(&at.key("default"), format!("issuer {other} is the default too"), "choose one");
            }
        }
        issuers.insert(label, Issuer { url, path, default: raw.default, discovery: raw.discovery });
    }
    issuers
}

fn url(text: Option<String>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let remedy = "write what stands in iss, such as \"https://auth.example.org/t1\"";
    let text = problems.required(text, place, remedy)?;
    if let Some(defect) = names::issuer_url_defect(&text) {
        problems.add(place, format!("{text:?} {defect}"), remedy);
        return None;
    }
    Some(text)
}

fn path(text: Option<String>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let remedy = "write a slash and a name, such as \"/t1\": letters, digits and - . _ ~ alone";
    let text = problems.required(text, place, remedy)?;
    let segments: Option<Vec<&str>> = text.strip_prefix('/').map(|rest| rest.split('/').collect());
    let Some(segments) = segments.filter(|all| text.len() <= LONGEST_PATH && all.iter().all(|segment| names::is_segment(segment))) else {
        problems.add(place, format!("{text:?} is not a path"), remedy);
        return None;
    };
    if OUR_ROUTES.contains(&segments[0]) {
        problems.add(place, format!("/{} is a route of Claviger's own", segments[0]), "choose another path");
        return None;
    }
    Some(text)
}
