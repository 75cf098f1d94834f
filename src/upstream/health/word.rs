//! The state of a peer in one word, so that it is read and replaced at once without a lock.

use super::state::Why;
use crate::error::Failure;

/// Three bits for the kind of the state, eight for why it is so, the rest for a time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateWord(u64);

/// Which state it is: see [`PeerState`](super::state::PeerState).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateKind {
    Up = 0,
    Unchecked = 1,
    Out = 2,
    Trial = 3,
    Starting = 4,
}

impl StateWord {
    /// Of a state that says nothing of why.
    pub(super) const fn new(kind: StateKind, millis: u64) -> Self {
        Self(kind as u64 | millis << 11)
    }

    /// The peer is out until then.
    pub(super) const fn out(why: Why, millis: u64) -> Self {
        Self(StateKind::Out as u64 | code_of(why) << 3 | millis << 11)
    }

    /// Why stays.
    pub(super) const fn with(self, kind: StateKind, millis: u64) -> Self {
        Self(kind as u64 | self.0 & 0xff << 3 | millis << 11)
    }

    pub(super) const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn kind(self) -> StateKind {
        match self.0 & 7 {
            0 => StateKind::Up,
            1 => StateKind::Unchecked,
            2 => StateKind::Out,
            3 => StateKind::Trial,
            _ => StateKind::Starting,
        }
    }

    /// Of a peer that is out, or on trial.
    pub(super) fn why(self) -> Why {
        why_of(self.0 >> 3 & 0xff)
    }

    pub(super) const fn millis(self) -> u64 {
        self.0 >> 11
    }

    pub(super) fn is_out_by_check(self) -> bool {
        self.kind() == StateKind::Out && self.why() == Why::Check
    }
}

const fn code_of(why: Why) -> u64 {
    match why {
        Why::Status => 0,
        Why::Check => 1,
        Why::Failed(failure) => 2 + failure.index() as u64,
    }
}

fn why_of(code: u64) -> Why {
    match code {
        0 => Why::Status,
        1 => Why::Check,
        code => {
            let failure = usize::try_from(code - 2).ok();
            let failure = failure.and_then(|at| Failure::ALL.get(at));
            Why::Failed(failure.copied().unwrap_or(Failure::ConnectFailed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_all_that_is_put_into_it() {
        let most = u64::MAX >> 11;
        let failures = Failure::ALL.iter().map(|it| Why::Failed(*it));
        for why in failures.chain([Why::Status, Why::Check]) {
            let out = StateWord::out(why, most);
            assert_eq!(
                (out.kind(), out.why(), out.millis()),
                (StateKind::Out, why, most)
            );
            assert_eq!(out.is_out_by_check(), why == Why::Check);
            let trial = out.with(StateKind::Trial, 7);
            assert_eq!(
                (trial.kind(), trial.why(), trial.millis()),
                (StateKind::Trial, why, 7)
            );
        }
        for kind in [
            StateKind::Up,
            StateKind::Unchecked,
            StateKind::Out,
            StateKind::Trial,
            StateKind::Starting,
        ] {
            let word = StateWord::new(kind, 1);
            let word = StateWord::of_bits(word.bits());
            assert_eq!((word.kind(), word.millis()), (kind, 1));
        }
    }
}
