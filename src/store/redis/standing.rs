//! What a server says of its own standing: whether its data are to be trusted.
//!
//! It is asked ahead of each reading, in the same write, which takes no extra time: by ROLE, or by INFO
//! if that is refused or its answer is unknown here; if INFO does not say either, the standing is
//! unknown. Lists are not taken from a replica that has not had its master's data since it was started,
//! or that has nothing at all while it has no master: nobody has removed what it lacks. They are still
//! taken from a replica that had the data and lost its master, but that is reported. Nor are they taken
//! from a server that has none of the lists since it was restarted (`run_id`), or since its master was
//! (`master_replid`): then its data are not the same data any more.

use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::errors::is_refusal;
use super::link::Link;
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

/// The reply to INFO.
#[derive(Debug, Default)]
pub(crate) struct Info(String);

impl Info {
    fn of(reply: Value) -> Self {
        Self(redis::from_redis_value(reply).unwrap_or_default())
    }

    /// Asks for some sections; leaves out those that the server does not have.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn ask(link: &mut Link, sections: &[&str]) -> RedisResult<Self> {
        // One by one, since older servers take only one per command.
        let commands = sections.iter().flat_map(|it| {
            let info = redis::cmd("INFO").arg(*it).get_packed_command();
            info.into_iter()
        });
        link.send(&commands.collect::<Vec<u8>>())?;
        let mut all = String::new();
        for _ in sections {
            match link.receive()?.extract_error() {
                Ok(reply) => all.push_str(&Self::of(reply).0),
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(all))
    }

    /// The value after this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|it| it.strip_prefix(name)?.strip_prefix(':'))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// How long the link to the master has been down, if it was up since the server was started.
    fn link_down(&self) -> Option<Duration> {
        // -1 if it never was; older ones count from 1970 then.
        let down = self.number("master_link_down_since_seconds")?;
        (down <= self.number("uptime_in_seconds")?).then(|| Duration::from_secs(down))
    }
}

/// What is known when the lists were read.
#[derive(Clone, Copy, Debug)]
struct StandingFacts {
    is_adrift: bool,
    /// Its link to its master was up once, so that it had the data.
    had_data: bool,
    /// There is none of the lists.
    is_empty: bool,
    /// Its data are not those from which lists were taken before ([`Origin::is_lost`]).
    is_other: bool,
    /// A list that is in force, or in the copy, has entries.
    has_lists: bool,
}

/// Why the lists that were read are not to be taken; `None` when they are.
const fn refused(it: StandingFacts) -> Option<Fault> {
    match it {
        StandingFacts {
            is_adrift: true,
            is_empty: true,
            ..
        }
        | StandingFacts {
            is_adrift: true,
            had_data: false,
            has_lists: true,
            ..
        } => Some(Fault::Unsynced),
        StandingFacts {
            is_empty: true,
            is_other: true,
            has_lists: true,
            ..
        } => Some(Fault::WithoutData),
        _ => None,
    }
}

/// A replica without its master.
#[derive(Clone, Debug)]
pub(crate) struct Adrift {
    pub(crate) master: String,
    pub(crate) since: Instant,
}

/// What was learned of the server that is connected, and of those before.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    /// How this one is asked.
    pub(crate) question: StandingQuery,
    /// The data from which lists were last taken.
    taken: Option<Origin>,
    /// Lists were taken, of whatever server.
    has_taken: bool,
    /// It was found in order, on this connection.
    was_settled: bool,
    /// Since when it is adrift, where it does not say.
    adrift_since: Option<Instant>,
    /// How many keys had been evicted where lists were last taken.
    evicted: Option<u64>,
    /// It is one of a cluster.
    pub(crate) is_cluster: bool,
}

/// Where data come from.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    /// The process that has them.
    run: String,
    /// The history of writes that made them.
    history: Option<String>,
}

impl Origin {
    fn of(info: &Info) -> Option<Self> {
        Some(Self {
            run: info.get("run_id")?.to_owned(),
            history: info.get("master_replid").map(str::to_owned),
        })
    }

    /// Whether what a server has is not what it had, so that nobody may have removed what is gone: it
    /// was restarted, or is a replica that got other data. The history of a master has a new name when a
    /// first replica attaches, or when it is promoted; that of its replica then, too, which keeps the
    /// old one as the second.
    fn is_lost(&self, info: &Info) -> bool {
        let Some(now) = Self::of(info) else {
            return false;
        };
        let is_replica = matches!(info.get("role"), Some("slave" | "replica"));
        let goes_on = now.history == self.history
            || self.history.is_some() && info.get("master_replid2") == self.history.as_deref();
        now.run != self.run || is_replica && !goes_on
    }
}

