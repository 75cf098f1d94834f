//! What a gateway tells others about itself: the content of its heartbeats. No I/O.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::release::{NodeRelease, PeersUp};
use crate::fleet::plain::plain;
use crate::lists::ServiceName;

/// A gateway, as it was at one of its heartbeats.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Its name among the gateways on one Redis.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The digest of the lists in force; none before there are any.
    pub digest: Option<String>,
    /// The generation of the lists in force.
    pub generation: u64,
    /// Seconds since the lists were last read in full, if they were.
    pub age_seconds: Option<f64>,
    /// How changes are noticed: see [`Mode::name`](crate::store::Mode::name).
    pub mode: String,
    /// The names of the lists of which a change is held.
    pub held: Vec<String>,
    /// The digest of the list `pre` whose version is taken back, if it is.
    pub tripped: Option<String>,
    /// What it holds of the release beside the lists; none where it does not say.
    pub release: Option<NodeRelease>,
    /// How the servers of `pre` do there; none where it does not say.
    pub pre: Option<PeersUp>,
    /// The services besides the default one, by their names.
    pub services: BTreeMap<String, NodeService>,
    /// Up to which grammar it understands entries of `gray`: see [`GRAMMAR`]; 1 where it does not say.
    pub entries: u64,
    /// What grammar its own lists need.
    pub entries_used: u64,
    /// What it has seen of the releases that are under way, by their services.
    pub verdicts: BTreeMap<String, NodeVerdict>,
    /// Identifies the process, beyond name and process id.
    pub instance: String,
    /// The process id.
    pub pid: u64,
    /// When it was started, as in RFC 3339.
    pub started_at: String,
    /// The time to live that goes with the heartbeat, in milliseconds.
    pub ttl_ms: u64,
}

/// The grammar of entries of `gray` that this version understands. In the first there were addresses and nets
/// only; in the second there are terms of whatever a request has.
pub(crate) const GRAMMAR: u64 = 2;

/// What a gateway says of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeService {
    /// The digest of its lists in force; none before there are any.
    pub digest: Option<String>,
    /// Their generation.
    pub generation: u64,
    /// The names of its lists of which a change is held.
    pub held: Vec<String>,
    /// The digest of its list `pre`, if that version is taken back.
    pub tripped: Option<String>,
    /// What the gateway holds of its release beside the lists, and how the servers of its `pre` do; none
    /// where it does not say.
    pub release: Option<NodeRelease>,
    pub pre: Option<PeersUp>,
}

impl NodeService {
    fn members(&self) -> Value {
        let mut members =
            json!({ "digest": self.digest, "generation": self.generation, "held": self.held });
        if let Some(pre) = &self.tripped {
            members["tripped"] = json!(pre);
        }
        add_release(&mut members, self.release.as_ref(), self.pre);
        members
    }

    fn of(value: &Value) -> Self {
        let held = value["held"].as_array().into_iter().flatten();
        Self {
            digest: value["digest"].as_str().map(plain),
            generation: value["generation"].as_u64().unwrap_or_default(),
            held: held.filter_map(Value::as_str).map(plain).collect(),
            tripped: value["tripped"].as_str().map(plain),
            release: NodeRelease::of(&value["release"]),
            pre: PeersUp::of(&value["pre"]),
        }
    }
}

/// Adds what there is to say.
fn add_release(members: &mut Value, release: Option<&NodeRelease>, pre: Option<PeersUp>) {
    if let Some(release) = release {
        members["release"] = release.members();
    }
    if let Some(pre) = pre {
        members["pre"] = pre.members();
    }
}

/// The most hashes of clients that are read of a heartbeat.
const CLIENTS: usize = 64;

/// What a gateway has seen of a release.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeVerdict {
    /// Which release: what belongs to another one, or to another step of it, says nothing of this.
    pub release: String,
    /// What it finds itself, with what it knows of others.
    pub finding: String,
    /// Of failures.
    pub failing: NodeEvidence,
    /// Of slow answers.
    pub slow: NodeEvidence,
    /// Hashes of the clients behind bad units of `pre`, which are the same on all gateways; not all of them.
    pub bad_clients: Vec<u64>,
    /// Clients that `pre` had there in the last hour, as far as they are counted.
    pub pre_clients: u64,
    /// Units a second: of `pre`, and of `prod`.
    pub per_second: [f64; 2],
}

