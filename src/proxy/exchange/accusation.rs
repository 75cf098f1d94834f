//! That a request has failed at a peer, as long as nobody knows whose fault it is: see [`super::blame`].

use crate::error::Failure;
use crate::proxy::chooser::Chosen;

/// What an attempt says of its peer, whatever becomes of the exchange.
#[derive(Clone, Copy, Default)]
pub(super) enum PeerVerdict {
    /// Nothing yet.
    #[default]
    None,
    /// It has answered.
    Answered,
    /// It has answered with one of `fail_statuses`, which has been counted.
    Refused,
    /// It has failed within its response.
    Cut(Failure),
    /// It has failed before, and others may not.
    Accused(Failure),
}

/// A peer at which the request has failed.
pub(super) struct Accusation {
    pub(super) chosen: Chosen,
    pub(super) failure: Failure,
}

impl Accusation {
    pub(super) fn new(chosen: Chosen, failure: Failure) -> Self {
        chosen.peer().health.note_accused();
        Self { chosen, failure }
    }
}

impl Drop for Accusation {
    fn drop(&mut self) {
        self.chosen.peer().health.note_judged();
        self.chosen.is_given_up();
    }
}