impl Standings {
    /// Gets to know a server that was just connected.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn meet(&mut self, link: &mut Link) -> RedisResult<ServerStanding> {
        *self = Self {
            taken: self.taken.take(),
            has_taken: self.has_taken,
            evicted: self.evicted,
            ..Self::default()
        };
        self.question.ask(link)
    }

    /// What is to be said of a server of this `standing`, if it is adrift; and why its lists are not
    /// to be taken, if they are not.
    ///
    /// # Errors
    /// When the server cannot be asked for more.
    pub(crate) fn judge(
        &mut self,
        standing: &ServerStanding,
        is_empty: bool,
        has_lists: bool,
        link: &mut Link,
    ) -> RedisResult<(Option<Adrift>, Option<Fault>)> {
        let is_adrift = *standing != ServerStanding::Settled;
        // As a rule nothing more is asked.
        let info = match is_adrift || is_empty && has_lists {
            true => Info::ask(link, &["server", "replication"])?,
            false => Info::default(),
        };
        let down = info.link_down();
        let look = StandingFacts {
            is_adrift,
            had_data: self.was_settled || down.is_some(),
            is_empty,
            // After the gateway's own start nobody knows whose those in the copy were.
            is_other: match &self.taken {
                Some(before) => before.is_lost(&info),
                None => !self.has_taken,
            },
            has_lists,
        };
        let adrift = self.adrift(standing, down);
        let fault = refused(look);
        if fault.is_none() {
            self.has_taken = true;
            self.was_settled |= !is_adrift;
        }
        Ok((adrift, fault))
    }

    /// Whether the data are not those from which lists were last taken ([`Origin::is_lost`]).
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn has_other_data(&self, link: &mut Link) -> RedisResult<bool> {
        let Some(before) = &self.taken else {
            return Ok(false);
        };
        Ok(before.is_lost(&Info::ask(link, &["server", "replication"])?))
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

    /// Lists were taken: notes whose, to know them again. Returns how many keys were evicted since
    /// that was last noted.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn note(&mut self, link: &mut Link) -> RedisResult<u64> {
        let info = Info::ask(link, &["server", "replication", "stats"])?;
        let now = Origin::of(&info);
        // Another process counts its own.
        if now.as_ref().map(|it| &it.run) != self.taken.as_ref().map(|it| &it.run) {
            self.evicted = None;
        }
        self.taken = now.or_else(|| self.taken.take());
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
    fn a_link_was_up_if_it_has_been_down_for_less_than_the_server_is_up() {
        let down = |text: &str| {
            let text =
                format!("uptime_in_seconds:100\r\nmaster_link_down_since_seconds:{text}\r\n");
            Info(text).link_down().map(|it| it.as_secs())
        };
        assert_eq!(down("0"), Some(0));
        assert_eq!(down("99"), Some(99));
        assert_eq!(down("-1"), None);
        assert_eq!(down("1764400000"), None);
        assert_eq!(Info::default().link_down(), None);
    }

    #[test]
    fn a_master_has_other_data_only_in_another_process_and_a_replica_with_another_history_too() {
        let before = Origin {
            run: "r1".to_owned(),
            history: Some("h1".to_owned()),
        };
        for (run, role, history, second, is_lost) in [
            ("r1", "master", "h1", "0", false),
            ("r1", "master", "h2", "0", false),
            ("r1", "master", "h2", "h1", false),
            ("r2", "master", "h1", "0", true),
            ("r2", "master", "h2", "h1", true),
            ("r1", "slave", "h1", "0", false),
            ("r1", "slave", "h2", "0", true),
            ("r1", "replica", "h2", "0", true),
            ("r1", "slave", "h2", "h1", false),
            ("r1", "slave", "h3", "h2", true),
            ("r2", "slave", "h1", "0", true),
        ] {
            let text = format!(
                "run_id:{run}\r\nrole:{role}\r\nmaster_replid:{history}\r\nmaster_replid2:{second}\r\n"
            );
            assert_eq!(before.is_lost(&Info(text.clone())), is_lost, "{text}");
        }
        assert!(!before.is_lost(&Info::default()));
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
                had_data,
                is_empty,
                is_other,
                has_lists,
            };
            assert_eq!(refused(it), fault, "{it:?}");
        }
    }
}
