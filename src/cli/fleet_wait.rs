//! `graygate fleet wait DIGEST`: until every gateway on one Redis holds the same lists.
//!
//! Who shuts down cleanly deletes its key, and is not waited for any more; whose key expires is, since it may
//! serve old lists.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::fleet::{NAMED, held, notes, settings};
use crate::cli::report::Report;
use crate::config::RedisSettings;
use crate::fleet::node::Node;
use crate::fleet::nodes::{FleetLook, Heard, Nodes};
use crate::fleet::release::ReleaseTurn;
use crate::lists::ServiceName;

/// The pause between two looks of a wait: shortest, longest. A look that takes long is followed by a
/// longer pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Nobody waits longer.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where gateways are heard from, and none says what it holds.
const UNCONFIRMED: &str = "no gateway has confirmed it";

/// A look that begins has at least this time.
const LAST_LOOK: Duration = Duration::from_millis(250);

/// Waits until every gateway holds the lists with this digest, and there are at least `at_least` of
/// them. Returns one line that says so.
///
/// # Errors
/// One line: which gateways do not hold them after the `limit`, or why that is unknown.
pub(crate) fn wait(
    config: &Path,
    digest: &str,
    limit: Duration,
    at_least: usize,
) -> Result<Report, String> {
    if digest.len() != 16 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{digest:?} is not a digest: 16 hexadecimal digits"));
    }
    if limit > LONGEST_WAIT {
        let most = humantime::format_duration(LONGEST_WAIT);
        return Err(format!("the timeout is too long; at most {most}"));
    }
    let settings = settings(config)?;
    let digest = digest.to_ascii_lowercase();
    let watch = AwaitedNodes::new(AwaitedState::of_any_service(&digest), at_least);
    let (watch, note) = watched(&settings, watch, limit, &|_| {})?;
    let text = format!("{}\n", watch.success());
    let holding = watch.seen.len();
    let json = json!({ "digest": digest, "holding": holding, "note": note });
    let report = Report::new(text, json);
    Ok(report.noting(notes(note.as_deref())))
}

/// What gateways are to hold.
#[derive(Clone, Debug)]
pub(crate) enum AwaitedState {
    /// Lists.
    Lists(AwaitedDigest),
    /// What has become of the release of a service, beside its lists.
    Release(ServiceName, ReleaseTurn),
}

impl AwaitedState {
    fn of_any_service(digest: &str) -> Self {
        Self::Lists(AwaitedDigest {
            service: None,
            digest: digest.to_owned(),
            overtaken: None,
        })
    }

    /// The lists of this service with this digest.
    pub(crate) fn of_service(service: ServiceName, digest: String) -> Self {
        Self::Lists(AwaitedDigest {
            service: Some(service),
            digest,
            overtaken: None,
        })
    }
}

/// The lists that are waited for.
#[derive(Clone, Debug)]
pub(crate) struct AwaitedDigest {
    /// Whose they are; of whichever service, where that is not said.
    service: Option<ServiceName>,
    pub(crate) digest: String,
    /// What has come right after them, if something has.
    overtaken: Option<LaterLists>,
}

/// Lists that have come right after others, which some gateways may never have had therefore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaterLists {
    pub(crate) digest: String,
    /// By which change: `change 7 (promote by ann@vm1)`.
    pub(crate) by: String,
}

impl AwaitedDigest {
    /// Whoever has these has had no less.
    pub(crate) fn overtaken_by(&mut self, later: Option<LaterLists>) {
        self.overtaken = later.or(self.overtaken.take());
    }

    fn is_held(&self, node: &Node) -> bool {
        let later = self.overtaken.as_ref().map(|it| &*it.digest);
        let mut all = [Some(&*self.digest), later].into_iter().flatten();
        all.any(|digest| match &self.service {
            Some(service) => node.digest_of(service) == Some(digest),
            None => node.holds(digest),
        })
    }

    /// Those that are held then: "00000000000000bb".
    fn in_words(&self) -> String {
        match &self.overtaken {
            None => self.digest.clone(),
            Some(LaterLists { digest, by }) => {
                format!(
                    "{}, or {digest} by {by}, which has overtaken it",
                    self.digest
                )
            }
        }
    }
}

