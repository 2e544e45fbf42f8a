//! Whether a log may be gone on with, as far as others know more of it than this disk does.
//!
//! In scope: one answer that everybody may read: confirmed, still being asked about, refuted. Out of scope: who is asked (`witness`). Without
//! anybody to ask, a log is confirmed.

use std::sync::Arc;

use tokio::sync::watch;

/// What keeps a log from being gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Others are being asked.
    Asking,
    /// Somebody knows a longer log, or another one. Stays until a restart.
    Refuted(Arc<str>),
}

/// The standing of one log; clones are the same.
#[derive(Clone, Debug)]
pub struct Standing(Arc<watch::Sender<Option<Doubt>>>);

impl Default for Standing {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Standing {
    /// What keeps the log from being gone on with, if anything does.
    pub fn doubt(&self) -> Option<Doubt> {
        self.0.borrow().clone()
    }

    /// Others are being asked from now on.
    pub fn ask(&self) {
        self.0.send_if_modified(|doubt| doubt.is_none() && doubt.replace(Doubt::Asking).is_none());
    }

    /// Nobody who could be asked knows more. Changes nothing about a log that was refuted.
    pub fn confirm(&self) {
        self.0.send_if_modified(|doubt| *doubt == Some(Doubt::Asking) && doubt.take().is_some());
    }

    /// Somebody knows more. The first reason stays.
    pub fn refute(&self, why: &str) {
        self.0.send_if_modified(|doubt| {
            let new = !matches!(doubt, Some(Doubt::Refuted(_)));
            if new {
                *doubt = Some(Doubt::Refuted(Arc::from(why)));
            }
            new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refuted_stays_refuted() {
        let standing = Standing::default();
        assert_eq!(standing.doubt(), None);
        standing.ask();
        assert_eq!(standing.doubt(), Some(Doubt::Asking));
        standing.confirm();
        assert_eq!(standing.doubt(), None);
        standing.refute("first");
        standing.refute("second");
        standing.confirm();
        standing.ask();
        assert_eq!(standing.doubt(), Some(Doubt::Refuted("first".into())));
    }
}
