//! The answer: may this caller do this? Denied unless a permit says yes, no forbid says no, and no policy failed.
//!
//! In scope: [`PolicySet`]: decide, explain, list. Out of scope: what the answer costs the caller (status codes), records and alarms.

use std::collections::HashMap;

use cedar_policy::{Authorizer, Context, Effect, Entities, Entity, EntityUid, PolicySet as CedarSet, Request};

use super::load::{Entry, Loaded, PolicyErrors, index_of, load};
use super::reads::Reads;
use super::request::{BadRequest, DecisionRequest, Resource, context};
use super::slices::Slices;
use super::vocabulary::{Action, KeyringFacts, Vocabulary, action_uid, installation_uid};
use super::{Caller, reach};

/// Policies, checked and indexed. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct PolicySet {
    pub(super) entries: Vec<Entry>,
    pub(super) warnings: Vec<(usize, String)>,
    pub(super) keyrings: HashMap<String, Keyring>,
    slices: Slices,
    reach: Slices,
    reads: Reads,
    content_hash: [u8; 32],
    action_uids: HashMap<Action, EntityUid>,
    installation: EntityUid,
    authorizer: Authorizer,
}

/// A keyring with its Cedar entity, built once.
#[derive(Debug)]
pub(super) struct Keyring {
    pub(super) facts: KeyringFacts,
    entity: Entity,
    uid: EntityUid,
}

/// Why a question was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No permit matched, or a forbid did.
    Denied,
    /// A policy could not be evaluated, or the question could not be put. Cedar skips a failing policy, a forbid too; Claviger denies.
    PolicyError,
}

impl Refusal {
    /// The stable code: `denied` or `policy_error`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::PolicyError => "policy_error",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The one thing to act on: none is "allowed".
    pub refusal: Option<Refusal>,
    /// The policies that decided, by `@id` or `file:line`, in the order of the files: the permits if allowed, else the forbids that matched.
    pub determining: Vec<String>,
    /// What failed. Not empty if and only if the refusal is [`Refusal::PolicyError`]. For the operator, never for the caller.
    pub errors: Vec<String>,
}

impl Decision {
    /// Whether the caller may go on.
    pub fn allowed(&self) -> bool {
        self.refusal.is_none()
    }

    /// The stable code of the refusal, if there is one.
    pub fn code(&self) -> Option<&'static str> {
        self.refusal.map(Refusal::code)
    }

    fn error(message: String) -> Self {
        Self { refusal: Some(Refusal::PolicyError), determining: vec![], errors: vec![message] }
    }
}

/// What one policy said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Scope and conditions hold.
    Matched,
    /// They do not.
    NotMatched,
    /// It could not be evaluated.
    Failed(String),
}

/// A policy as listed: the text as written, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPolicy {
    /// Its `@id`, or `file:line`.
    pub id: String,
    /// The file.
    pub file: String,
    /// The line of its first word, from 1.
    pub line: usize,
    /// Whether it forbids; else it permits.
    pub forbids: bool,
    /// As written.
    pub text: String,
}

/// A policy that a decision looked at, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The policy.
    pub policy: ListedPolicy,
    /// What it said.
    pub outcome: Outcome,
}

/// A decision with every policy that it looked at. Policies whose scope names another action, keyring or caller are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// In the order of the files.
    pub considered: Vec<Considered>,
}

impl PolicySet {
    /// Parses, validates and indexes policy files, each a name and a text. No files are a valid set, which denies everything.
    ///
    /// Fails with every problem found: syntax, an unknown or misspelt attribute, a wrong type, an `@id` used twice, a collision in the
    /// vocabulary. All or nothing.
    pub fn load(files: &[(String, String)], vocabulary: &Vocabulary) -> Result<Self, PolicyErrors> {
        let Loaded { entries, warnings, content_hash } = load(files, vocabulary)?;
        let mut slices = Slices::default();
        for entry in &entries {
            slices.add(&entry.policy, &entry.scope);
        }
        let keyrings = vocabulary.keyrings.iter().map(|facts| {
            let entity = facts.entity();
            (facts.name.clone(), Keyring { facts: facts.clone(), uid: entity.uid(), entity })
        });
        Ok(Self {
            keyrings: keyrings.collect(),
            reach: reach::reach(&entries),
            reads: Reads::of(&entries),
            slices,
            entries,
            warnings,
            content_hash,
            action_uids: Action::ALL.into_iter().map(|action| (action, action_uid(action))).collect(),
            installation: installation_uid(),
            authorizer: Authorizer::new(),
        })
    }