/// Looks in the store whether what is awaited was overtaken, and notes by what.
pub(crate) type Follow<'a> = &'a dyn Fn(&mut AwaitedState);

/// Waits until every gateway on this Redis holds what is `awaited`; where there is none, that is said
/// unless there must be `some`. What is awaited may be overtaken, which `follow` looks for. Returns one line
/// that says so.
///
/// # Errors
/// As [`wait`].
pub(crate) fn wait_for(
    settings: &RedisSettings,
    awaited: AwaitedState,
    limit: Duration,
    some: bool,
    follow: Follow<'_>,
) -> Result<String, String> {
    let watch = AwaitedNodes {
        at_least: usize::from(some),
        ..AwaitedNodes::new(awaited, 1)
    };
    let watched = watched(settings, watch, limit.min(LONGEST_WAIT), follow);
    watched.map(|(watch, _)| watch.success())
}

/// Those that were waited for, and why there may be others.
fn watched(
    settings: &RedisSettings,
    mut watch: AwaitedNodes,
    limit: Duration,
    follow: Follow<'_>,
) -> Result<(AwaitedNodes, Option<String>), String> {
    let until = Instant::now() + limit;
    let mut nodes = Nodes::new(settings);
    loop {
        let began = Instant::now();
        let complaint = match nodes.read(until.max(began + LAST_LOOK)) {
            Ok(FleetLook {
                heard,
                silent,
                note,
            }) => {
                watch.has_silent = !silent.is_empty();
                watch.look(heard, began, Instant::now());
                if watch.complaint().is_some() {
                    follow(&mut watch.awaited);
                }
                match (watch.complaint(), note) {
                    (None, note) => return Ok((watch, note)),
                    (Some(complaint), Some(note)) => format!("{complaint}; {note}"),
                    (Some(complaint), None) => complaint,
                }
            }
            Err(error) => match watch.last() {
                // At least what is known is said.
                Some(last) => format!("{}: {error}; when last seen: {last}", settings.url),
                None => format!("{}: {error}", settings.url),
            },
        };
        let now = Instant::now();
        if now >= until {
            let limit = humantime::format_duration(limit);
            return Err(format!("not within {limit}: {complaint}"));
        }
        let pause = (began.elapsed() * 4).clamp(PAUSE.0, PAUSE.1);
        std::thread::sleep(pause.min(until - now));
    }
}

/// What a gateway that is waited for was when it was last seen.
struct LastSeen {
    heard: Heard,
    /// Its key does not expire before this.
    expires: Option<Instant>,
    /// Its key has expired since: it may serve, but Redis does not hear of it.
    lost: bool,
}

/// The gateways that are waited for. One that shuts down cleanly is not waited for any
/// more; one whose key expires meanwhile is, since it may serve old lists.
struct AwaitedNodes {
    awaited: AwaitedState,
    at_least: usize,
    /// Others are known, and not heard from.
    has_silent: bool,
    seen: BTreeMap<String, LastSeen>,
}

impl AwaitedNodes {
    fn new(awaited: AwaitedState, at_least: usize) -> Self {
        Self {
            awaited,
            at_least: at_least.max(1),
            has_silent: false,
            seen: BTreeMap::new(),
        }
    }

    /// Takes in a look at all keys, that was made between `began` and `ended`.
    fn look(&mut self, heard: Vec<Heard>, began: Instant, ended: Instant) {
        self.seen.retain(|name, seen| {
            let is_there = heard.iter().any(|it| it.name == *name);
            // Nobody but the gateway itself deletes a key that has time to live.
            let deleted = !is_there && !seen.lost && seen.expires.is_some_and(|it| ended < it);
            seen.lost = !is_there;
            !deleted
        });
        for heard in heard {
            let expires = heard.left.map(|left| began + left);
            let seen = LastSeen {
                heard,
                expires,
                lost: false,
            };
            self.seen.insert(seen.heard.name.clone(), seen);
        }
    }

