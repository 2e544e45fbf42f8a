//! What looks wrong in policies that are valid: keyrings that nobody can sign with, names that do not exist, policies that never match.
//!
//! In scope: findings for `policy check`. Out of scope: errors; a set with findings still loads, since a keyring may be retired before its
//! policies are.

use std::fmt;

use cedar_policy::Effect;

use super::caller::Identity;
use super::engine::PolicySet;
use super::load::Entry;
use super::vocabulary::Action;

/// The kind of a finding; its text is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// No permit for `sign` can match a keyring.
    NoSigner,
    /// A policy names a keyring that does not exist.
    UnknownKeyring,
    /// A policy names a caller by a text that no caller has.
    ImpossibleCaller,
    /// A policy names an installation other than `Installation::"self"`.
    UnknownInstallation,
    /// Cedar found that a policy never matches, or that its text may mislead a reader.
    Suspicious,
}

impl FindingKind {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoSigner => "no_signer",
            Self::UnknownKeyring => "unknown_keyring",
            Self::ImpossibleCaller => "impossible_caller",
            Self::UnknownInstallation => "unknown_installation",
            Self::Suspicious => "suspicious",
        }
    }
}

/// Something that is valid, and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File and line of the policy; none if the finding is about what is missing.
    pub place: Option<(String, usize)>,
    /// What kind it is.
    pub kind: FindingKind,
    /// The policy's `@id` or `file:line`.
    pub policy: Option<String>,
    /// What is odd, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line)) = &self.place {
            write!(f, "{file}:{line}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.kind.code())
    }
}

impl PolicySet {
    /// Everything that is valid and probably not meant: first what is missing, then by file and line.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = self.keyrings_without_signer();
        for entry in &self.entries {
            for literal in entry.policy.entity_literals() {
                findings.extend(self.odd_name(entry, &literal.type_name().to_string(), literal.id().unescaped()));
            }
        }
        for (index, warning) in &self.warnings {
            findings.push(finding(&self.entries[*index], FindingKind::Suspicious, warning.clone()));
        }
        findings.sort();
        findings.dedup();
        findings
    }

    fn keyrings_without_signer(&self) -> Vec<Finding> {
        let somebody = |entry: &Entry| entry.scope.principal.as_deref().is_none_or(|id| impossible_caller(id).is_none());
        let signs = |entry: &&Entry| entry.effect == Effect::Permit && entry.scope.actions.contains(&Action::Sign) && somebody(entry);
        let signers: Vec<&Entry> = self.entries.iter().filter(signs).collect();
        let unsigned = self.keyrings.keys().filter(|name| !signers.iter().any(|entry| entry.scope.can_match_keyring(name)));
        let message = |name: &String| format!("no permit for sign can match keyring {name}: nobody can sign with it");
        unsigned.map(|name| Finding { place: None, kind: FindingKind::NoSigner, policy: None, message: message(name) }).collect()
    }

    fn odd_name(&self, entry: &Entry, kind: &str, id: &str) -> Option<Finding> {
        let (kind, message) = match kind {
            "Keyring" if !self.keyrings.contains_key(id) => {
                (FindingKind::UnknownKeyring, format!("keyring {id:?} does not exist: correct the name, or drop the policy"))
            }
            "Caller" => (FindingKind::ImpossibleCaller, impossible_caller(id)?),
            "Installation" if id != "self" => {
                (FindingKind::UnknownInstallation, format!("Installation::{id:?} does not exist: write Installation::\"self\""))
            }
            _ => return None,
        };
        Some(finding(entry, kind, message))
    }
}

/// Why no caller can have this identity, if none can.
fn impossible_caller(id: &str) -> Option<String> {
    match id.parse::<Identity>().map(|identity| identity.to_string()) {
        Ok(canonical) if canonical == id => None,
        Ok(canonical) => Some(format!("no caller is called {id:?}: write {canonical:?}")),
        Err(error) => Some(error.to_string()),
    }
}

fn finding(entry: &Entry, kind: FindingKind, message: String) -> Finding {
    Finding { place: Some((entry.file.clone(), entry.line)), kind, policy: Some(entry.label.clone()), message }
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::{file, vocabulary};
    use super::*;

    #[test]
    fn each_oddity_is_found_once_and_placed() {
        let text = r#"
permit (principal == Caller::"spiff://example.org/a", action == Action::"sign", resource == Keyring::"access");
permit (principal == Caller::"dns:A.example", action == Action::"sign", resource == Keyring::"acess");
forbid (principal, action == Action::"readLog", resource == Installation::"other");
permit (principal, action == Action::"rotate", resource) when { resource.name == "x" && false };
"#;
        let set = PolicySet::load(&[file("a.cedar", text)], &vocabulary()).unwrap();
        let found: Vec<(FindingKind, Option<usize>)> = set.lint().into_iter().map(|f| (f.kind, f.place.map(|(_, line)| line))).collect();
        let expected = [
            (FindingKind::NoSigner, None),
            (FindingKind::ImpossibleCaller, Some(2)),
            (FindingKind::UnknownKeyring, Some(3)),
            (FindingKind::ImpossibleCaller, Some(3)),
            (FindingKind::UnknownInstallation, Some(4)),
            (FindingKind::Suspicious, Some(5)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_general_permit_gives_every_keyring_a_signer() {
        let text = r#"permit (principal, action in [Action::"sign", Action::"signBatch"], resource) when { resource.purpose == "jwt" };"#;
        assert_eq!(PolicySet::load(&[file("a.cedar", text)], &vocabulary()).unwrap().lint(), []);
    }
}
