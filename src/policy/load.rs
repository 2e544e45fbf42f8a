//! From policy text to policies: parse, validate strictly against the schema, name each policy, and report every problem with file and line.
//!
//! In scope: what makes a policy file unacceptable. Out of scope: reading files, deciding, and policies that are valid but odd (`lint`).

use std::collections::{HashMap, HashSet};
use std::fmt;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use sha2::{Digest, Sha256};

use super::slices::Scope;
use super::vocabulary::{BadVocabulary, Vocabulary};

/// Largest policy file in bytes, and most policies of one set: a decision's cost and a reload's pause are bounded by them.
pub(super) const LARGEST_FILE: usize = 1 << 20;
/// Most policies of one set.
pub(super) const MOST_POLICIES: usize = 10_000;
/// Most problems in one report; more would only hide the first.
const MOST_PROBLEMS: usize = 100;
/// Longest `@id` in bytes: it stands in every record that the policy decides.
const LONGEST_LABEL: usize = 64;
/// Policies may read attributes of the principal and the resource, but not of other entities: a decision knows no others.
const DEREFERENCE_DEPTH: u32 = 1;

/// One reason why the policies were not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file; none if the vocabulary is at fault.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: {}", self.message),
            (Some(file), None) => write!(f, "{file}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

/// Why the policies were not loaded: every problem that was found, at most 100. The policies in force stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<Problem>);

impl std::error::Error for PolicyErrors {}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl From<BadVocabulary> for PolicyErrors {
    fn from(error: BadVocabulary) -> Self {
        Self(vec![Problem { file: None, line: None, message: error.to_string() }])
    }
}

/// A policy with its name and its place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The `@id`, or `file:line`.
    pub(super) label: String,
    pub(super) file: String,
    pub(super) line: usize,
    /// As written, annotations included.
    pub(super) text: String,
    pub(super) scope: Scope,
    pub(super) effect: Effect,
    /// Its Cedar id is its index, so that answers can be looked up and ordered.
    pub(super) policy: Policy,
}

/// Everything that loading found out.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) entries: Vec<Entry>,
    /// Cedar's warnings: the index of the policy, and the sentence.
    pub(super) warnings: Vec<(usize, String)>,
    pub(super) content_hash: [u8; 32],
}

pub(super) fn load(files: &[(String, String)], vocabulary: &Vocabulary) -> Result<Loaded, PolicyErrors> {
    let schema = vocabulary.schema()?;
    let mut files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.sort_unstable();
    let mut problems = Vec::new();
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for &(file, text) in &files {
        if names.insert(file) {
            parse_file(file, text, &mut entries, &mut problems);
        } else {
            problems.push(Problem { file: Some(file.into()), line: None, message: "this file was given twice".into() });
        }
    }
    if entries.len() > MOST_POLICIES {
        problems.push(Problem {
            file: None,
            line: None,
            message: format!("{} policies; at most {MOST_POLICIES} are allowed", entries.len()),
        });
    } else {
        check_labels(&entries, &mut problems);
    }
    // A set with parse errors is not validated: half a set would bring follow-up errors that are none.
    let warnings = if problems.is_empty() { validate(&entries, schema, &files, &mut problems) } else { vec![] };
    if problems.is_empty() {
        Ok(Loaded { entries, warnings, content_hash: content_hash(&files) })
    } else {
        problems.truncate(MOST_PROBLEMS);
        Err(PolicyErrors(problems))
    }
}

