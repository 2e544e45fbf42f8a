//! What may be deleted: old records of use logs, and the keys of pseudonyms.
//!
//! In scope: when the records that say so are legal. Out of scope: whether what is left is what the record says; the verifier compares it
//! with the use log.

use super::Keyrings;
use super::rule::{No, Rule, need};
use crate::event::{SubjectErased, UsesPruned};

impl Keyrings {
    /// Only what the key log knows to have been there may go, and nothing goes twice.
    pub(super) fn uses_pruned(&mut self, e: &UsesPruned) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "pruning needs a reason")?;
        let known = self.uses_heads.get(&e.of).filter(|(_, head)| head.origin == e.origin).map_or(0, |(_, head)| head.size);
        need(e.first <= known, Rule::Form, format_args!("only {known} records of {} are known", e.origin))?;
        let before = self.uses_pruned.get(&e.origin).map_or(0, |pruned| pruned.first);
        need(e.first > before, Rule::Form, format_args!("{} was pruned up to record {before} already", e.origin))?;
        self.uses_pruned.insert(e.origin.clone(), e.clone());
        Ok(())
    }

    /// A key is destroyed once.
    pub(super) fn subject_erased(&mut self, e: &SubjectErased) -> Result<(), No> {
        need(!e.reason.trim().is_empty(), Rule::Form, "erasing needs a reason")?;
        let year = (e.of.clone(), e.year);
        need(!self.erased.contains(&year), Rule::Form, format_args!("the key of {} on {} was destroyed before", e.year, e.of))?;
        self.erased.insert(year);
        Ok(())
    }
}