/// The evidence of a gateway, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeEvidence {
    /// For each odds ratio that is looked for the logarithm of the evidence; the same of the last minutes;
    /// and how often these have begun anew.
    pub sums: Vec<f64>,
    /// The logarithm of the evidence that it is tolerable.
    pub tolerable: f64,
    /// Units of `pre`, and how many of them are bad.
    pub pre: [u64; 2],
    /// The same of `prod`.
    pub prod: [u64; 2],
}

impl NodeEvidence {
    /// So much more or less, in logarithms, is worth telling at once.
    const MUCH: f64 = std::f64::consts::LN_2;

    fn members(&self) -> Value {
        let ([n, x], [others, bad]) = (self.pre, self.prod);
        json!({
            "n": n,
            "x": x,
            "N": n + others,
            "m": x + bad,
            "sums": self.sums,
            "tolerable": self.tolerable,
        })
    }

    fn of(value: &Value) -> Self {
        let count = |name: &str| value[name].as_u64().unwrap_or_default();
        let pre = [count("n"), count("x")];
        let sums = value["sums"].as_array().into_iter().flatten();
        Self {
            sums: sums.filter_map(Value::as_f64).take(CLIENTS).collect(),
            tolerable: value["tolerable"].as_f64().unwrap_or_default(),
            pre,
            prod: [
                count("N").saturating_sub(pre[0]),
                count("m").saturating_sub(pre[1]),
            ],
        }
    }

    fn differs_much(&self, other: &Self) -> bool {
        let is_much = |(one, other): (&f64, &f64)| (one - other).abs() >= Self::MUCH;
        self.sums.len() != other.sums.len() || self.sums.iter().zip(&other.sums).any(is_much)
    }
}

impl NodeVerdict {
    fn members(&self) -> Value {
        let mut members = self.failing.members();
        let clients = self.bad_clients.iter().map(|it| format!("{it:016x}"));
        members["release"] = self.release.as_str().into();
        members["finding"] = self.finding.as_str().into();
        members["slow"] = self.slow.members();
        members["bad_clients"] = clients.collect();
        members["pre_clients"] = self.pre_clients.into();
        members["per_second"] = json!(self.per_second);
        members
    }

    /// `None` where it does not say of which release.
    fn of(value: &Value) -> Option<Self> {
        let clients = value["bad_clients"].as_array().into_iter().flatten();
        let clients = clients.filter_map(|it| u64::from_str_radix(it.as_str()?, 16).ok());
        let pace = |at: usize| {
            let pace = value["per_second"][at].as_f64();
            pace.filter(|it| it.is_finite() && *it >= 0.0)
        };
        Some(Self {
            release: value["release"].as_str().map(plain)?,
            finding: value["finding"].as_str().map(plain).unwrap_or_default(),
            failing: NodeEvidence::of(value),
            slow: NodeEvidence::of(&value["slow"]),
            bad_clients: clients.take(CLIENTS).collect(),
            pre_clients: value["pre_clients"].as_u64().unwrap_or_default(),
            per_second: [0, 1].map(|at| pace(at).unwrap_or_default()),
        })
    }

    /// Whether others should hear of it before long.
    pub(crate) fn differs_much(&self, told: &Self) -> bool {
        (&self.release, &self.finding) != (&told.release, &told.finding)
            || self.failing.differs_much(&told.failing)
            || self.slow.differs_much(&told.slow)
    }
}

impl Node {
    /// The text of a heartbeat.
    pub(crate) fn to_json(&self) -> String {
        self.members().to_string()
    }

    /// What a heartbeat says.
    pub(crate) fn members(&self) -> Value {
        let mut members = json!({
            "node": self.name,
            "version": self.version,
            "digest": self.digest,
            "generation": self.generation,
            "age_seconds": self.age_seconds,
            "mode": self.mode,
            "held": self.held,
            "entries": self.entries,
            "entries_used": self.entries_used,
            "instance": self.instance,
            "pid": self.pid,
            "started_at": self.started_at,
            "ttl_ms": self.ttl_ms,
        });
        if let Some(pre) = &self.tripped {
            members["tripped"] = json!(pre);
        }
        add_release(&mut members, self.release.as_ref(), self.pre);
        if !self.services.is_empty() {
            let services = self.services.iter();
            let services = services.map(|(name, it)| (name.clone(), it.members()));
            members["services"] = Value::Object(services.collect());
        }
        if !self.verdicts.is_empty() {
            let verdicts = self.verdicts.iter();
            let verdicts = verdicts.map(|(name, it)| (name.clone(), it.members()));
            members["verdicts"] = Value::Object(verdicts.collect());
        }
        members
    }

