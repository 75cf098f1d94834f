//! Whole decisions, as the proxy comes to them: lists from texts, requests from heads, testers' words, marks,
//! visitors, ends, salts, and how the pools stand. And what people are told of them.

use std::path::Path;
use std::sync::LazyLock;

use super::naive::{Naive, is_of_visitors};
use super::*;
use crate::config::{Config, GraySettings};
use crate::error::{Refusal, WrongForce};
use crate::lists::{ServiceName, canonical};
use crate::process::secret::Secret;
use crate::route::explain::{Candidate, Explanation, Question, RoutingRules, explain_at};
use crate::route::{DecidingEntry, Decision, grant, wish};

/// The secret that testers show where they must.
const SECRET: &str = "correct-horse-battery";

/// From where the proxy's requests come.
const PROXY: &str = "192.0.2.9";

/// What testers and proxies may say.
static SETTINGS: LazyLock<[GraySettings; 4]> = LazyLock::new(|| {
    let force = "force_header = X-Force\nforce_cookie = force\n";
    let secret = format!("{force}force_secret_file = s\nfollow_mark = on\n");
    let all = ["", "follow_mark = on\n", force, &secret];
    all.map(|lines| {
        let text = format!("[redis]\nurl = redis://h\n[gray]\nvisitor_cookie = v\n{lines}");
        let config = Config::parse(Path::new("/g.ini"), &text, None).unwrap();
        let mut settings = config.gray;
        let has_secret = settings.force_secret_file.is_some();
        settings.force_secret = has_secret.then(|| Arc::new(Secret::of(SECRET)));
        settings
    })
});

/// What decides besides the lists and the request.
#[derive(Clone, Debug)]
struct Surroundings {
    settings: usize,
    by_proxy: bool,
    pre: PoolStanding,
    prod: PoolStanding,
    fallback: bool,
    tripped: bool,
}

fn surroundings() -> impl Strategy<Value = Surroundings> {
    use PoolStanding::{Empty, Out, Usable};
    let standings = || prop_oneof![6 => Just(Usable), 1 => Just(Out), 1 => Just(Empty)];
    let all = (
        0..SETTINGS.len(),
        any::<bool>(),
        standings(),
        standings(),
        any::<bool>(),
        prop_oneof![3 => Just(false), 1 => Just(true)],
    );
    all.prop_map(
        |(settings, by_proxy, pre, prod, fallback, tripped)| Surroundings {
            settings,
            by_proxy,
            pre,
            prod,
            fallback,
            tripped,
        },
    )
}

impl Surroundings {
    fn settings(&self) -> &'static GraySettings {
        &SETTINGS[self.settings]
    }

    /// The pool that a tester or a proxy has said, read from the docs.
    fn wished(&self, naive: &Naive) -> Option<(PoolName, Reason)> {
        let pool = |name: &[u8]| match name {
            b"pre" => Some(PoolName::Pre),
            b"prod" => Some(PoolName::Prod),
            _ => None,
        };
        let (may_force, secret, follows) = match self.settings {
            0 => (false, "", false),
            1 => (false, "", true),
            2 => (true, "", false),
            _ => (true, SECRET, true),
        };
        let forced = |said: Option<&[u8]>| {
            let end = if secret.is_empty() {
                String::new()
            } else {
                format!(":{secret}")
            };
            pool(said?.strip_suffix(end.as_bytes())?)
        };
        let by_header = forced(naive.part(&header("x-force")));
        let forced = by_header.or_else(|| forced(naive.part(&cookie("force"))));
        if let Some(pool) = forced.filter(|_| may_force) {
            return Some((pool, Reason::Forced));
        }
        let mark = naive.part(&header("x-graygate-pool")).and_then(pool);
        let mark = mark.filter(|_| follows && self.by_proxy);
        mark.map(|pool| (pool, Reason::Marked))
    }

    /// Who serves in the end.
    fn granted(&self, pool: PoolName, reason: Reason) -> Result<(PoolName, Reason), Refusal> {
        use PoolStanding::{Empty, Out};
        let (pool, reason) = match (pool, self.pre, self.prod) {
            (PoolName::Pre, Empty, _) if self.fallback => (PoolName::Prod, Reason::PreEmpty),
            (PoolName::Pre, _, Out | PoolStanding::Usable)
                if self.tripped && reason != Reason::Forced =>
            {
                (PoolName::Prod, Reason::Tripped)
            }
            (PoolName::Pre, Out, Out | PoolStanding::Usable) if self.fallback => {
                (PoolName::Prod, Reason::PreOut)
            }
            _ => (pool, reason),
        };
        match (pool, self.pre, self.prod) {
            (PoolName::Pre, Empty, _) | (PoolName::Prod, _, Empty) => Err(Refusal::NoPeers),
            _ => Ok((pool, reason)),
        }
    }

    /// As the proxy does it; and whether the client is a new visitor.
    fn decide(
        &self,
        (client, head): (IpAddr, &str),
        lists: &Lists,
        scratch: &mut Scratch,
    ) -> (Result<Decision, Refusal>, Option<WrongForce>, bool) {
        let service = Service {
            lists,
            pre: self.pre,
            prod: self.prod,
            fallback: self.fallback,
            tripped: self.tripped,
        };
        let mut parsed = RequestHead::default();
        let outcome = parsed.parse(head.as_bytes(), &mut Scanner::default(), &LIMITS);
        assert!(matches!(outcome, Ok(Parsed::Complete)), "{head}");
        let subject = Subject::new(client, &parsed, head.as_bytes());
        let wish = wish(&subject, self.settings(), self.by_proxy);
        if let Some(wanted) = wish.decision {
            return (grant(wanted, &service), wish.refused, false);
        }
        let next_id = || VisitorId::of(7);
        let visitor = Visitor::new(b"v", &next_id);
        let subject = subject.with_visitor(&visitor);
        let now = lists.gray.expires().then(|| at(NOW));
        let decision = decide(&subject, &service, now, scratch);
        (decision, wish.refused, visitor.to_be_told().is_some())
    }

    /// What people are told.
    fn explain(&self, request: &Request, lists: &Arc<Lists>) -> Explanation {
        let fields = request.fields.iter();
        let headers: Vec<String> = fields
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let socket = match self.by_proxy {
            true => PROXY.parse().unwrap(),
            false => request.client,
        };
        let question = Question {
            socket,
            method: request.method,
            host: request.host,
            path: &request.target,
            headers: &headers,
        };
        let find = |_: &Subject<'_>| {
            Ok(Candidate {
                name: ServiceName::default(),
                lists: Arc::clone(lists),
                fallback: self.fallback,
                tripped: self.tripped,
                pre: self.pre,
                prod: self.prod,
                states: None,
            })
        };
        let rules = RoutingRules {
            trusted_proxies: &[IpNet::from(PROXY.parse::<IpAddr>().unwrap())],
            gray: self.settings(),
            find: &find,
        };
        explain_at(&question, &rules, at(NOW), &|| VisitorId::of(7)).unwrap()
    }
}

