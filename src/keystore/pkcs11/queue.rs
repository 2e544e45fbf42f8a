//! A bounded first-in-first-out queue between async callers and the thread that serves their errands.
//!
//! In scope: bounds, order, waking, closing. Out of scope: signatures, which wait elsewhere (`jobs.rs`). A refused item is handed back at once; nobody waits to put.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::module::lock;

/// The queue.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    nudged: bool,
    closed: bool,
}

/// What a server finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// The oldest item.
    Item(T),
    /// Nothing to serve, but the wait is over or somebody called [`Queue::nudge`].
    Nothing,
    /// The queue is closed and empty: the server may leave.
    Closed,
}

impl<T> Queue<T> {
    /// An empty queue for at most `capacity` items.
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::with_capacity(capacity), nudged: false, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Puts an item at the end, or hands it back when the queue is full or closed.
    pub(super) fn put(&self, item: T) -> Result<(), T> {
        let mut state = lock(&self.state);
        if state.closed || state.items.len() >= self.capacity {
            return Err(item);
        }
        state.items.push_back(item);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the oldest item; waits up to `patience`, or for ever if `None`.
    pub(super) fn take(&self, patience: Option<Duration>) -> Taken<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(item) = state.items.pop_front() {
                return Taken::Item(item);
            }
            if state.closed {
                return Taken::Closed;
            }
            if std::mem::take(&mut state.nudged) {
                return Taken::Nothing;
            }
            match patience {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (guard, waited) = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    state = guard;
                    if waited.timed_out() && state.items.is_empty() && !state.closed {
                        return Taken::Nothing;
                    }
                }
            }
        }
    }

    /// Takes everything that waits.
    pub(super) fn drain(&self) -> Vec<T> {
        lock(&self.state).items.drain(..).collect()
    }

    /// Wakes one server that waits for items.
    pub(super) fn nudge(&self) {
        lock(&self.state).nudged = true;
        self.changed.notify_one();
    }

    /// Refuses further items; servers leave when they have served the rest.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_and_full_is_refused() {
        let queue = Queue::new(2);
        assert_eq!((queue.put('a'), queue.put('b'), queue.put('c')), (Ok(()), Ok(()), Err('c')));
        assert_eq!((queue.take(None), queue.take(None)), (Taken::Item('a'), Taken::Item('b')));
    }

    #[test]
    fn a_nudge_wakes_once_and_a_closed_queue_is_served_to_its_end() {
        let queue = Queue::new(2);
        queue.nudge();
        assert_eq!(queue.take(None), Taken::Nothing);
        assert_eq!(queue.put('a'), Ok(()));
        queue.close();
        assert_eq!(queue.put('b'), Err('b'));
        assert_eq!((queue.take(None), queue.take(None)), (Taken::Item('a'), Taken::Closed));
    }
}
