//! The guard: a change that could only be a mistake is held until somebody confirms it.
//!
//! Held is what empties `prod`, what removes more of its peers at once than is allowed, and what
//! admits everybody to `gray` by one entry. The last good list stays in force meanwhile. A held
//! change comes into force when it is accepted by the digest of its content, or when it has stood
//! for the configured time; it is forgotten when the store has something acceptable again.
//!
//! A list that is rewritten entry by entry is acceptable before it is whole. So whatever follows
//! a held change (or a moment in which the list could not be told) and still takes peers away
//! has to stand for [`SETTLE`]; what takes none away is in force at once.
//!
//! Emptying `gray` is a rollback and never waits; `pre` has no guard, since `prod` answers for it.
//!
//! Pure: no clock, no I/O, no log. One [`Gate`] for each guarded list.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::lists::{Digest, GrayList, ListName, PeerList};

/// How long a list that follows trouble, and still lacks peers, must stand.
pub const SETTLE: Duration = Duration::from_secs(1);

/// So many entries that would go, and that would come, are named.
const NAMED: usize = 20;

/// Why a change is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It leaves `prod` without a peer.
    EmptiesProd,
    /// It removes too many of `prod`'s peers at once.
    RemovesPeers,
    /// It makes everybody gray, by an entry of prefix length 0.
    AdmitsEverybody,
}

impl Reason {
    /// The name in logs and on the admin page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmptiesProd => "empties-prod",
            Self::RemovesPeers => "removes-peers",
            Self::AdmitsEverybody => "admits-everybody",
        }
    }
}

/// What the guard goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The share of `prod`'s peers that one change may remove, in percent; 100: all but the last.
    pub share: usize,
    /// When a held change comes into force by itself, if ever.
    pub timeout: Option<Duration>,
}

/// One moment, by the clock that nobody sets and by the one that people read.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For lengths of time.
    pub instant: Instant,
    /// For people.
    pub time: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

/// Some entries: how many there are, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: usize,
    /// The first of them, at most 20.
    pub first: Vec<String>,
}

impl Named {
    fn of<T: ToString>(entries: impl Iterator<Item = T>) -> Self {
        let mut named = Self::default();
        for entry in entries {
            named.count += 1;
            if named.first.len() < NAMED {
                named.first.push(entry.to_string());
            }
        }
        named
    }
}

/// A list with a guard.
pub trait Guarded {
    /// Its name.
    const LIST: ListName;

    /// Why `new` must not take the place of this list by itself.
    fn objection(&self, new: &Self, share: usize) -> Option<Reason>;

    /// True when `new` lacks something of this list that its clients may miss.
    fn loses_by(&self, new: &Self) -> bool;

    /// What would go with `new`, and what would come.
    fn difference(&self, new: &Self) -> [Named; 2];

    /// A hash of the content.
    fn digest(&self) -> Digest;

    /// How many entries there are.
    fn count(&self) -> usize;
}

impl Guarded for PeerList {
    const LIST: ListName = ListName::Prod;

    fn objection(&self, new: &Self, share: usize) -> Option<Reason> {
        let (all, gone) = (self.peers().len(), missing(self, new).count());
        if new.is_empty() && all > 0 {
            Some(Reason::EmptiesProd)
        } else if gone * 100 > all * share {
            Some(Reason::RemovesPeers)
        } else {
            None
        }
    }

    fn loses_by(&self, new: &Self) -> bool {
        missing(self, new).next().is_some()
    }

    fn difference(&self, new: &Self) -> [Named; 2] {
        [Named::of(missing(self, new)), Named::of(missing(new, self))]
    }

    fn digest(&self) -> Digest {
        self.digest(Self::LIST)
    }

    fn count(&self) -> usize {
        self.peers().len()
    }
}

/// Peers of one list that the other lacks. Both are sorted.
fn missing<'a>(
    one: &'a PeerList,
    other: &'a PeerList,
) -> impl Iterator<Item = std::net::SocketAddr> {
    let there = |peer: &std::net::SocketAddr| other.peers().binary_search(peer).is_ok();
    one.peers().iter().copied().filter(move |it| !there(it))
}