    /// Decides. Denies what no permit allows, what a forbid matches, any keyring that the vocabulary does not hold, and, with
    /// [`Refusal::PolicyError`], whenever a policy failed, whatever the others say.
    pub fn decide(&self, request: &DecisionRequest<'_>) -> Decision {
        let Some(subject) = self.subject(request.resource) else { return self.denied(vec![]) };
        let prepared = match self.prepare(request, &subject) {
            Ok(prepared) => prepared,
            Err(error) => return Decision::error(error.to_string()),
        };
        let mut answers = Answers::default();
        for set in self.slices.matching(request.action, request.resource, request.caller.id()) {
            answers.add(&self.authorizer, &prepared, set);
        }
        self.conclude(answers)
    }

    /// Decides, and says what each policy that was looked at said.
    pub fn explain(&self, request: &DecisionRequest<'_>) -> Explanation {
        let decision = self.decide(request);
        let prepared = self.subject(request.resource).and_then(|subject| self.prepare(request, &subject).ok());
        let mut indices: Vec<usize> = self
            .slices
            .matching(request.action, request.resource, request.caller.id())
            .flat_map(CedarSet::policies)
            .map(|policy| index_of(policy.id()))
            .collect();
        indices.sort_unstable();
        let considered = prepared.iter().flat_map(|prepared| indices.iter().map(|&index| self.consider(index, prepared))).collect();
        Explanation { decision, considered }
    }

    /// The permits and forbids whose scope can match this keyring, as written, in the order of the files.
    pub fn list(&self, keyring: &str) -> Vec<ListedPolicy> {
        self.entries.iter().filter(|entry| entry.scope.can_match_keyring(keyring)).map(listed).collect()
    }

    /// Whether some permit could be meant for this caller: it matches if what it says about the context is left aside. Forbids do not count.
    ///
    /// The difference between "your claims are wrong" and "you have no business here", and whether a caller may learn that a keyring does not
    /// exist. For a keyring that the vocabulary does not hold, only permits count that can be judged without knowing it.
    pub fn could_permit(&self, caller: &Caller, action: Action, resource: Resource<'_>) -> bool {
        let known = self.subject(resource);
        let uid = match (&known, resource) {
            (Some(subject), _) => subject.uid.clone(),
            (None, Resource::Keyring(name)) => super::vocabulary::keyring_uid(name),
            (None, Resource::Installation) => self.installation.clone(),
        };
        let subject = Subject { keyring: known.as_ref().and_then(|subject| subject.keyring), uid };
        let Ok(prepared) = self.prepare_with(caller, action, &subject, Context::empty()) else { return false };
        let mut answers = Answers::default();
        for set in self.reach.matching(action, resource, caller.id()) {
            answers.add(&self.authorizer, &prepared, set);
        }
        !answers.permits.is_empty() || (known.is_some() && !answers.errors.is_empty())
    }

    /// SHA-256 of the policy files (names and texts, sorted by name): what a record of the reload holds.
    pub fn content_hash(&self) -> [u8; 32] {
        self.content_hash
    }

