//! What keystores said last when they did not do their work: for operators, who should not have to search a log for it.
//!
//! In scope: the last words for each kind of work, kept until the same work succeeds. Out of scope: records (`keystore.lost`, `sign.failed`
//! and others are their writers' concern) and when to ask again (`absences`, the rotator).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::keystore::KeystoreError;

/// A kind of work, and whom it was for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// To answer at all.
    Answer,
    /// To list what it holds.
    List,
    /// To make, or find, a key of this keyring.
    Make(String),
    /// To sign for this keyring.
    Sign(String),
    /// To make a key of this keyring unusable.
    Destroy(String),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer => f.write_str("answering"),
            Self::List => f.write_str("listing its keys"),
            Self::Make(keyring) => write!(f, "making a key of keyring {keyring}"),
            Self::Sign(keyring) => write!(f, "signing for keyring {keyring}"),
            Self::Destroy(keyring) => write!(f, "destroying a key of keyring {keyring}"),
        }
    }
}

/// By what was not done, and for work that is for no keyring, by whom: who did not do it, and why.
type Rows = BTreeMap<(Work, Option<String>), (String, String)>;

/// All of them. One per daemon.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Mutex<Rows>,
    /// Whether there is any: work that succeeds asks this first, thousands of times a second.
    any: AtomicBool,
}

impl Complaints {
    /// This keystore did not do this, and said why. Errors hold no secret, and most of them what to do. That it does not answer is said once, of
    /// answering, and not of all the work that waits for it.
    pub fn note(&self, keystore: &str, work: Work, error: &KeystoreError) {
        let refuses = matches!(error, KeystoreError::Rejected(_) | KeystoreError::Gone(_) | KeystoreError::Unusable { .. });
        if work != Work::Answer && !refuses {
            return;
        }
        let mut last = self.lock();
        last.insert(row(keystore, work), (keystore.to_owned(), error.to_string()));
        self.any.store(true, Ordering::Release);
    }

    /// It did. Which work it was is asked only while there is a complaint.
    pub fn done(&self, keystore: &str, work: impl FnOnce() -> Work) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut last = self.lock();
        last.remove(&row(keystore, work()));
        self.any.store(!last.is_empty(), Ordering::Release);
    }

    /// What this keystore did not do, and why.
    pub fn of(&self, keystore: &str) -> Vec<(Work, String)> {
        let rows = self.lock();
        let own = rows.iter().filter(|(_, (other, _))| other == keystore);
        own.map(|((work, _), (_, text))| (work.clone(), text.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is for a keyring is done wherever it is done: a keyring that moved on says nothing of its old keystore any more.
fn row(keystore: &str, work: Work) -> (Work, Option<String>) {
    let own = matches!(work, Work::Answer | Work::List).then(|| keystore.to_owned());
    (work, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_stay_until_the_work_is_done() {
        let complaints = Complaints::default();
        let sign = || Work::Sign("access".to_owned());
        complaints.done("vault", sign);
        complaints.note("vault", Work::Answer, &KeystoreError::Retry("once".into()));
        complaints.note("vault", sign(), &KeystoreError::Rejected("no".into()));
        complaints.note("vault", sign(), &KeystoreError::Rejected("never".into()));
        complaints.note("vault", sign(), &KeystoreError::Unanswered);
        complaints.note("kms", Work::Answer, &KeystoreError::Retry("away".into()));
        let texts = |keystore: &str| complaints.of(keystore).into_iter().map(|(work, text)| format!("{work}: {text}")).collect::<Vec<_>>();
        assert_eq!(texts("vault").len(), 2);
        assert!(
            texts("vault")[1].starts_with("signing for keyring access: ") && texts("vault")[1].contains("never"),
            "{:?}",
            texts("vault")
        );
        complaints.done("vault", || Work::Answer);
        // The keyring signs elsewhere now.
        complaints.done("kms", sign);
        assert_eq!((texts("vault"), texts("kms").len()), (Vec::new(), 1));
    }
}