impl Guarded for GrayList {
    const LIST: ListName = ListName::Gray;

    fn objection(&self, new: &Self, _: usize) -> Option<Reason> {
        let mut new = everybody().into_iter().filter(|it| new.has(it));
        new.any(|it| !self.has(&it))
            .then_some(Reason::AdmitsEverybody)
    }

    fn loses_by(&self, _: &Self) -> bool {
        // Who is no longer gray gets the old version: a rollback.
        false
    }

    /// Names only the entries that admit everybody: there may be a million others.
    fn difference(&self, new: &Self) -> [Named; 2] {
        let come = everybody().into_iter();
        let come = come.filter(|it| new.has(it) && !self.has(it));
        [Named::default(), Named::of(come)]
    }

    fn digest(&self) -> Digest {
        self.digest()
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// The entries that admit everybody of their family.
fn everybody() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
}

/// A held change, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which list.
    pub list: ListName,
    /// Why.
    pub reason: Reason,
    /// The hash of the list's new content, by which it is accepted.
    pub digest: Digest,
    /// Since when.
    pub since: SystemTime,
    /// How many entries the new content has.
    pub entries: usize,
    /// What would go.
    pub gone: Named,
    /// What would come.
    pub new: Named,
}

/// A change that waits.
#[derive(Debug)]
struct Waiting<L> {
    content: Arc<L>,
    digest: Digest,
    /// Why it is held; `None`: it only has to settle.
    reason: Option<Reason>,
    /// When it was first seen.
    since: SystemTime,
    /// Since when the store has had it, without a doubt; `None`: at present nobody knows.
    stands_since: Option<Instant>,
    entries: usize,
    gone: Named,
    new: Named,
}

/// What one list has to pass to come into force.
#[derive(Debug)]
pub struct Gate<L> {
    waiting: Option<Waiting<L>>,
    /// The last look at the list did not tell what it is.
    doubtful: bool,
}

impl<L> Default for Gate<L> {
    fn default() -> Self {
        Self {
            waiting: None,
            doubtful: false,
        }
    }
}

impl<L: Guarded> Gate<L> {
    /// The store has `new`: returns it if it may take the place of `in_force` now.
    pub fn judge(&mut self, rules: Rules, in_force: &L, new: L, now: Moment) -> Option<Arc<L>> {
        let troubled = std::mem::take(&mut self.doubtful) || self.waiting.is_some();
        let reason = in_force.objection(&new, rules.share);
        if reason.is_none() && !(troubled && in_force.loses_by(&new)) {
            self.waiting = None;
            return Some(Arc::new(new));
        }
        let digest = Guarded::digest(&new);
        let same = |it: &&mut Waiting<L>| (it.digest, it.reason) == (digest, reason);
        match self.waiting.as_mut().filter(same) {
            Some(waiting) => {
                waiting.stands_since.get_or_insert(now.instant);
            }
            None => {
                let [gone, come] = in_force.difference(&new);
                self.waiting = Some(Waiting {
                    digest,
                    reason,
                    since: now.time,
                    stands_since: Some(now.instant),
                    entries: new.count(),
                    gone,
                    new: come,
                    content: Arc::new(new),
                });
            }
        }
        self.ripe(rules, in_force, now.instant)
    }

    /// The store does not tell what the list is.
    pub fn doubt(&mut self) {
        self.doubtful = true;
        if let Some(waiting) = &mut self.waiting {
            waiting.stands_since = None;
        }
    }

    /// Takes what waits, if it has stood for long enough or the rules have come to allow it.
    pub fn ripe(&mut self, rules: Rules, in_force: &L, now: Instant) -> Option<Arc<L>> {
        let waiting = self.waiting.as_ref()?;
        let stood = now.saturating_duration_since(waiting.stands_since?);
        let ripe = match waiting.reason {
            None => stood >= SETTLE,
            Some(_) => {
                rules.timeout.is_some_and(|it| stood >= it)
                    || in_force.objection(&waiting.content, rules.share).is_none()
            }
        };
        ripe.then(|| self.waiting.take())
            .flatten()
            .map(|it| it.content)
    }

