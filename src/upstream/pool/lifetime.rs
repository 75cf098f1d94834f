//! How long a peer keeps an idle connection, as far as is known. Pure: time is a parameter.
//!
//! A request that cannot be sent twice (a POST) is lost when the peer closes the connection while the
//! request is on its way. So it may only use a connection that has been idle for clearly less time than the
//! peer keeps one. How long that is gets learnt from the looks at idle connections: the age at which some
//! were still open, and the age at which others were last seen open that the peer has closed since. Looks
//! are a second apart; and servers that check for idle connections once a second close them up to a second
//! late.

use std::time::Duration;

use crate::net::Moment;

/// After this time, what was learnt is forgotten: the peer may be another server by then.
const MEMORY: Duration = Duration::from_secs(3600);

/// How far the limit stays below an age that was seen: a second for servers that check once a second, and
/// half a second for the request's way.
const MARGIN: Duration = Duration::from_millis(1500);

/// What is assumed of a peer of which nothing is known.
const ASSUMED: Duration = Duration::from_secs(1);

/// The limit is never lower, since no server regularly closes connections after less time. Restarts close
/// them at any age, which must not teach that none can be reused.
const LEAST: Duration = Duration::from_millis(250);

/// What is known of one peer.
#[derive(Debug, Default)]
pub(super) struct Lifetime {
    /// The greatest age at which a connection was seen open.
    open: Option<Noted>,
    /// The least age at which one was last seen open that the peer has closed.
    closed: Option<Noted>,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    age: Duration,
    at: Moment,
}

impl Lifetime {
    /// A connection that has been idle for `age` is open.
    pub(super) fn seen_open(&mut self, age: Duration, now: Moment) {
        if self.open.is_none_or(|it| it.age <= age) {
            self.open = Some(Noted { age, at: now });
        }
    }

    /// The peer has closed a connection that was open when it had been idle for `age`.
    pub(super) fn seen_closed(&mut self, age: Duration, now: Moment) {
        let noted = Noted { age, at: now };
        if self.closed.is_none_or(|it| it.age >= age) {
            self.closed = Some(noted);
        }
        // Greater ages may be those of a server that has been replaced.
        if self.open.is_some_and(|it| it.age > age) {
            self.open = Some(noted);
        }
    }

    /// Forgets what was learnt long ago. Returns true while anything is known.
    pub(super) fn forget(&mut self, now: Moment) -> bool {
        for noted in [&mut self.open, &mut self.closed] {
            noted.take_if(|it| now.since(it.at) >= MEMORY);
        }
        self.open.is_some() || self.closed.is_some()
    }

    /// How long a connection may have been idle for a request that cannot be sent twice. `announced` is
    /// what the peer has promised for that very connection.
    pub(super) fn limit(&self, announced: Option<Duration>) -> Duration {
        let after = |noted: Noted| noted.age.saturating_sub(MARGIN);
        match (self.closed.map(after), announced) {
            (Some(seen), None) => seen.max(LEAST),
            (Some(seen), Some(announced)) => seen.max(LEAST).min(announced),
            (None, Some(announced)) => announced,
            (None, None) => self.open.map_or(ASSUMED, after).max(ASSUMED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_second_is_assumed_until_older_ones_were_seen_open() {
        let (mut lifetime, now) = (Lifetime::default(), Moment::now());
        assert_eq!(lifetime.limit(None), seconds(1.0));
        for (age, limit) in [(0.3, 1.0), (2.2, 1.0), (9.0, 7.5), (4.0, 7.5)] {
            lifetime.seen_open(seconds(age), now);
            assert_eq!(lifetime.limit(None), seconds(limit), "{age}");
        }
    }

    #[test]
    fn the_shortest_life_that_was_seen_goes_before_all_else() {
        let (mut lifetime, now) = (Lifetime::default(), Moment::now());
        lifetime.seen_open(seconds(29.0), now);
        // Others behind the same address keep theirs for longer.
        for (age, limit) in [(6.0, 4.5), (9.0, 4.5), (4.5, 3.0), (1.6, 0.25), (0.0, 0.25)] {
            lifetime.seen_closed(seconds(age), now);
            lifetime.seen_open(seconds(29.0), now);
            assert_eq!(lifetime.limit(None), seconds(limit), "{age}");
        }
    }

    #[test]
    fn a_promise_holds_unless_it_was_broken() {
        let (mut lifetime, now) = (Lifetime::default(), Moment::now());
        let promised = Some(seconds(4.0));
        assert_eq!(lifetime.limit(promised), seconds(4.0));
        lifetime.seen_open(seconds(9.0), now);
        assert_eq!(lifetime.limit(promised), seconds(4.0));
        lifetime.seen_closed(seconds(6.0), now);
        assert_eq!(lifetime.limit(promised), seconds(4.0));
        lifetime.seen_closed(seconds(3.0), now);
        assert_eq!(lifetime.limit(promised), seconds(1.5));
    }

    #[test]
    fn an_hour_later_nothing_is_known_and_what_was_before_a_close_is_not_either() {
        let (mut lifetime, start) = (Lifetime::default(), Moment::now());
        let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
        lifetime.seen_open(seconds(70.0), start);
        lifetime.seen_closed(seconds(5.0), after(1));
        assert!(lifetime.forget(after(60)));
        assert_eq!(lifetime.limit(None), seconds(3.5));
        lifetime.seen_open(seconds(4.0), after(60));
        assert!(!lifetime.forget(after(61)));
        assert_eq!(lifetime.limit(None), seconds(1.0));
    }
}
