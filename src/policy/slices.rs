//! An index over policies, so that a decision evaluates only the few whose scope can match.
//!
//! In scope: reading a policy's scope, and looking up by action, keyring and named principal. Out of scope: conditions. A scope that is not
//! a plain name (`principal is Caller`, `resource in ...`) goes to a slice that every question sees: an index may hold too much, never too little.

use std::collections::{BTreeSet, HashMap};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use super::request::Resource;
use super::vocabulary::Action;

/// What a policy's scope says about the questions that it can match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) actions: BTreeSet<Action>,
    /// The one caller that it names; none: any caller.
    pub(super) principal: Option<String>,
    pub(super) resource: ResourceScope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResourceScope {
    Any,
    AnyKeyring,
    Keyring(String),
    Installation,
}

impl Scope {
    pub(super) fn of(policy: &Policy) -> Self {
        let principal = match policy.principal_constraint() {
            PrincipalConstraint::Eq(uid) => Some(eid(&uid)),
            _ => None,
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Eq(uid) if type_name(&uid) == "Keyring" => ResourceScope::Keyring(eid(&uid)),
            ResourceConstraint::Eq(uid) if type_name(&uid) == "Installation" => ResourceScope::Installation,
            ResourceConstraint::Is(kind) if kind.to_string() == "Keyring" => ResourceScope::AnyKeyring,
            ResourceConstraint::Is(kind) if kind.to_string() == "Installation" => ResourceScope::Installation,
            _ => ResourceScope::Any,
        };
        Self { actions: actions(&policy.action_constraint()), principal, resource }
    }

    /// Whether the scope can match a question about this keyring. A policy whose every action is asked of the installation cannot.
    pub(super) fn can_match_keyring(&self, name: &str) -> bool {
        let resource = match &self.resource {
            ResourceScope::Any | ResourceScope::AnyKeyring => true,
            ResourceScope::Keyring(named) => named == name,
            ResourceScope::Installation => false,
        };
        resource && self.actions.iter().any(|action| action.concerns_keyring())
    }
}

fn actions(constraint: &ActionConstraint) -> BTreeSet<Action> {
    let named = |uid: &EntityUid| eid(uid).parse().ok();
    let found: Option<BTreeSet<Action>> = match constraint {
        ActionConstraint::Any => None,
        ActionConstraint::Eq(uid) => named(uid).map(|action| [action].into()),
        ActionConstraint::In(uids) => uids.iter().map(named).collect(),
    };
    found.unwrap_or_else(|| Action::ALL.into())
}

fn eid(uid: &EntityUid) -> String {
    uid.id().unescaped().to_owned()
}

fn type_name(uid: &EntityUid) -> String {
    uid.type_name().to_string()
}

/// Policies by action, then by named keyring, then by named principal.
#[derive(Debug, Default)]
pub(super) struct Slices {
    actions: HashMap<Action, ByResource>,
}

#[derive(Debug, Default)]
struct ByResource {
    general: ByPrincipal,
    keyrings: HashMap<String, ByPrincipal>,
}

#[derive(Debug, Default)]
struct ByPrincipal {
    general: PolicySet,
    named: HashMap<String, PolicySet>,
}

impl Slices {
    /// Adds a policy, whose Cedar id must be its own.
    pub(super) fn add(&mut self, policy: &Policy, scope: &Scope) {
        for &action in &scope.actions {
            let by_resource = self.actions.entry(action).or_default();
            let by_principal = match &scope.resource {
                ResourceScope::Keyring(name) => by_resource.keyrings.entry(name.clone()).or_default(),
                _ => &mut by_resource.general,
            };
            let set = match &scope.principal {
                Some(id) => by_principal.named.entry(id.clone()).or_default(),
                None => &mut by_principal.general,
            };
            set.add(policy.clone()).expect("each policy is static and has an id of its own");
        }
    }

    /// The policies that can match, in at most four sets that share none.
    pub(super) fn matching<'a>(&'a self, action: Action, resource: Resource<'_>, caller: &str) -> impl Iterator<Item = &'a PolicySet> {
        let by_resource = self.actions.get(&action);
        let general = by_resource.map(|slices| &slices.general);
        let keyring = match resource {
            Resource::Keyring(name) => by_resource.and_then(|slices| slices.keyrings.get(name)),
            Resource::Installation => None,
        };
        [general, keyring]
            .into_iter()
            .flatten()
            .flat_map(move |slices| [Some(&slices.general), slices.named.get(caller)])
            .flatten()
            .filter(|set| !set.is_empty())
    }
}