    fn holds(&self, seen: &LastSeen) -> bool {
        let Some(node) = seen.heard.node.as_ref().filter(|_| !seen.lost) else {
            return false;
        };
        match &self.awaited {
            AwaitedState::Lists(lists) => lists.is_held(node),
            AwaitedState::Release(service, turn) => {
                node.release_of(service).is_some_and(|it| turn.is_held(it))
            }
        }
    }

    /// False for a gateway that tells nothing of what is awaited: it is an older one, or has no verdict.
    fn is_awaited(&self, seen: &LastSeen) -> bool {
        match (&self.awaited, &seen.heard.node) {
            (AwaitedState::Release(service, _), Some(node)) => node.release_of(service).is_some(),
            _ => true,
        }
    }

    /// The gateways that are waited for, and the others.
    fn parts(&self) -> (Vec<&LastSeen>, Vec<&LastSeen>) {
        self.seen.values().partition(|it| self.is_awaited(it))
    }

    /// What they do, of one or of several.
    fn deed(&self, is_one: bool) -> String {
        let verb = |one: &'static str, several: &'static str| if is_one { one } else { several };
        match &self.awaited {
            AwaitedState::Lists(lists) => {
                format!("{} {}", verb("holds", "hold"), lists.in_words())
            }
            AwaitedState::Release(_, turn) => {
                format!("{} heard: {}", verb("has", "have"), turn.in_words())
            }
        }
    }

    /// What is still missing, if something is.
    fn complaint(&self) -> Option<String> {
        let (awaited, others) = self.parts();
        let all = awaited.len();
        let lacking: Vec<&LastSeen> = awaited.into_iter().filter(|it| !self.holds(it)).collect();
        let holding = all - lacking.len();
        // Of the others, nobody ever knows; but one at least must say so, if some must.
        let are_few = holding + others.len() < self.at_least;
        if all == 0 && !others.is_empty() && !are_few && self.at_least > 0 {
            return Some(format!("{UNCONFIRMED}{}", self.untold(&others)));
        }
        if lacking.is_empty() && !are_few {
            return None;
        }
        let mut text = format!("{holding} of {all} gateways {}", self.deed(false));
        if are_few {
            // Writing to a String cannot fail.
            let _ = write!(text, ", at least {} required", self.at_least);
        }
        for seen in lacking.iter().take(NAMED) {
            let _ = write!(text, "; {}", self.shortcoming(seen));
        }
        if lacking.len() > NAMED {
            let _ = write!(text, "; and {} more", lacking.len() - NAMED);
        }
        Some(text)
    }

    /// What was known when they were last seen, if they were.
    fn last(&self) -> Option<String> {
        let complaint = || self.complaint().unwrap_or_else(|| self.success());
        (!self.seen.is_empty()).then(complaint)
    }

    fn success(&self) -> String {
        let (awaited, others) = self.parts();
        let heard = match (self.has_silent, awaited.len()) {
            (true, 1) => " that is heard from",
            (true, _) => " that are heard from",
            (false, _) => "",
        };
        let mut text = match awaited.len() {
            0 if others.is_empty() => "no gateway is heard of on this Redis".to_owned(),
            0 => UNCONFIRMED.to_owned(),
            1 if others.is_empty() => format!("the only gateway{heard} {}", self.deed(true)),
            1 => format!("{} {}", awaited[0].heard.name, self.deed(true)),
            all if others.is_empty() => format!("all {all} gateways{heard} {}", self.deed(false)),
            all => format!("{all} gateways {}", self.deed(false)),
        };
        text.push_str(&self.untold(&others));
        text
    }

    /// Who says nothing of what is awaited, if somebody does not; with what that means for a freeze.
    fn untold(&self, others: &[&LastSeen]) -> String {
        if others.is_empty() {
            return String::new();
        }
        let names = others.iter().take(NAMED).map(|it| &*it.heard.name);
        let names: Vec<&str> = names.collect();
        let more = if others.len() > NAMED { ", …" } else { "" };
        let names = format!("{}{more}", names.join(", "));
        let freezes = matches!(&self.awaited, AwaitedState::Release(_, turn) if turn.freezes());
        match (others.len(), freezes) {
            (1, false) => format!("; {names} does not say what it holds"),
            (1, true) => format!(
                "; {names} does not say what it holds, and does not freeze if its verdict is off"
            ),
            (_, false) => format!("; {names} do not say what they hold"),
            (_, true) => format!(
                "; {names} do not say what they hold, and do not freeze if their verdict is off"
            ),
        }
    }