    /// True when it holds lists of this digest, of whichever service.
    pub(crate) fn holds(&self, digest: &str) -> bool {
        let services = self.services.values();
        let mut digests = services.map(|it| &it.digest).chain([&self.digest]);
        digests.any(|it| it.as_deref() == Some(digest))
    }

    /// The digest of the lists of a service; none before there are any.
    pub(crate) fn digest_of(&self, service: &ServiceName) -> Option<&str> {
        match service.is_default() {
            true => self.digest.as_deref(),
            false => self.services.get(service.as_str())?.digest.as_deref(),
        }
    }

    /// The service besides the default one whose lists have this digest, if it has one.
    pub(crate) fn service_of(&self, digest: &str) -> Option<&str> {
        let mut services = self.services.iter();
        let found = services.find(|(_, it)| it.digest.as_deref() == Some(digest));
        found.map(|(name, _)| &**name)
    }

    /// What it holds of the release of a service, if it says so.
    pub(crate) fn release_of(&self, service: &ServiceName) -> Option<&NodeRelease> {
        match service.is_default() {
            true => self.release.as_ref(),
            false => self.services.get(service.as_str())?.release.as_ref(),
        }
    }

    /// How the servers of `pre` of a service do there, if it says so.
    pub(crate) fn pre_of(&self, service: &ServiceName) -> Option<PeersUp> {
        match service.is_default() {
            true => self.pre,
            false => self.services.get(service.as_str())?.pre,
        }
    }

