//! What a release stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::model::{InForceSeen, ListsSeen, bucket};
use super::watch::{Timeline, Watch};
use crate::support::{Client, Commands, DEADLINE, Gateway, Origin, Redis, Setup, ok, wait_until};

const GATEWAYS: usize = 3;

/// The secret that the messages are signed with.
const SECRET: &str = "a-secret-that-nobody-is-told";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What Redis has of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreSeen {
    pub(crate) lists: ListsSeen,
    pub(crate) salt: Option<String>,
    pub(crate) is_tripped: bool,
}

/// A server that says its name.
struct Server {
    name: String,
    origin: Origin,
}

pub(crate) struct World {
    /// An operator's, on the machine of the first gateway.
    commands: Commands,
    watches: Vec<Watch<InForceSeen>>,
    pub(crate) store: Watch<StoreSeen>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) redis: Redis,
    servers: Vec<Server>,
    /// Two of five requests to the new version fail.
    is_broken: Arc<AtomicBool>,
    /// Where people are told.
    receiver: Origin,
}

fn server(name: &str, is_broken: &Arc<AtomicBool>) -> Server {
    let (said, asked) = (name.to_owned(), AtomicUsize::new(0));
    let is_broken = Arc::clone(is_broken);
    let origin = Origin::answering(move |_| {
        let fails = said.starts_with("new-") && is_broken.load(Ordering::SeqCst);
        let number = asked.fetch_add(1, Ordering::Relaxed);
        match fails && number % 5 < 2 {
            true => {
                let length = said.len();
                format!("HTTP/1.1 500 Oops\r\nContent-Length: {length}\r\n\r\n{said}").into_bytes()
            }
            false => ok(&said),
        }
    });
    Server {
        name: name.to_owned(),
        origin,
    }
}

impl Deref for World {
    type Target = Commands;

    fn deref(&self) -> &Commands {
        &self.commands
    }
}

impl World {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let is_broken = Arc::default();
        let names = ["old-1", "old-2", "new-1", "new-2", "mended-1", "mended-2"];
        let servers = names.map(|it| server(it, &is_broken));
        let redis = Redis::start();
        let of = |version: &str| -> Vec<&dyn std::fmt::Display> {
            let all = servers.iter().filter(|it| it.name.starts_with(version));
            all.map(|it| &it.origin as _).collect()
        };
        redis.push("pre", &of("new"));
        redis.push("prod", &of("old"));
        let receiver = Origin::saying(ok(""));
        let start = |number: usize| {
            let setup = Setup::new()
                .redis(redis.url())
                .file("secret", &format!("{SECRET}\n"))
                .set("redis.node", format!("gw-{number}"))
                .set("redis.heartbeat", "2s")
                .set("gray.expose", "all")
                .set("verdict.mode", "enforce")
                .set("verdict.client", "cookie:uid")
                // Six good requests are enough for the next step.
                .set("verdict.tolerate", "50%")
                .set("verdict.webhook", format!("http://{receiver}/hook"))
                .set("verdict.webhook_secret_file", "secret");
            let gateway = setup.start();
            gateway.wait_for_lists("its lists", |it| it["generation"] != 0);
            gateway
        };
        let gateways: Vec<Gateway> = (1..=GATEWAYS).map(start).collect();
        let watches = gateways.iter().map(watch_gateway).collect();
        let commands = Commands::of(&gateways[0].path("graygate.ini"));
        Self {
            commands,
            watches,
            store: watch_store(&redis),
            gateways,
            redis,
            servers: servers.into(),
            is_broken,
            receiver,
        }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(Gateway::addr).collect()
    }

    /// Addresses by name.
    pub(crate) fn servers(&self) -> BTreeMap<String, String> {
        let all = self.servers.iter();
        all.map(|it| (it.name.clone(), it.origin.to_string()))
            .collect()
    }

    /// The servers whose names begin so.
    pub(crate) fn version(&self, name: &str) -> BTreeSet<String> {
        let all = self.servers();
        let own = all.iter().filter(|(it, _)| it.starts_with(name));
        own.map(|(_, address)| address.clone()).collect()
    }

    /// How often these servers were asked.
    pub(crate) fn asked(&self, version: &str) -> usize {
        let own = self.servers.iter();
        let own = own.filter(|it| it.name.starts_with(version));
        own.map(|it| it.origin.seen(|it| it.requests.len())).sum()
    }

    /// From now on, the new version fails for some; when that is.
    pub(crate) fn break_new_version(&self) -> Instant {
        let now = Instant::now();
        self.is_broken.store(true, Ordering::SeqCst);
        now
    }

    /// And no longer.
    pub(crate) fn mend_new_version(&self) {
        self.is_broken.store(false, Ordering::SeqCst);
    }

    /// Makes this the new version.
    #[track_caller]
    pub(crate) fn replace_pre(&self, version: &str) {
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg("pre").ignore();
        let servers: Vec<String> = self.version(version).into_iter().collect();
        pipe.cmd("RPUSH").arg("pre").arg(servers).ignore();
        pipe.exec(&mut self.redis.connect(0)).unwrap();
    }

    /// The history, the oldest first.
    #[track_caller]
    pub(crate) fn history(&self) -> Vec<Value> {
        let mut all = self.records(&[]);
        all.reverse();
        all
    }

    /// Waits until Redis has this.
    #[track_caller]
    pub(crate) fn wait_stored(
        &self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&StoreSeen) -> bool,
    ) {
        wait_until(what, limit, || holds(&self.store.last().seen));
    }

    /// Waits until it is in force on all gateways what Redis has.
    #[track_caller]
    pub(crate) fn wait_in_force(&self) {
        let lists = self.store.last().seen.lists;
        wait_until("it is in force", DEADLINE, || {
            self.watches.iter().all(|it| it.last().seen.lists == lists)
        });
    }

    /// Waits until the version is taken back on all gateways.
    #[track_caller]
    pub(crate) fn wait_tripped(&self, limit: Duration) {
        wait_until("it is taken back everywhere", limit, || {
            self.watches.iter().all(|it| it.last().seen.is_tripped)
        });
    }

    /// The salt of the release that is under way.
    #[track_caller]
    pub(crate) fn salt(&self) -> String {
        let salt = self.redis.cli(&["GET", "graygate:salt"]);
        redis::from_redis_value(salt).unwrap()
    }

    /// What was in force on each gateway until now.
    pub(crate) fn timelines(&self) -> Vec<Timeline<InForceSeen>> {
        self.watches.iter().map(Watch::timeline).collect()
    }

    /// The messages that people got, as far as they are signed as they should be.
    #[track_caller]
    pub(crate) fn messages(&self) -> Vec<Value> {
        let all = self.receiver.requests();
        let all = all.iter().map(|it| {
            let tag = signature(&it.content);
            assert_eq!(it.field("x-hub-signature-256"), Some(tag));
            serde_json::from_slice(&it.content).unwrap()
        });
        all.collect()
    }
}