    /// Why one gateway does not count.
    fn shortcoming(&self, seen: &LastSeen) -> String {
        let (name, heard) = (&seen.heard.name, last_heard(seen));
        let Some(node) = &seen.heard.node else {
            return format!("{name} has a heartbeat that is not understood");
        };
        match &self.awaited {
            AwaitedState::Lists(AwaitedDigest {
                service, digest, ..
            }) => {
                let nodes = || self.seen.values().filter_map(|it| it.heard.node.as_ref());
                let awaited = AwaitedLists {
                    service: match service {
                        Some(it) => Some(it.as_str()).filter(|_| !it.is_default()),
                        None => nodes().find_map(|it| it.service_of(digest)),
                    },
                    entries: nodes().map(|it| it.entries_used).max().unwrap_or_default(),
                };
                let has = awaited.lacked_by(node);
                format!("{name} {has}, {heard})")
            }
            AwaitedState::Release(service, turn) => {
                let held = node.release_of(service).cloned().unwrap_or_default();
                format!("{name} {} ({heard})", turn.lacked_by(&held))
            }
        }
    }
}

/// What is waited for, as far as some gateway has it already.
struct AwaitedLists<'a> {
    /// The service whose lists these are, if that is not the default one.
    service: Option<&'a str>,
    /// The grammar of the entries that are in force somewhere.
    entries: u64,
}

impl AwaitedLists<'_> {
    /// What a gateway has instead; the parenthesis is open.
    fn lacked_by(&self, node: &Node) -> String {
        let of_service = self.service.map(|it| (it, node.services.get(it)));
        let (generation, digest, whose) = match of_service {
            None => (node.generation, &node.digest, String::new()),
            Some((service, Some(it))) => (it.generation, &it.digest, format!(" of {service}")),
            Some((service, None)) => (0, &None, format!(" of {service}, which it does not know")),
        };
        let holds = match digest {
            Some(digest) => format!("holds {digest}{whose} (generation {generation}"),
            None => format!("has no lists{whose} (generation 0"),
        };
        let behind = match node.entries < self.entries {
            true => ", it understands no entries but addresses",
            false => "",
        };
        let held = match held(node).as_slice() {
            [] => String::new(),
            held => format!(", held: {}", held.join(" ")),
        };
        format!("{holds}{held}{behind}")
    }
}