    /// Parses a heartbeat, which anybody may have written; `None` when it is something else. What only
    /// later versions know is ignored.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let page: Value = serde_json::from_slice(text).ok()?;
        let text = |name: &str| page[name].as_str().map(plain);
        let held = page["held"].as_array().into_iter().flatten();
        let services = page["services"].as_object().into_iter().flatten();
        let verdicts = page["verdicts"].as_object().into_iter().flatten();
        let grammar = |name: &str| page[name].as_u64().unwrap_or(1);
        Some(Self {
            name: text("node")?,
            version: text("version")?,
            digest: text("digest"),
            generation: page["generation"].as_u64()?,
            age_seconds: page["age_seconds"].as_f64(),
            mode: text("mode")?,
            held: held.filter_map(Value::as_str).map(plain).collect(),
            tripped: text("tripped"),
            release: NodeRelease::of(&page["release"]),
            pre: PeersUp::of(&page["pre"]),
            services: services
                .map(|(name, it)| (plain(name), NodeService::of(it)))
                .collect(),
            entries: grammar("entries"),
            entries_used: grammar("entries_used"),
            verdicts: verdicts
                .filter_map(|(name, it)| Some((plain(name), NodeVerdict::of(it)?)))
                .collect(),
            instance: text("instance")?,
            pid: page["pid"].as_u64().unwrap_or_default(),
            started_at: text("started_at").unwrap_or_default(),
            ttl_ms: page["ttl_ms"].as_u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> NodeVerdict {
        let evidence = |sums: &[f64]| NodeEvidence {
            sums: sums.to_vec(),
            tolerable: -0.125,
            pre: [41, 3],
            prod: [3900, 2],
        };
        NodeVerdict {
            release: "0123456789abcdef/".to_owned(),
            finding: "suspect".to_owned(),
            failing: evidence(&[0.1, 1.0 / 3.0]),
            slow: evidence(&[-1.5e-9]),
            bad_clients: vec![u64::MAX, 1],
            pre_clients: 5,
            per_second: [0.1, 99.5],
        }
    }

    fn node() -> Node {
        Node {
            name: "a".to_owned(),
            version: "1.2.3".to_owned(),
            digest: Some("0123456789abcdef".to_owned()),
            generation: 7,
            age_seconds: Some(0.25),
            mode: "events".to_owned(),
            held: vec!["prod".to_owned()],
            tripped: Some("00000000deadbeef".to_owned()),
            release: Some(NodeRelease::default()),
            pre: Some(PeersUp { up: 1, all: 2 }),
            services: BTreeMap::from([(
                "shop".to_owned(),
                NodeService {
                    digest: Some("fedcba9876543210".to_owned()),
                    generation: 3,
                    held: vec!["gray".to_owned()],
                    tripped: Some("11111111deadbeef".to_owned()),
                    release: Some(NodeRelease {
                        epoch: "e".to_owned(),
                        is_frozen: true,
                        rollout: Some("paused".to_owned()),
                    }),
                    pre: Some(PeersUp { up: 3, all: 3 }),
                },
            )]),
            entries: GRAMMAR,
            entries_used: 1,
            verdicts: BTreeMap::from([("shop".to_owned(), verdict())]),
            instance: "i".to_owned(),
            pid: 1,
            started_at: "2026-11-25T19:16:26.123Z".to_owned(),
            ttl_ms: 6000,
        }
    }

    #[test]
    fn a_heartbeat_is_read_as_it_was_written() {
        let unread = Node {
            digest: None,
            age_seconds: None,
            held: Vec::new(),
            tripped: None,
            release: None,
            pre: None,
            services: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            ..node()
        };
        for node in [node(), unread] {
            assert_eq!(Node::parse(node.to_json().as_bytes()), Some(node));
        }
    }

    #[test]
    fn what_is_no_heartbeat_is_none_and_what_is_later_is_ignored() {
        for text in ["", "x", "[]", "{}", "{\"node\":\"a\"}", "\u{7f}"] {
            assert_eq!(Node::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Node::parse(b"\xff"), None);
        let later = node().to_json().replacen('{', "{\"more\":[1],", 1);
        assert_eq!(Node::parse(later.as_bytes()), Some(node()));
    }

    #[test]
    fn of_evidence_that_makes_no_sense_nothing_is_believed_that_could_do_harm() {
        let with = |verdict: Value| {
            let mut members = node().members();
            members["verdicts"] = json!({ "shop": verdict });
            Node::parse(members.to_string().as_bytes()).unwrap()
        };
        assert!(with(json!(7)).verdicts.is_empty());
        assert!(with(json!({ "sums": [1.0] })).verdicts.is_empty());
        let many: Vec<&str> = vec!["1f"; 1000];
        let node = with(json!({
            "release": "a b", "n": 5, "x": 4, "N": 3, "m": -1, "sums": "x",
            "bad_clients": many, "per_second": [-1.0, "x"],
        }));
        let read = &node.verdicts["shop"];
        assert_eq!(read.release, "a?b");
        assert_eq!((read.failing.pre, read.failing.prod), ([5, 4], [0, 0]));
        assert!(read.failing.sums.is_empty() && read.slow == NodeEvidence::default());
        assert_eq!(read.bad_clients, [0x1f; CLIENTS]);
        assert_eq!(read.per_second, [0.0, 0.0]);
    }

    #[test]
    fn evidence_is_worth_telling_when_it_is_twice_as_much_or_says_something_else() {
        let told = verdict();
        let with_sum = |sum: f64| {
            let mut verdict = verdict();
            verdict.failing.sums[1] += sum;
            verdict
        };
        assert!(!with_sum(0.6).differs_much(&told));
        assert!(with_sum(0.7).differs_much(&told));
        assert!(with_sum(-0.7).differs_much(&told));
        let other = |change: &dyn Fn(&mut NodeVerdict)| {
            let mut verdict = verdict();
            change(&mut verdict);
            verdict.differs_much(&told)
        };
        assert!(other(&|it| it.release.push('x')));
        assert!(other(&|it| it.finding.push('x')));
        assert!(other(&|it| it.slow.sums[0] = 3.0));
        assert!(!other(&|it| it.failing.pre[0] += 1000));
    }

    #[test]
    fn nothing_in_a_heartbeat_commands_a_terminal() {
        let text = node().to_json().replace("events", "\\u001b[2Jx y");
        let mode = Node::parse(text.as_bytes()).unwrap().mode;
        assert_eq!(mode, "?[2Jx?y");
    }

    #[test]
    fn an_older_gateway_understands_addresses_only_and_has_one_service() {
        let mut members = node().members();
        for name in [
            "entries",
            "entries_used",
            "services",
            "verdicts",
            "release",
            "pre",
        ] {
            members.as_object_mut().unwrap().remove(name);
        }
        let node = Node::parse(members.to_string().as_bytes()).unwrap();
        assert_eq!((node.entries, node.entries_used), (1, 1));
        assert!(node.services.is_empty());
        let service = ServiceName::default();
        assert_eq!(
            (node.release_of(&service), node.pre_of(&service)),
            (None, None)
        );
        assert!(node.holds("0123456789abcdef") && !node.holds("fedcba9876543210"));
    }
}