    /// When [`Self::ripe`] may have something, if nothing else happens.
    pub fn ripe_at(&self, rules: Rules) -> Option<Instant> {
        let waiting = self.waiting.as_ref()?;
        let after = match waiting.reason {
            None => SETTLE,
            Some(_) => rules.timeout?,
        };
        waiting.stands_since?.checked_add(after)
    }

    /// Takes the held change whose digest is `digest`, as it is displayed, if it still stands.
    pub fn accept(&mut self, digest: &str) -> Option<Arc<L>> {
        let waiting = self.waiting.as_ref()?;
        let meant = waiting.digest.to_string() == digest;
        let fits = meant && waiting.reason.is_some() && waiting.stands_since.is_some();
        fits.then(|| self.waiting.take())
            .flatten()
            .map(|it| it.content)
    }

    /// True when nothing waits, and the last look at the list has told what it is.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_none() && !self.doubtful
    }

    /// True when something waits that only has to settle.
    pub fn settles(&self) -> bool {
        self.waiting.as_ref().is_some_and(|it| it.reason.is_none())
    }

    /// What is held.
    pub fn held(&self) -> Option<Held> {
        let waiting = self.waiting.as_ref()?;
        Some(Held {
            list: L::LIST,
            reason: waiting.reason?,
            digest: waiting.digest,
            since: waiting.since,
            entries: waiting.entries,
            gone: waiting.gone.clone(),
            new: waiting.new.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        share: 50,
        timeout: None,
    };

    fn peers(text: &str) -> PeerList {
        PeerList::parse(text.split_whitespace(), 80)
    }

    fn gray(text: &str) -> GrayList {
        GrayList::parse(text.split_whitespace())
    }

    /// A gate before `prod`, with what is in force behind it, and the time.
    struct Prod {
        gate: Gate<PeerList>,
        in_force: Arc<PeerList>,
        rules: Rules,
        now: Moment,
    }

    impl Prod {
        fn new(in_force: &str) -> Self {
            Self {
                gate: Gate::default(),
                in_force: Arc::new(peers(in_force)),
                rules: RULES,
                now: Moment::now(),
            }
        }

        /// The store has `new`; true when that is in force now.
        fn reads(&mut self, new: &str) -> bool {
            let taken = self
                .gate
                .judge(self.rules, &self.in_force, peers(new), self.now);
            self.takes(taken)
        }

        fn takes(&mut self, taken: Option<Arc<PeerList>>) -> bool {
            let any = taken.is_some();
            self.in_force = taken.unwrap_or_else(|| Arc::clone(&self.in_force));
            any
        }

        fn passes(&mut self, time: Duration) {
            self.now.instant += time;
            self.now.time += time;
        }

        fn is_ripe(&mut self) -> bool {
            let taken = self.gate.ripe(self.rules, &self.in_force, self.now.instant);
            self.takes(taken)
        }

        fn held(&self) -> Option<Reason> {
            self.gate.held().map(|it| it.reason)
        }
    }

    #[test]
    fn what_takes_too_many_peers_away_or_all_is_held() {
        use Reason::{EmptiesProd, RemovesPeers};
        let table = [
            ("1.1.1.1", "1.1.1.1 1.1.1.2", 50, None),
            ("1.1.1.1", "", 50, Some(EmptiesProd)),
            ("1.1.1.1", "", 100, Some(EmptiesProd)),
            ("", "", 0, None),
            ("", "1.1.1.1", 0, None),
            // Another port is another peer.
            ("1.1.1.1", "1.1.1.1:81", 50, Some(RemovesPeers)),
            ("1.1.1.1", "2.2.2.2", 99, Some(RemovesPeers)),
            ("1.1.1.1", "2.2.2.2", 100, None),
            ("1.1.1.1 1.1.1.2", "1.1.1.1", 50, None),
            ("1.1.1.1 1.1.1.2", "1.1.1.1", 49, Some(RemovesPeers)),
            ("1.1.1.1 1.1.1.2", "1.1.1.1", 0, Some(RemovesPeers)),
            ("1.1.1.1 1.1.1.2", "1.1.1.1 2.2.2.2 3.3.3.3", 50, None),
            ("1.1.1.1 1.1.1.2 1.1.1.3", "1.1.1.3", 66, Some(RemovesPeers)),
            ("1.1.1.1 1.1.1.2 1.1.1.3", "1.1.1.3", 67, None),
        ];
        for (now, new, share, expected) in table {
            let found = peers(now).objection(&peers(new), share);
            assert_eq!(found, expected, "{now} -> {new}, {share}");
        }
    }

    #[test]
    fn an_entry_that_admits_everybody_is_held_unless_it_is_in_force() {
        let table = [
            ("", "0.0.0.0/0", true),
            ("", "::/0", true),
            ("", "::ffff:0.0.0.0/96", true),
            ("", "7.7.7.7/0 1.1.1.1", true),
            ("0.0.0.0/0", "0.0.0.0/0 1.1.1.1", false),
            ("0.0.0.0/0", "0.0.0.0/0 ::/0", true),
            ("1.1.1.1", "", false),
            ("0.0.0.0/0", "", false),
            ("1.1.1.1 2.2.2.2", "3.3.3.0/24 ::1", false),
            // Not one entry, and so not a slip.
            ("", "0.0.0.0/1 128.0.0.0/1", false),
        ];
        for (now, new, held) in table {
            let found = gray(now).objection(&gray(new), 50);
            let expected = held.then_some(Reason::AdmitsEverybody);
            assert_eq!(found, expected, "{now} -> {new}");
        }
    }

    #[test]
    fn a_list_that_is_rewritten_entry_by_entry_is_held_until_it_is_whole() {
        let mut prod = Prod::new("1.1.1.1 1.1.1.2 1.1.1.3");
        for (new, held) in [
            ("", Some(Reason::EmptiesProd)),
            ("1.1.1.1", Some(Reason::RemovesPeers)),
            // Acceptable alone, but not behind the two above.
            ("1.1.1.1 1.1.1.2", None),
        ] {
            prod.passes(SETTLE / 2);
            assert!(!prod.reads(new), "{new}");
            assert_eq!((prod.held(), prod.gate.settles()), (held, held.is_none()));
        }
        assert!(prod.reads("1.1.1.1 1.1.1.2 1.1.1.3"));
        assert_eq!((prod.held(), prod.gate.settles()), (None, false));
        assert!(prod.reads("1.1.1.1 1.1.1.2"), "without trouble before");
    }

    #[test]
    fn what_follows_trouble_and_lacks_peers_is_in_force_once_it_has_settled() {
        for trouble in ["held", "doubt"] {
            let mut prod = Prod::new("1.1.1.1 1.1.1.2 1.1.1.3");
            match trouble {
                "held" => assert!(!prod.reads("")),
                _ => prod.gate.doubt(),
            }
            assert!(!prod.reads("1.1.1.1 1.1.1.2"), "{trouble}");
            assert_eq!(
                prod.gate.ripe_at(RULES),
                Some(prod.now.instant + SETTLE),
                "{trouble}"
            );
            prod.passes(SETTLE - Duration::from_millis(1));
            assert!(!prod.is_ripe() && !prod.reads("1.1.1.1 1.1.1.2"));
            prod.passes(Duration::from_millis(1));
            assert!(prod.is_ripe(), "{trouble}");
            assert_eq!(prod.in_force.peers().len(), 2);
        }
    }

    #[test]
    fn a_held_change_is_accepted_by_its_own_digest_and_only_while_it_stands() {
        let mut prod = Prod::new("1.1.1.1 1.1.1.2");
        assert!(!prod.reads("3.3.3.3"));
        let held = prod.gate.held().unwrap();
        assert_eq!((held.entries, held.gone.count, held.new.count), (1, 2, 1));
        assert_eq!(held.new.first, ["3.3.3.3:80"]);
        let digest = held.digest.to_string();
        assert!(prod.gate.accept("0123456789abcdef").is_none());
        assert!(prod.gate.accept("").is_none());
        prod.gate.doubt();
        assert!(prod.gate.accept(&digest).is_none(), "it does not stand");
        assert!(!prod.reads("3.3.3.3"));
        assert_eq!(prod.gate.held().unwrap().since, held.since);
        let taken = prod.gate.accept(&digest);
        assert!(prod.takes(taken));
        assert_eq!(prod.in_force.peers(), peers("3.3.3.3").peers());
        assert_eq!(prod.gate.held(), None);

        // Another content has another digest, and the old one is of no use.
        let mut prod = Prod::new("1.1.1.1 1.1.1.2");
        assert!(!prod.reads("3.3.3.3") && !prod.reads("4.4.4.4"));
        assert!(prod.gate.accept(&digest).is_none());
        // What only settles needs nobody's word.
        assert!(!prod.reads("1.1.1.1"));
        let settling = Guarded::digest(&peers("1.1.1.1")).to_string();
        assert!(prod.gate.settles() && prod.gate.accept(&settling).is_none());
    }

    #[test]
    fn a_held_change_comes_into_force_by_itself_after_the_time_and_not_without_one() {
        let mut prod = Prod::new("1.1.1.1");
        assert!(!prod.reads("3.3.3.3"));
        prod.passes(Duration::from_secs(1_000_000));
        assert!(!prod.is_ripe() && !prod.reads("3.3.3.3"));
        assert_eq!(prod.gate.ripe_at(prod.rules), None);

        let minute = Duration::from_secs(60);
        let mut prod = Prod::new("1.1.1.1");
        prod.rules.timeout = Some(minute);
        assert!(!prod.reads("3.3.3.3"));
        prod.passes(minute / 2);
        // Another content, and a doubt, begin the count anew.
        assert!(!prod.reads("4.4.4.4"));
        prod.passes(minute / 2);
        assert!(!prod.is_ripe());
        prod.gate.doubt();
        assert_eq!(prod.gate.ripe_at(prod.rules), None);
        prod.passes(minute);
        assert!(!prod.is_ripe() && !prod.reads("4.4.4.4"));
        let at = prod.gate.ripe_at(prod.rules).unwrap();
        assert_eq!(at, prod.now.instant + minute);
        prod.passes(minute);
        assert!(prod.is_ripe());
    }

    #[test]
    fn other_rules_let_in_what_they_allow() {
        let mut prod = Prod::new("1.1.1.1");
        assert!(!prod.reads("3.3.3.3"));
        prod.rules.share = 99;
        assert!(!prod.is_ripe());
        prod.rules.share = 100;
        assert!(prod.is_ripe());
        assert!(!prod.reads("") && prod.held() == Some(Reason::EmptiesProd));
    }

    #[test]
    fn a_rollback_of_gray_never_waits() {
        let (mut gate, in_force) = (Gate::default(), gray("1.1.1.1 2.2.2.0/24"));
        let now = Moment::now();
        let mut judge = |text| gate.judge(RULES, &in_force, gray(text), now).is_some();
        assert!(!judge("0.0.0.0/0"));
        assert!(judge("1.1.1.1"), "behind a held change, too");
        assert!(!judge("0.0.0.0/0") && judge(""));
        gate.doubt();
        assert!(gate.judge(RULES, &in_force, gray(""), now).is_some());
    }

    #[test]
    fn of_many_peers_the_first_are_named() {
        let many = |net: u8| {
            let peers = (0..200).map(|at| format!("10.0.{net}.{at}"));
            PeerList::parse(peers, 80)
        };
        let mut gate = Gate::default();
        assert!(
            gate.judge(RULES, &many(0), many(1), Moment::now())
                .is_none()
        );
        let held: Held = gate.held().unwrap();
        for named in [held.gone, held.new] {
            assert_eq!((named.count, named.first.len()), (200, NAMED));
        }
    }
}