fn last_heard(seen: &LastSeen) -> String {
    match seen.heard.ago() {
        _ if seen.lost => "no longer heard from".to_owned(),
        Some(ago) => format!("heard from {:.1}s ago", ago.as_secs_f64()),
        None => "its key never expires".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fleet::tests::{NEW, OLD, heard};
    use crate::fleet::node::NodeService;
    use crate::fleet::release::NodeRelease;

    /// What is said after some looks, each so many milliseconds after the start.
    fn complaint(at_least: usize, looks: &[(u64, &[Heard])]) -> Option<String> {
        watched_for(&AwaitedState::of_any_service(NEW), at_least, looks).complaint()
    }

    fn watched_for(
        awaited: &AwaitedState,
        at_least: usize,
        looks: &[(u64, &[Heard])],
    ) -> AwaitedNodes {
        let mut watch = AwaitedNodes::new(awaited.clone(), at_least);
        let start = Instant::now();
        for (ms, heard) in looks {
            let at = start + Duration::from_millis(*ms);
            watch.look(heard.to_vec(), at, at);
        }
        watch
    }

    #[test]
    fn all_must_hold_it_and_so_many_as_are_wanted() {
        let (a, b) = (heard("a", Some(NEW), 5000), heard("b", Some(NEW), 5000));
        let old = heard("b", Some(OLD), 4500);
        let unread = heard("c", None, 4500);
        assert_eq!(complaint(0, &[(0, &[a.clone(), b.clone()])]), None);
        assert_eq!(complaint(2, &[(0, &[a.clone(), b.clone()])]), None);
        assert_eq!(
            complaint(
                1,
                &[
                    (0, std::slice::from_ref(&old)),
                    (1, std::slice::from_ref(&b))
                ]
            ),
            None
        );
        for (at_least, heard, said) in [
            (
                0,
                &[][..],
                "0 of 0 gateways hold 00000000000000bb, at least 1 required",
            ),
            (
                3,
                &[a.clone(), b],
                "2 of 2 gateways hold 00000000000000bb, at least 3 required",
            ),
            (
                1,
                &[a.clone(), old],
                "1 of 2 gateways hold 00000000000000bb; \
                 b holds 00000000000000aa (generation 2, heard from 1.5s ago)",
            ),
            (
                1,
                &[a.clone(), unread],
                "1 of 2 gateways hold 00000000000000bb; \
                 c has no lists (generation 0, heard from 1.5s ago)",
            ),
            (
                1,
                &[
                    a,
                    Heard {
                        name: "d".to_owned(),
                        node: None,
                        left: None,
                    },
                ],
                "1 of 2 gateways hold 00000000000000bb; d has a heartbeat that is not understood",
            ),
        ] {
            assert_eq!(complaint(at_least, &[(0, heard)]).as_deref(), Some(said));
        }
    }

    #[test]
    fn the_lists_of_another_service_do_not_count_though_they_are_the_same() {
        let with = |name: &str, own: &str| {
            let mut heard = heard(name, Some(NEW), 5000);
            for (service, digest) in [("api", NEW), ("web", own)] {
                let service_of = NodeService {
                    digest: Some(digest.to_owned()),
                    generation: 7,
                    ..NodeService::default()
                };
                let services = &mut heard.node.as_mut().unwrap().services;
                services.insert(service.to_owned(), service_of);
            }
            heard
        };
        let of = |service: &str| {
            let service = ServiceName::named(service).unwrap();
            AwaitedState::of_service(service, NEW.to_owned())
        };
        let heard = [with("a", NEW), with("b", OLD)];
        let said = |awaited: &AwaitedState| watched_for(awaited, 1, &[(0, &heard)]).complaint();
        assert_eq!(
            said(&of("web")).unwrap(),
            "1 of 2 gateways hold 00000000000000bb; \
             b holds 00000000000000aa of web (generation 7, heard from 1.0s ago)"
        );
        assert_eq!(said(&of("api")), None);
        assert_eq!(said(&of("default")), None);
        assert_eq!(said(&AwaitedState::of_any_service(NEW)), None);
        let look = FleetLook {
            heard: heard.to_vec(),
            ..FleetLook::default()
        };
        let without = |service: &str| -> Vec<String> {
            let service = ServiceName::named(service).unwrap();
            look.without(&service, NEW).map(str::to_owned).collect()
        };
        assert_eq!(
            (without("web"), without("api")),
            (vec!["b".to_owned()], vec![])
        );
    }

    #[test]
    fn lists_that_were_overtaken_are_held_by_whoever_has_those_that_came_after_them() {
        let mut awaited = AwaitedDigest {
            service: Some(ServiceName::default()),
            digest: NEW.to_owned(),
            overtaken: None,
        };
        awaited.overtaken_by(None);
        awaited.overtaken_by(Some(LaterLists {
            digest: "00000000000000cc".to_owned(),
            by: "change 8 (undo by ann)".to_owned(),
        }));
        // The history cannot be read.
        awaited.overtaken_by(None);
        let awaited = AwaitedState::Lists(awaited);
        let said = |digests: &[&str]| {
            let all = digests.iter().zip(["a", "b"]);
            let all: Vec<Heard> = all.map(|(it, name)| heard(name, Some(it), 5000)).collect();
            let watch = watched_for(&awaited, 1, &[(0, &all)]);
            watch.complaint().unwrap_or_else(|| watch.success())
        };
        let either = "00000000000000bb, or 00000000000000cc by change 8 (undo by ann), \
                      which has overtaken it";
        let expected = format!("all 2 gateways hold {either}");
        assert_eq!(said(&[NEW, "00000000000000cc"]), expected);
        let lacks = format!(
            "1 of 2 gateways hold {either}; \
             b holds 00000000000000aa (generation 2, heard from 1.0s ago)"
        );
        assert_eq!(said(&[NEW, OLD]), lacks);
    }

    #[test]
    fn one_that_ends_is_not_waited_for_and_one_that_falls_silent_is() {
        let a = || heard("a", Some(NEW), 5000);
        let old = || heard("b", Some(OLD), 300);
        let before: (u64, &[Heard]) = (0, &[a(), old()]);
        // Deleted, while it had time to live.
        assert_eq!(complaint(1, &[before, (299, &[a()])]), None);
        let lost = "1 of 2 gateways hold 00000000000000bb; \
                    b holds 00000000000000aa (generation 2, no longer heard from)";
        for looks in [
            &[before, (300, &[a()])][..],
            &[before, (300, &[a()]), (301, &[a()])],
        ] {
            assert_eq!(complaint(1, looks).as_deref(), Some(lost));
        }
        // It is heard from again.
        let again = heard("b", Some(NEW), 300);
        assert_eq!(
            complaint(1, &[before, (300, &[a()]), (900, &[a(), again])]),
            None
        );
        // One that held it and is silent is not known to.
        let held = heard("b", Some(NEW), 300);
        assert!(complaint(1, &[(0, &[a(), held]), (400, &[a()])]).is_some());
    }

    #[test]
    fn who_says_nothing_of_the_release_is_not_waited_for_and_is_named() {
        let says = |name: &str, is_frozen: bool| {
            let mut heard = heard(name, Some(OLD), 5000);
            let release = NodeRelease {
                is_frozen,
                ..NodeRelease::default()
            };
            heard.node.as_mut().unwrap().release = Some(release);
            heard
        };
        let turn = ReleaseTurn {
            before: NodeRelease::default(),
            after: NodeRelease {
                is_frozen: true,
                ..NodeRelease::default()
            },
        };
        let frozen = AwaitedState::Release(ServiceName::default(), turn);
        let said = |at_least: usize, heard: &[Heard]| {
            let watch = watched_for(&frozen, at_least, &[(0, heard)]);
            watch.complaint().unwrap_or_else(|| watch.success())
        };
        let (a, b) = (says("a", true), says("b", true));
        let old = heard("old", Some(OLD), 5000);
        let behind = says("b", false);
        for (at_least, heard, expected) in [
            (
                1,
                &[][..],
                "0 of 0 gateways have heard: the lists are frozen, at least 1 required",
            ),
            (
                1,
                &[a.clone()][..],
                "the only gateway has heard: the lists are frozen",
            ),
            (
                1,
                &[a.clone(), b][..],
                "all 2 gateways have heard: the lists are frozen",
            ),
            (
                1,
                &[a.clone(), old.clone()][..],
                "a has heard: the lists are frozen; old does not say what it holds, \
                 and does not freeze if its verdict is off",
            ),
            (
                1,
                &[old][..],
                "no gateway has confirmed it; old does not say what it holds, \
                 and does not freeze if its verdict is off",
            ),
            (
                1,
                &[a, behind][..],
                "1 of 2 gateways have heard: the lists are frozen; b is not frozen (heard from 1.0s ago)",
            ),
        ] {
            assert_eq!(said(at_least, heard), expected);
        }
        // Whoever waits is not told that it is so where nobody has said it.
        let alone = [heard("old", Some(OLD), 5000)];
        let mut watch = watched_for(&frozen, 1, &[(0, &alone)]);
        assert!(watch.complaint().is_some());
        watch.at_least = 0;
        assert_eq!(watch.complaint(), None);
        let mut watch = watched_for(&frozen, 1, &[(0, &[says("a", true)])]);
        watch.has_silent = true;
        assert_eq!(
            watch.success(),
            "the only gateway that is heard from has heard: the lists are frozen"
        );
    }
}
