//! What a server says of its own standing: whether its data are to be trusted.
//!
//! It is asked ahead of each reading, in the same write, which takes no extra time: by ROLE, or by INFO
//! if that is refused or its answer is unknown here; if INFO does not say either, the standing is
//! unknown. Lists are not taken from a replica that has not had its master's data since it was started,
//! or that has nothing at all while it has no master: nobody has removed what it lacks. They are still
//! taken from a replica that had the data and lost its master, but that is reported. Nor are they taken
//! from a server that has none of the lists since it was restarted (`run_id`), or since its master was
//! (`master_replid`): then its data are not the same data any more (`origin`). Where it has lists of some
//! services, those of the others are kept (`watcher/doubts`).

use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::errors::is_refusal;
use super::info::Info;
use super::link::Link;
use super::origin::SeenOrigin;
use crate::store::Fault;

/// The standing of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerStanding {
    /// It is a master, or a replica whose link to its master is up; or nothing else is known.
    Settled,
    /// It is a replica whose link to this master is down, or which is loading its data right now.
    Adrift(String),
}

/// How a server is asked for its standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StandingQuery {
    #[default]
    Role,
    Info,
    /// It does not say.
    None,
}

impl StandingQuery {
    /// The command.
    pub(crate) fn packed(self) -> Option<Vec<u8>> {
        match self {
            Self::Role => Some(redis::cmd("ROLE").get_packed_command()),
            Self::Info => Some(redis::cmd("INFO").arg("replication").get_packed_command()),
            Self::None => None,
        }
    }

    /// What the reply means; a refusal or an unknown reply leads to the next question.
    ///
    /// # Errors
    /// When the server answers nothing at present.
    pub(crate) fn understand(&mut self, reply: RedisResult<Value>) -> RedisResult<ServerStanding> {
        let standing = match (*self, reply) {
            (Self::Role, Ok(reply)) => of_role(&reply),
            (_, Ok(reply)) => of_info(&Info::of(reply)),
            (_, Err(error)) if is_refusal(&error) => None,
            (_, Err(error)) => return Err(error),
        };
        if standing.is_none() {
            *self = match self {
                Self::Role => Self::Info,
                Self::Info | Self::None => Self::None,
            };
        }
        Ok(standing.unwrap_or(ServerStanding::Settled))
    }

    /// Asks in every way that there is.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn ask(&mut self, link: &mut Link) -> RedisResult<ServerStanding> {
        loop {
            let before = *self;
            let Some(packed) = self.packed() else {
                return Ok(ServerStanding::Settled);
            };
            link.send(&packed)?;
            let standing = self.understand(link.receive()?.extract_error())?;
            if *self == before {
                return Ok(standing);
            }
        }
    }
}

/// Whether a server is a `master` or a `slave`, if it says.
///
/// # Errors
/// When it cannot be asked.
pub(crate) fn role(link: &mut Link) -> RedisResult<Option<String>> {
    match link.ask(&redis::cmd("ROLE")) {
        Ok(Value::Array(words)) => {
            let role = words.into_iter().next();
            Ok(role.and_then(|it| redis::from_redis_value(it).ok()))
        }
        Ok(_) => Ok(None),
        Err(error) if is_refusal(&error) => {
            let info = Info::ask(link, &["replication"])?;
            Ok(info.get("role").map(str::to_owned))
        }
        Err(error) => Err(error),
    }
}

/// States of a replica that has its master's data. Redis and Valkey have the first, Dragonfly the
/// others.
const SETTLED: [&str; 3] = ["connected", "stable_sync", "online"];

/// States of one that does not, or whose link is down. Dragonfly has the last two, and `connecting`.
const ADRIFT: [&str; 8] = [
    "none",
    "connect",
    "connecting",
    "handshake",
    "sync",
    "unknown",
    "preparation",
    "full_sync",
];