fn parse_file(file: &str, text: &str, entries: &mut Vec<Entry>, problems: &mut Vec<Problem>) {
    let mut problem = |line, message| problems.push(Problem { file: Some(file.into()), line, message });
    if text.len() > LARGEST_FILE {
        return problem(None, format!("{} bytes; a policy file has at most {LARGEST_FILE}", text.len()));
    }
    let set: PolicySet = match text.parse() {
        Ok(set) => set,
        Err(errors) => {
            let errors: cedar_policy::ParseErrors = errors;
            errors.iter().for_each(|error| problem(first_line(error, text), error.to_string()));
            return;
        }
    };
    for template in set.templates() {
        let offset = template.as_ref().loc().map(|loc| loc.span.offset());
        problem(
            offset.map(|at| line_of(text, at)),
            "templates (?principal, ?resource) are not supported: write one policy for each".into(),
        );
    }
    let mut policies: Vec<(usize, usize, &Policy)> = set
        .policies()
        .map(|policy| policy.as_ref().loc().map_or((0, text.len(), policy), |loc| (loc.span.offset(), loc.span.len(), policy)))
        .collect();
    policies.sort_unstable_by_key(|&(start, ..)| start);
    for (start, length, policy) in policies {
        let line = line_of(text, start);
        let label = policy.annotation("id").map_or_else(|| format!("{file}:{line}"), str::to_owned);
        let policy = policy.new_id(PolicyId::new(entries.len().to_string()));
        let text = text.get(start..start.saturating_add(length)).unwrap_or(text).to_owned();
        entries.push(Entry { label, file: file.into(), line, text, scope: Scope::of(&policy), effect: policy.effect(), policy });
    }
}

/// A label stands for one policy in records and tests, so it must be unique and plain.
fn check_labels(entries: &[Entry], problems: &mut Vec<Problem>) {
    let mut seen: HashMap<&str, &Entry> = HashMap::new();
    for entry in entries {
        let mut problem = |message| problems.push(Problem { file: Some(entry.file.clone()), line: Some(entry.line), message });
        if let Some(id) = entry.policy.annotation("id") {
            let plain = (1..=LONGEST_LABEL).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !plain {
                problem(format!("@id({id:?}) is not 1 to {LONGEST_LABEL} letters, digits, dots, dashes and underscores"));
            }
        }
        if let Some(first) = seen.insert(&entry.label, entry) {
            problem(format!("@id({:?}) names the policy at {}:{} already", entry.label, first.file, first.line));
        }
    }
}

fn validate(entries: &[Entry], schema: Schema, files: &[(&str, &str)], problems: &mut Vec<Problem>) -> Vec<(usize, String)> {
    let set = PolicySet::from_policies(entries.iter().map(|entry| entry.policy.clone())).expect("each policy has an id of its own");
    let result = Validator::new(schema).validate_with_level(&set, ValidationMode::Strict, DEREFERENCE_DEPTH);
    for error in result.validation_errors() {
        let entry = &entries[index_of(error.policy_id())];
        let text = files.iter().find(|(name, _)| *name == entry.file).map_or("", |(_, text)| text);
        let line = first_line(error, text).unwrap_or(entry.line);
        problems.push(Problem { file: Some(entry.file.clone()), line: Some(line), message: said(error, &entry.label) });
    }
    problems.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
    problems.dedup();
    let mut warnings: Vec<(usize, String)> = result
        .validation_warnings()
        .map(|warning| {
            let index = index_of(warning.policy_id());
            (index, said(warning, &entries[index].label))
        })
        .collect();
    warnings.sort();
    warnings
}

/// Cedar's sentence, with the policy's own name in place of its number, and Cedar's advice.
fn said(diagnostic: &(impl Diagnostic + ?Sized), label: &str) -> String {
    let sentence = diagnostic.to_string();
    let sentence = match sentence.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, rest)) => format!("policy {label}: {rest}"),
        None => sentence,
    };
    match diagnostic.help() {
        Some(help) => format!("{sentence} ({help})"),
        None => sentence,
    }
}

/// The position in the list of entries that a Cedar policy id stands for.
pub(super) fn index_of(id: &PolicyId) -> usize {
    let text: &str = id.as_ref();
    text.parse().expect("every policy was given its index as id")
}

fn first_line(diagnostic: &(impl Diagnostic + ?Sized), text: &str) -> Option<usize> {
    diagnostic.labels()?.next().map(|label| line_of(text, label.offset()))
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// SHA-256 over the sorted files, each as length and name, length and text: two sets never share a hash by shifting bytes between files.
fn content_hash(files: &[(&str, &str)]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in files.iter().flat_map(|&(name, text)| [name, text]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}