/// RFC 2104, by hand.
fn signature(text: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let pad = |byte: u8| -> Vec<u8> {
        let key = SECRET.bytes().chain(std::iter::repeat(0));
        key.take(64).map(|it| it ^ byte).collect()
    };
    let inner = Sha256::digest([&pad(0x36), text].concat());
    let tag = Sha256::digest([&pad(0x5c)[..], &inner[..]].concat());
    let tag: String = tag.iter().map(|it| format!("{it:02x}")).collect();
    format!("sha256={tag}")
}

fn texts<T: FromIterator<String>>(value: &Value) -> T {
    let all = value.as_array().unwrap().iter();
    all.map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn watch_gateway(gateway: &Gateway) -> Watch<InForceSeen> {
    let admin = gateway.admin();
    Watch::start(LOOK, move || {
        let request = "GET /lists HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let page = Client::from_another(admin).ask(request);
        let page: Value = serde_json::from_str(&page.text()).unwrap();
        let lists = ListsSeen {
            gray: texts(&page["gray"]),
            pre: texts(&page["pre"]),
            prod: texts(&page["prod"]),
        };
        let is_tripped = !page["tripped"].is_null();
        InForceSeen { lists, is_tripped }
    })
}

fn watch_store(redis: &Redis) -> Watch<StoreSeen> {
    let mut connection = redis.connect(0);
    let mut pipe = redis::pipe();
    pipe.atomic();
    for key in ["gray", "pre", "prod"] {
        pipe.cmd("LRANGE").arg(key).arg(0).arg(-1);
    }
    pipe.cmd("GET").arg("graygate:salt");
    pipe.cmd("EXISTS").arg("graygate:tripped");
    type Found = (
        Vec<String>,
        BTreeSet<String>,
        BTreeSet<String>,
        Option<String>,
        bool,
    );
    Watch::start(LOOK, move || {
        let found: Found = pipe.query(&mut connection).unwrap();
        let (gray, pre, prod, salt, is_tripped) = found;
        let lists = ListsSeen { gray, pre, prod };
        StoreSeen {
            lists,
            salt,
            is_tripped,
        }
    })
}

/// Names of clients; as many as wanted are in these parts of 10,000.
pub(crate) fn uids(
    prefix: &str,
    salt: &str,
    wanted: &[(usize, std::ops::Range<u64>)],
) -> Vec<String> {
    let mut uids = Vec::new();
    for (count, part) in wanted {
        let all = (0..).map(|it| format!("{prefix}-{it}"));
        let of_it = all.filter(|it| part.contains(&bucket(salt, it)));
        uids.extend(of_it.take(*count));
    }
    uids
}