/// From `["slave", host, port, state, offset]`, and the like. `None` for a state that is unknown here.
fn of_role(reply: &Value) -> Option<ServerStanding> {
    let Value::Array(words) = reply else {
        return None;
    };
    let text = |at: usize| match words.get(at)? {
        Value::BulkString(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    };
    if !matches!(text(0)?.as_str(), "slave" | "replica") {
        return Some(ServerStanding::Settled);
    }
    let state = text(3)?;
    if SETTLED.contains(&state.as_str()) {
        return Some(ServerStanding::Settled);
    }
    let master = format!("{}:{}", text(1)?, text(2)?);
    let is_adrift = ADRIFT.contains(&state.as_str());
    is_adrift.then_some(ServerStanding::Adrift(master))
}

fn of_info(info: &Info) -> Option<ServerStanding> {
    if !matches!(info.get("role")?, "slave" | "replica") {
        return Some(ServerStanding::Settled);
    }
    let is_up = info.get("master_link_status")? == "up";
    // The link of Dragonfly is up meanwhile.
    if is_up && info.get("master_sync_in_progress") != Some("1") {
        return Some(ServerStanding::Settled);
    }
    let master = format!("{}:{}", info.get("master_host")?, info.get("master_port")?);
    Some(ServerStanding::Adrift(master))
}

/// What was found when the lists were read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandingFacts {
    /// The link of a replica to its master is down.
    pub(crate) is_adrift: bool,
    /// There is none of the lists.
    pub(crate) is_empty: bool,
    /// Nor are the data of any service those from which its lists were taken before (`origin`).
    pub(crate) is_other: bool,
    /// A list that is in force, or in the copy, has entries.
    pub(crate) has_lists: bool,
}

/// Why the lists that were read are not to be taken; `None` when they are. The link of a replica to its
/// master was up once, if it `had_data`.
const fn refused(it: StandingFacts, had_data: bool) -> Option<Fault> {
    if it.is_adrift && (it.is_empty || !had_data && it.has_lists) {
        return Some(Fault::Unsynced);
    }
    match it.is_empty && it.is_other && it.has_lists {
        true => Some(Fault::WithoutData),
        false => None,
    }
}

/// A replica without its master.
#[derive(Clone, Debug)]
pub(crate) struct Adrift {
    pub(crate) master: String,
    pub(crate) since: Instant,
}

/// What was learned of the server that is connected.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    /// How this one is asked.
    pub(crate) question: StandingQuery,
    /// Whose data it has.
    pub(crate) seen: SeenOrigin,
    /// It was found in order, on this connection.
    was_settled: bool,
    /// Since when it is adrift, where it does not say.
    adrift_since: Option<Instant>,
    /// How many keys had been evicted where lists were last taken.
    evicted: Option<u64>,
    /// It is one of a cluster.
    pub(crate) is_cluster: bool,
}

/// The sections of INFO that tell whose data a server has, and of its link to its master.
pub(crate) const SECTIONS: [&str; 2] = ["server", "replication"];