/// An entry as somebody else would write it: its terms in another order, one of them twice, more blanks, and
/// a `*` that says nothing.
fn written(rule: &Rule, turn: usize) -> String {
    let mut words: Vec<String> = rule.terms.iter().map(ToString::to_string).collect();
    let count = words.len();
    words.rotate_left(turn % count);
    if turn % 5 == 1 {
        // Two addresses are refused, even of the same client.
        let mut others = rule.terms.iter().filter(|it| !matches!(it, Term::Net(_)));
        words.extend(others.next().map(ToString::to_string));
    }
    if turn % 3 == 1 {
        words.insert(turn % count, "*".to_owned());
    }
    let attributes = Rule {
        excludes: false,
        terms: [Term::Everybody].into(),
        ..rule.clone()
    };
    let attributes = attributes.to_string();
    let sign = if rule.excludes { "!" } else { "" };
    let blank = if turn % 2 == 1 { " \t " } else { " " };
    format!("{sign}{}{}", words.join(blank), &attributes[1..])
}

/// True for a term that has a text which means it: a method in any case has none.
fn is_readable(term: &Term) -> bool {
    let read = GrayList::parse([rule(std::slice::from_ref(term)).to_string()]);
    match (term, read.rules()) {
        (Term::Net(net), []) => read.has(net),
        (_, [read]) => *read.terms == [term.clone()],
        _ => false,
    }
}

/// Rules, and the texts that they were read from.
fn texts(rules: Vec<Rule>, turns: &[usize]) -> (Vec<Rule>, Vec<String>) {
    let is_net = |it: &&Term| matches!(it, Term::Net(_));
    let readable = rules.into_iter().filter_map(|mut rule| {
        rule.terms = rule.terms.into_iter().filter(is_readable).collect();
        // Two are refused, and nobody means them.
        let reads = rule.terms.iter().filter(is_net).count() < 2;
        (reads && !rule.terms.is_empty()).then_some(rule)
    });
    let rules: Vec<Rule> = readable.collect();
    let with_turns = rules.iter().zip(turns);
    let texts = with_turns.map(|(rule, turn)| written(rule, *turn));
    let texts = texts.collect();
    (rules, texts)
}