    /// How many policies the set holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the set holds no policy, and so denies everything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn subject(&self, resource: Resource<'_>) -> Option<Subject<'_>> {
        match resource {
            Resource::Installation => Some(Subject { keyring: None, uid: self.installation.clone() }),
            Resource::Keyring(name) => self.keyrings.get(name).map(|keyring| Subject { keyring: Some(keyring), uid: keyring.uid.clone() }),
        }
    }

    fn prepare(&self, request: &DecisionRequest<'_>, subject: &Subject<'_>) -> Result<Prepared, BadRequest> {
        let context = context(request, subject.keyring.map(|keyring| &keyring.facts), &self.reads)?;
        self.prepare_with(request.caller, request.action, subject, context)
    }

    /// Types are right by construction: context, caller and keyring are built to fit the schema, so nothing is validated again.
    fn prepare_with(&self, caller: &Caller, action: Action, subject: &Subject<'_>, context: Context) -> Result<Prepared, BadRequest> {
        let failed = |error: &dyn std::fmt::Display| BadRequest::Context(error.to_string());
        let entities = [Some(caller.entity().clone()), subject.keyring.map(|keyring| keyring.entity.clone())];
        let entities = Entities::from_entities(entities.into_iter().flatten(), None).map_err(|error| failed(&error))?;
        let action = self.action_uids[&action].clone();
        let request = Request::new(caller.entity().uid(), action, subject.uid.clone(), context, None).map_err(|error| failed(&error))?;
        Ok(Prepared { request, entities })
    }

    fn consider(&self, index: usize, prepared: &Prepared) -> Considered {
        let entry = &self.entries[index];
        let alone = CedarSet::from_policies([entry.policy.clone()]).expect("one static policy is a set");
        let mut answers = Answers::default();
        answers.add(&self.authorizer, prepared, &alone);
        let outcome = match answers.errors.pop() {
            Some((_, error)) => Outcome::Failed(error),
            None if answers.permits.is_empty() && answers.forbids.is_empty() => Outcome::NotMatched,
            None => Outcome::Matched,
        };
        Considered { policy: listed(entry), outcome }
    }

    fn conclude(&self, answers: Answers) -> Decision {
        let Answers { permits, forbids, mut errors } = answers;
        if !errors.is_empty() {
            errors.sort();
            let errors = errors.into_iter().map(|(index, error)| format!("{}: {error}", self.entries[index].label)).collect();
            return Decision { refusal: Some(Refusal::PolicyError), determining: self.labels(forbids), errors };
        }
        if forbids.is_empty() && !permits.is_empty() {
            return Decision { refusal: None, determining: self.labels(permits), errors: vec![] };
        }
        self.denied(forbids)
    }

    fn denied(&self, forbids: Vec<usize>) -> Decision {
        Decision { refusal: Some(Refusal::Denied), determining: self.labels(forbids), errors: vec![] }
    }

    fn labels(&self, mut indices: Vec<usize>) -> Vec<String> {
        indices.sort_unstable();
        indices.into_iter().map(|index| self.entries[index].label.clone()).collect()
    }
}

pub(super) fn listed(entry: &Entry) -> ListedPolicy {
    ListedPolicy {
        id: entry.label.clone(),
        file: entry.file.clone(),
        line: entry.line,
        forbids: entry.effect == Effect::Forbid,
        text: entry.text.clone(),
    }
}

struct Subject<'a> {
    keyring: Option<&'a Keyring>,
    uid: EntityUid,
}

struct Prepared {
    request: Request,
    entities: Entities,
}

/// What the slices said, put together: policies do not know of each other, so the answer of the whole follows from the parts.
#[derive(Default)]
struct Answers {
    permits: Vec<usize>,
    forbids: Vec<usize>,
    errors: Vec<(usize, String)>,
}

impl Answers {
    fn add(&mut self, authorizer: &Authorizer, prepared: &Prepared, set: &CedarSet) {
        let response = authorizer.is_authorized(&prepared.request, set, &prepared.entities);
        // Cedar gives the permits as reasons when it allows, else the forbids that matched.
        let reasons = response.diagnostics().reason().map(index_of);
        match response.decision() {
            cedar_policy::Decision::Allow => self.permits.extend(reasons),
            cedar_policy::Decision::Deny => self.forbids.extend(reasons),
        }
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            self.errors.push((index_of(error.policy_id()), error.inner().to_string()));
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
