//! Whether an earlier run has checked the beginning of a use log, so that this one may go on from there.
//!
//! In scope: which bookmark fits a remembered head. Out of scope: the head's signature, which `notes` checks like any other, and reading
//! (`chain`).
//!
//! A bookmark authenticates itself: its edge folds to the root that the signed head states. Growing that tree by the new lines and
//! arriving at the root of the newest checkpoint is then the proof that the log only grew.

use std::io;

use crate::event::Event;
use crate::merkle::Frontier;

use super::chain::{FirstRecord, begins_at, first_record};
use super::notes::Statement;
use super::{Bookmark, LogFiles, Options};

/// The bookmark to go on from, or why the whole log must be read.
pub(super) fn bookmark<'o>(files: &LogFiles<'_>, options: &'o Options, heads: &[Statement]) -> io::Result<Result<&'o Bookmark, String>> {
    let whole = |why: String| Ok(Err(why));
    let Some(FirstRecord { record, .. }) = first_record(files)? else { return whole("its first record cannot be read".to_owned()) };
    let Event::LogCreated(created) = &record.event else { return whole("it does not begin with log.created".to_owned()) };
    let mut trees = heads.iter().filter(|head| head.origin() == Some(created.origin.as_str())).filter_map(Statement::tree);
    let (Some((size, root)), None) = (trees.next(), trees.next()) else {
        return whole("there is not exactly one remembered head of it".to_owned());
    };
    let Some(bookmark) = options.bookmarks.iter().find(|bookmark| bookmark.origin == created.origin) else {
        return whole("there is no frontier file beside its head".to_owned());
    };
    let folds = Frontier::from_parts(bookmark.size, bookmark.edge.clone()).is_ok_and(|frontier| frontier.root() == root);
    if bookmark.size != size || size == 0 || !folds {
        return whole(format!("its frontier file does not fold to the root of its head at size {size}"));
    }
    if begins_at(files) > size {
        return whole(format!("records up to {} were pruned since", begins_at(files)));
    }
    if bookmark.node != record.node {
        return whole("its frontier file is of another node".to_owned());
    }
    if options.receipts.iter().any(|receipt| receipt.log == created.origin && receipt.seq < size) {
        return whole("a receipt names a record that an earlier run checked".to_owned());
    }
    Ok(Ok(bookmark))
}