fn lists_of_texts(gray: Vec<String>, salt: &Salt) -> Lists {
    let one = vec!["10.0.0.1".to_owned()];
    let (pre, prod) = (one.clone(), one);
    let shared = Lists::parse(1, ByList { gray, pre, prod }, 80).shared();
    let gray = Arc::new((*shared.gray).clone().with_salt(salt.clone()));
    Lists::new(1, ByList { gray, ..shared })
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn what_is_decided_and_explained_is_what_a_naive_reading_decides(
        rules in vec(rules(), 0..8),
        turns in vec(0_usize..30, 8),
        nets in vec(nets(), 0..3),
        requests in vec((requests(), surroundings()), 1..4),
        salt in "[a-z]{0,3}",
    ) {
        let (rules, mut texts) = texts(rules, &turns);
        texts.extend(nets.iter().map(IpNet::to_string));
        let salt = Salt::new(salt.as_bytes());
        let lists = Arc::new(lists_of_texts(texts.clone(), &salt));
        let gray = &lists.gray;
        prop_assert_eq!(gray.skipped().count, 0, "{:?}", texts);
        let mut scratch = Scratch::default();
        for (mut request, around) in requests {
            if around.by_proxy {
                let client = request.client.to_string();
                request.fields.insert(0, ("X-Forwarded-For".to_owned(), client));
            }
            let head = request.text();
            let told = format!("{texts:?} {around:?} {head}");
            let naive = Naive::of(request.client, &head, salt.text(), at(NOW));
            // By what was written, whatever became of it.
            let is_listed = nets.iter().any(|net| naive::covers(*net, request.client));
            let [excluded, admitted] = [true, false].map(|it| naive.first(&rules, it).is_some());
            let wished = around.wished(&naive);
            let (pool, reason) = match wished {
                Some(wished) => wished,
                None if excluded => (PoolName::Prod, Reason::Excluded),
                None if is_listed || admitted => (PoolName::Pre, Reason::Listed),
                None => (PoolName::Prod, Reason::Unlisted),
            };
            let expected = around.granted(pool, reason);
            let (decision, refused, is_new) =
                around.decide((request.client, &head), &lists, &mut scratch);
            let decided = decision.map(|it| (it.pool, it.reason));
            prop_assert_eq!(&decided, &expected, "{}", told);
            // By which entry: the first in the order of the list.
            let of_list = |excludes| naive.first(gray.rules(), excludes);
            let net = gray.nets().filter(|net| naive::covers(*net, request.client));
            let net = net.max_by_key(IpNet::prefix_len);
            let (entry, bucket) = match (of_list(true), net, of_list(false)) {
                _ if wished.is_some() || expected.is_err() => (None, None),
                (Some((place, bucket)), ..) | (None, None, Some((place, bucket))) => {
                    (Some(gray.rules()[place].to_string()), bucket)
                }
                (None, Some(net), _) => (Some(canonical(net)), None),
                (None, None, None) => (None, None),
            };
            let by_entry = decision.ok().and_then(|it| it.entry);
            let by_rule = by_entry.and_then(|it| match it {
                DecidingEntry::Rule(it) => Some((gray.rules()[it.place as usize].to_string(), it.bucket)),
                DecidingEntry::Address => None,
            });
            prop_assert_eq!(by_entry.is_some(), entry.is_some(), "{}", told);
            if let Some(by_rule) = by_rule {
                prop_assert_eq!(by_rule, (entry.clone().unwrap(), bucket), "{}", told);
            }
            // Who is given a visitor's cookie: whoever had to be looked for, and nobody else.
            let [by_excluding, by_admitting] =
                [true, false].map(|it| naive.becomes_visitor(gray.rules(), it));
            let by_address = gray.nets().any(|net| naive::covers(net, request.client));
            let gets_there = !excluded && !by_address;
            let becomes = [0, 1].map(|it| by_excluding[it] || gets_there && by_admitting[it]);
            let [certainly, perhaps] = becomes.map(|it| it && wished.is_none() && !naive.is_visitor());
            prop_assert!(is_new <= perhaps && certainly <= is_new, "{} {}", is_new, told);
            // What people are told is the same.
            let explained = around.explain(&request, &lists);
            let name = decided.map(|it| (it.0.name().to_owned(), it.1.name().to_owned()));
            prop_assert_eq!(explained.pool.zip(explained.reason), name.ok(), "{}", told);
            let refusal = expected.err().map(|it| it.name().to_owned());
            prop_assert_eq!(explained.refusal, refusal, "{}", told);
            prop_assert_eq!(explained.client, request.client.to_string(), "{}", told);
            prop_assert_eq!(explained.entry, entry, "{}", told);
            let bucket = bucket.map(|it| format!("{:.2}", f64::from(it) / 100.0));
            prop_assert_eq!(explained.bucket, bucket, "{}", told);
            let refused = refused.map(|it| it.name().to_owned());
            prop_assert_eq!(explained.force_refused, refused, "{}", told);
            prop_assert_eq!(explained.visitor_is_new, is_new, "{}", told);
            // And so is what each entry makes of the request. Nobody becomes a visitor by that.
            let is_visitor = is_new || naive.is_visitor();
            let mut hold: Vec<String> = Vec::new();
            for it in gray.rules() {
                let by_visitor = it.terms.iter().any(is_of_visitors);
                if (is_visitor || !by_visitor) && naive.hold(it) {
                    hold.push(it.to_string());
                }
            }
            let near = explained.near.into_iter().filter(|it| it.holds);
            let mut near: Vec<String> = near.map(|it| it.entry).collect();
            near.sort();
            hold.sort();
            prop_assert_eq!(near, hold, "{}", told);
        }
    }
}