impl Standings {
    /// Gets to know a server that was just connected, ahead of all that is read there.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn meet(&mut self, link: &mut Link) -> RedisResult<()> {
        *self = Self {
            seen: std::mem::take(&mut self.seen),
            evicted: self.evicted,
            ..Self::default()
        };
        self.question.ask(link)?;
        self.see(&Info::ask(link, &SECTIONS)?);
        // All is read now.
        self.seen.is_replaced = false;
        Ok(())
    }

    fn see(&mut self, info: &Info) {
        if !self.seen.see(info) {
            // Another process counts its own.
            self.evicted = None;
        }
    }

    /// What is to be said of a server of this `standing`, if it is adrift; and why its lists are not
    /// to be taken, if they are not. It said more in `info`, if that was asked for.
    pub(crate) fn judge(
        &mut self,
        standing: &ServerStanding,
        info: &Info,
        facts: StandingFacts,
    ) -> (Option<Adrift>, Option<Fault>) {
        let down = info.link_down();
        let adrift = self.adrift(standing, down);
        let fault = refused(facts, self.was_settled || down.is_some());
        if fault.is_none() {
            self.was_settled |= !facts.is_adrift;
        }
        (adrift, fault)
    }

    /// What is to be said of a server of this `standing`, which says how long its link is `down`.
    fn adrift(&mut self, standing: &ServerStanding, down: Option<Duration>) -> Option<Adrift> {
        let ServerStanding::Adrift(master) = standing else {
            self.adrift_since = None;
            return None;
        };
        let now = Instant::now();
        let said = down.and_then(|it| now.checked_sub(it));
        let since = *self.adrift_since.get_or_insert(said.unwrap_or(now));
        let master = master.clone();
        Some(Adrift { master, since })
    }

    /// Asks whose data the server has, for whatever is read from now on. Returns how many keys were evicted
    /// since that was last asked.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn note(&mut self, link: &mut Link) -> RedisResult<u64> {
        let info = Info::ask(link, &[&SECTIONS[..], &["stats"]].concat())?;
        self.see(&info);
        self.is_cluster = info.get("redis_mode") == Some("cluster");
        let evicted = info.number("evicted_keys");
        let before = std::mem::replace(&mut self.evicted, evicted);
        let more = before.zip(evicted);
        Ok(more.map_or(0, |(before, now)| now.saturating_sub(before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(words: &[&str]) -> Value {
        let words = words.iter();
        Value::Array(
            words
                .map(|it| Value::BulkString(it.as_bytes().to_vec()))
                .collect(),
        )
    }

    fn adrift() -> Option<ServerStanding> {
        Some(ServerStanding::Adrift("10.0.0.1:6379".to_owned()))
    }

    #[test]
    fn a_replica_is_adrift_unless_its_link_is_up() {
        let slave = |state: &str| of_role(&role(&["slave", "10.0.0.1", "6379", state, "-1"]));
        for (state, standing) in [
            ("connected", Some(ServerStanding::Settled)),
            ("stable_sync", Some(ServerStanding::Settled)),
            ("online", Some(ServerStanding::Settled)),
            ("none", adrift()),
            ("connect", adrift()),
            ("connecting", adrift()),
            ("handshake", adrift()),
            ("sync", adrift()),
            ("unknown", adrift()),
            ("preparation", adrift()),
            ("full_sync", adrift()),
            // INFO is asked then.
            ("following", None),
            ("", None),
        ] {
            assert_eq!(slave(state), standing, "{state}");
        }
        let dragonfly = ["replica", "10.0.0.1", "6379", "stable_sync"];
        assert_eq!(of_role(&role(&dragonfly)), Some(ServerStanding::Settled));
        assert_eq!(
            of_role(&role(&["master", "0"])),
            Some(ServerStanding::Settled)
        );
        assert_eq!(of_role(&role(&["sentinel"])), Some(ServerStanding::Settled));
        for other in [Value::Okay, role(&[]), role(&["slave", "10.0.0.1"])] {
            assert_eq!(of_role(&other), None, "{other:?}");
        }
        let info = |text: &str| of_info(&Info(text.replace('\n', "\r\n")));
        let place = "master_host:10.0.0.1\nmaster_port:6379\n";
        let slave = format!("# Replication\nrole:slave\n{place}");
        assert_eq!(info("role:master\n"), Some(ServerStanding::Settled));
        let up = format!("{slave}master_link_status:up\n");
        assert_eq!(info(&up), Some(ServerStanding::Settled));
        assert_eq!(info(&format!("{slave}master_link_status:down\n")), adrift());
        assert_eq!(
            info(&format!("{up}master_sync_in_progress:0\n")),
            Some(ServerStanding::Settled)
        );
        assert_eq!(info(&format!("{up}master_sync_in_progress:1\n")), adrift());
        assert_eq!(info(""), None);
    }

    #[test]
    fn what_is_not_taken() {
        let unsynced = Some(Fault::Unsynced);
        // Adrift, had the data, empty, restarted, there are lists.
        for (look, fault) in [
            ([0, 0, 0, 0, 1], None),
            ([0, 0, 1, 0, 1], None),
            ([0, 0, 0, 1, 1], None),
            ([0, 0, 1, 1, 1], Some(Fault::WithoutData)),
            ([0, 0, 1, 1, 0], None),
            ([1, 0, 0, 0, 1], unsynced),
            ([1, 0, 1, 0, 1], unsynced),
            ([1, 0, 1, 0, 0], unsynced),
            ([1, 0, 0, 0, 0], None),
            ([1, 1, 0, 0, 1], None),
            ([1, 1, 0, 1, 1], None),
            ([1, 1, 1, 0, 1], unsynced),
        ] {
            let [is_adrift, had_data, is_empty, is_other, has_lists] = look.map(|it| it == 1);
            let it = StandingFacts {
                is_adrift,
                is_empty,
                is_other,
                has_lists,
            };
            assert_eq!(refused(it, had_data), fault, "{it:?} {had_data}");
        }
    }
}
