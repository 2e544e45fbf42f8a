//! How a key log begins: with nothing, or with the state of a log that it adopted.
//!
//! In scope: `log.created`, `log.adopted`, and what is carried over from the log before. Out of scope: reading that log, and whether its
//! root is the one that its lines make (whoever read them says so).
//!
//! Sequence numbers begin anew in the log that adopts. Of what the former log brought, nothing but the order counts any more, so it all has
//! the number 0: before every record of the new log that can be named.

use super::apply::At;
use super::rule::{No, Rule, need, no};
use super::{Former, Keyrings, Origin, State};
use crate::event::{Event, LogAdopted, LogCreated};
use crate::merkle::Hash;
use crate::names::{is_label, is_successor, unadopted};
use crate::record::Record;

impl Keyrings {
    /// The state with which the log begins that goes on where this one ended; `root` is the Merkle root over all of this one's records. Its
    /// first record must be `log.created` of a later adoption of this origin, its second `log.adopted` with this origin, size and root.
    #[must_use]
    pub fn carried_over(mut self, root: Hash) -> Self {
        self.former = self.origin.take().map(|origin| Former { origin, size: self.size, root });
        self.size = 0;
        for keyring in self.rings.values_mut() {
            for settings in &mut keyring.timings {
                settings.seq = 0;
            }
            for (seq, _, _) in keyring.keys.iter_mut().flat_map(|key| &mut key.history) {
                *seq = 0;
            }
        }
        for served in self.served.values_mut() {
            served.size = 0;
        }
        self
    }

    /// Whether the state waits for the record that names the log before it.
    pub(super) fn check_adoption(&self, record: &Record) -> Result<(), No> {
        let text = |former: &Former| format!("the second record of this log is log.adopted, which names {}", former.origin.origin);
        match (&record.event, &self.former) {
            (Event::LogAdopted(_), None) => {
                Err(no(Rule::Form, "log.adopted is the second record of a log that is named after an adoption"))
            }
            (event, Some(former)) if self.size == 1 => need(matches!(event, Event::LogAdopted(_)), Rule::Form, text(former)),
            (Event::LogAdopted(_), Some(former)) => Err(no(Rule::Form, text(former))),
            _ => Ok(()),
        }
    }

    pub(super) fn log_created(&mut self, e: &LogCreated) -> Result<(), No> {
        need(is_label(&e.installation), Rule::Form, format_args!("{:?} is not an installation name", e.installation))?;
        let Some(Former { origin: before, .. }) = &self.former else {
            let text = format_args!("{} goes on where another log ended, whose records were not read before it", e.origin);
            need(unadopted(&e.origin).1 == 1, Rule::Form, text)?;
            self.begin(e);
            return Ok(());
        };
        let goes_on = is_successor(&e.origin, &before.origin) && e.installation == before.installation;
        let text =
            format_args!("{} of {:?} cannot go on where {} of {:?} ended", e.origin, e.installation, before.origin, before.installation);
        need(goes_on, Rule::Form, text)?;
        self.begin(e);
        Ok(())
    }

    fn begin(&mut self, e: &LogCreated) {
        self.origin = Some(Origin {
            origin: e.origin.clone(),
            installation: e.installation.clone(),
            keystore: e.keystore.clone(),
            locator: e.locator.clone(),
            verifier_key: e.key.clone(),
        });
    }

    /// From here on the former log's records count, and no more of them. A compromise may be among what was lost, so no key signs until an
    /// operator has resumed it.
    pub(super) fn log_adopted(&mut self, e: &LogAdopted, at: At) -> Result<(), No> {
        let Some(former) = &self.former else { return Err(no(Rule::Form, "there is no log before this one")) };
        let known = (former.origin.origin.as_str(), former.size, former.root);
        let text = format_args!("the log before is {} with {} records and the root {}", known.0, known.1, known.2);
        need((e.origin.as_str(), e.size, e.root) == known, Rule::Form, text)?;
        for key in self.rings.values_mut().flat_map(|keyring| &mut keyring.keys).filter(|key| key.state == State::Active) {
            key.state = State::Suspended;
            // From the first record on, not from this one: no signature may name a state in between.
            key.history.push((0, at.time, State::Suspended));
        }
        self.former = None;
        Ok(())
    }
}
