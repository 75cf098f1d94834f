//! The heartbeats of all gateways on one server, for the command line.
//!
//! Their names are in the index. Gateways of earlier versions do not write it, nor do those whose users
//! only have the rights of earlier versions; as long as a server has few keys, it is scanned for these,
//! too.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::index::{self, Indexed};
use crate::config;
use crate::fleet::node::Node;
use crate::fleet::plain::plain;
use crate::lists::ServiceName;
use crate::store::redis::errors::io_error;
use crate::store::redis::link::Link;
use crate::store::redis::place::Finder;
use crate::store::redis::{cluster, transaction};

/// How many keys the server looks at in one step of a scan.
const STEP: usize = 1000;

/// On servers with more keys than this, only the index is used: others may have millions there.
const SMALL: usize = 10_000;

/// Most steps of a scan. The table of a server may have more places than keys.
const STEPS: usize = 4 * SMALL / STEP;

/// How many heartbeats are read at once.
const AT_ONCE: usize = 100;

/// How many are named in an error.
const NAMED: usize = 20;

/// A gateway whose key exists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    /// Its name, from its key.
    pub name: String,
    /// What it says about itself; `None` when that is not understood.
    pub(crate) node: Option<Node>,
    /// How long its key has to live, if not for ever.
    pub left: Option<Duration>,
}

impl Heard {
    /// Time since its last heartbeat.
    pub(crate) fn ago(&self) -> Option<Duration> {
        let ttl = Duration::from_millis(self.node.as_ref()?.ttl_ms);
        Some(ttl.saturating_sub(self.left?))
    }
}

/// Reads the heartbeats repeatedly, on one connection as long as that works.
pub(crate) struct Nodes<'a> {
    settings: &'a config::RedisSettings,
    finder: Finder,
    link: Option<Link>,
    /// Connections to the server of a cluster that has the index, and to one that has a heartbeat.
    asides: [Option<Link>; 2],
    /// The names that were known when the last reading ended.
    known: Vec<String>,
    /// Those that are not in the index are looked for.
    scans: bool,
}

/// A gateway that is in the index, and whose key has expired.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Silent {
    /// Its name.
    pub name: String,
    /// Time since its key has expired, if that is known.
    pub expired: Option<Duration>,
}

/// The gateways at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FleetLook {
    /// Those whose keys are there, by their names.
    pub heard: Vec<Heard>,
    /// The others that are known.
    pub silent: Vec<Silent>,
    /// Why there may be others, or these are silent, if that is known.
    pub note: Option<String>,
}

impl FleetLook {
    /// The names of those that are heard, and do not hold the lists of a service with this digest.
    pub(crate) fn without<'a>(
        &'a self,
        service: &'a ServiceName,
        digest: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let holds = |node: &Node| node.digest_of(service) == Some(digest);
        let lacks = move |it: &&Heard| !it.node.as_ref().is_some_and(holds);
        self.heard.iter().filter(lacks).map(|it| it.name.as_str())
    }
}

impl<'a> Nodes<'a> {
    /// Will read from the server of these settings.
    pub(crate) fn new(settings: &'a config::RedisSettings) -> Self {
        Self {
            settings,
            finder: Finder::quiet(),
            link: None,
            asides: [None, None],
            known: Vec::new(),
            scans: true,
        }
    }

    /// The same, by the index alone: what is read every second must not make the server look through all
    /// its keys.
    pub(crate) fn indexed(settings: &'a config::RedisSettings) -> Self {
        Self {
            scans: false,
            ..Self::new(settings)
        }
    }

    /// All gateways whose keys exist. Gives up at `until`.
    ///
    /// # Errors
    /// Why they cannot be read, and the names that were found by then.
    pub(crate) fn read(&mut self, until: Instant) -> Result<FleetLook, String> {
        self.known.clear();
        let outcome = self.try_read(until);
        if outcome.is_err() {
            self.link = None;
            self.asides = [None, None];
        }
        outcome.map_err(|error| {
            let words = self.finder.describe(&error);
            match self.known.len() {
                0 => words,
                count => {
                    let some = self.known.iter().take(NAMED).map(String::as_str);
                    let some: Vec<&str> = some.collect();
                    let more = if count > some.len() { ", …" } else { "" };
                    let some = some.join(", ");
                    format!("{words}; found by then, and not asked: {some}{more}")
                }
            }
        })
    }

    fn try_read(&mut self, until: Instant) -> RedisResult<FleetLook> {
        let settings = self.settings;
        let link = match &mut self.link {
            Some(link) => link,
            none => {
                let mut settings = settings.clone();
                settings.timeout = settings.timeout.min(left(until)?);
                none.insert(self.finder.open(None, &settings)?)
            }
        };
        let step = |link: &mut Link| -> RedisResult<()> {
            link.set_limit(settings.timeout.min(left(until)?));
            Ok(())
        };
        step(link)?;
        let [of_index, of_node] = &mut self.asides;
        let beginning = settings.fleet.key_of("").into_bytes();
        let indexed = index::names(link, of_index, settings)?;
        // A set, since a scan may return a key more than once.
        let mut keys = BTreeSet::new();
        let whole = |it: &Indexed| [&beginning[..], &it.name].concat();
        keys.extend(indexed.iter().flatten().map(whole));
        let others = match self.scans {
            true => scan(link, settings, &mut keys, step)?,
            false => None,
        };
        let note = others.filter(|_| indexed.is_none()).map(|count| {
            let (key, many) = (settings.fleet.index_key(), plural(count));
            format!(
                "no gateway has written the index {key}, and the server's {many} are not looked \
                 through: gateways of earlier versions, or without the rights, are not seen"
            )
        });
        let name = |key: &Vec<u8>| {
            plain(&String::from_utf8_lossy(
                &key[beginning.len().min(key.len())..],
            ))
        };
        let keys: Vec<Vec<u8>> = keys.into_iter().collect();
        self.known = keys.iter().map(name).collect();
        let mut all = Vec::new();
        for some in keys.chunks(AT_ONCE) {
            step(link)?;
            let replies = ask(link, of_node, settings, some)?;
            for (key, (value, left)) in some.iter().zip(replies) {
                all.extend(heard(name(key), value, left?));
            }
        }
        step(link)?;
        let heard: BTreeSet<&str> = all.iter().map(|it| it.name.as_str()).collect();
        let indexed = indexed.unwrap_or_default().into_iter();
        let indexed = indexed.map(|it| (plain(&String::from_utf8_lossy(&it.name)), it.expires));
        let silent = indexed.filter(|(name, _)| !heard.contains(name.as_str()));
        let silent = expired(link, silent.collect())?;
        let refusal = match silent.is_empty() {
            true => None,
            false => index::refusal(link, of_index, settings)?,
        };
        let refusal = refusal.map(|words| format!("Redis accepts no heartbeats: {words}"));
        Ok(FleetLook {
            heard: all,
            silent,
            note: note.or(refusal),
        })
    }
}

/// Those whose heartbeats have expired. One that has just ended removes its key first, and then its
/// name.
fn expired(link: &mut Link, names: Vec<(String, f64)>) -> RedisResult<Vec<Silent>> {
    let now = match names.is_empty() {
        true => None,
        false => index::time(link)?,
    };
    let names = names.into_iter();
    let names = names.filter(|(_, expires)| now.is_none_or(|now| *expires <= now));
    let silent = names.map(|(name, expires)| Silent {
        name,
        // A score may be any number.
        expired: now.and_then(|now| Duration::try_from_secs_f64((now - expires) / 1000.0).ok()),
    });
    Ok(silent.collect())
}

/// Adds the keys of heartbeats that a scan finds, if the server has few keys. Otherwise returns how many
/// it has.
fn scan(
    link: &mut Link,
    settings: &config::RedisSettings,
    keys: &mut BTreeSet<Vec<u8>>,
    step: impl Fn(&mut Link) -> RedisResult<()>,
) -> RedisResult<Option<usize>> {
    let size = match link.ask(&redis::cmd("DBSIZE")) {
        Ok(size) => redis::from_redis_value(size)?,
        // After some steps the scan itself shows that.
        Err(error) if index::is_answer(&error) => 0,
        Err(error) => return Err(error),
    };
    if size > SMALL {
        return Ok(Some(size));
    }
    let pattern = format!("{}*", escaped(&settings.fleet.key_of("")));
    let mut cursor = b"0".to_vec();
    for _ in 0..STEPS {
        step(link)?;
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(&pattern);
        let reply = match link.ask(scan.arg("COUNT").arg(STEP)) {
            Ok(reply) => reply,
            Err(error) if index::is_answer(&error) => return Ok(Some(size)),
            Err(error) => return Err(error),
        };
        let (next, found): (Vec<u8>, Vec<Vec<u8>>) = redis::from_redis_value(reply)?;
        keys.extend(found);
        if keys.len() > index::MOST {
            let most = index::MOST;
            return Err(io_error(format!(
                "more than {most} keys are like {pattern}"
            )));
        }
        if next == b"0" {
            return Ok(None);
        }
        cursor = next;
    }
    Ok(Some(size))
}

fn plural(count: usize) -> String {
    match count {
        0 => "keys".to_owned(),
        count => format!("{count} keys"),
    }
}

/// What a key holds, and how long it has to live.
type Reply = (RedisResult<Value>, RedisResult<Value>);

/// Asks for some heartbeats: all at one moment, or in a cluster, where they are in several slots, each
/// at its own.
fn ask(
    link: &mut Link,
    aside: &mut Option<Link>,
    settings: &config::RedisSettings,
    keys: &[Vec<u8>],
) -> RedisResult<Vec<Reply>> {
    match transaction(link, keys) {
        Err(error) if matches!(error.code(), Some("CROSSSLOT" | "MOVED" | "ASK")) => {}
        outcome => return outcome,
    }
    let mut all = Vec::new();
    for key in keys {
        let one = std::slice::from_ref(key);
        let act = |link: &mut Link| transaction(link, one);
        all.extend(cluster::follow_aside(link, aside, settings, act)?);
    }
    Ok(all)
}

fn transaction(link: &mut Link, keys: &[Vec<u8>]) -> RedisResult<Vec<Reply>> {
    let mut pipe = redis::pipe();
    for key in keys {
        pipe.cmd("GET").arg(key).cmd("PTTL").arg(key);
    }
    let replies = match transaction::run(link, &pipe) {
        // A server without free memory queues nothing, but still allows reading.
        Err(error) if error.code() == Some("OOM") => one_by_one(link, &pipe)?,
        outcome => outcome?.unwrap_or_default(),
    };
    let mut replies = replies.into_iter();
    let mut all = Vec::new();
    for _ in keys {
        let (Some(value), Some(left)) = (replies.next(), replies.next()) else {
            return Err(io_error("the transaction has too few replies"));
        };
        all.push((value, left));
    }
    Ok(all)
}

/// The replies to the commands of `pipe`, without a transaction.
fn one_by_one(link: &mut Link, pipe: &redis::Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
    link.send(&pipe.get_packed_pipeline())?;
    let mut replies = Vec::new();
    for _ in 0..pipe.len() {
        replies.push(link.receive()?.extract_error());
    }
    Ok(replies)
}

/// `None` when the key has vanished meanwhile.
fn heard(name: String, value: RedisResult<Value>, left: Value) -> Option<Heard> {
    let node = match value {
        Ok(Value::Nil) => return None,
        Ok(Value::BulkString(text)) => Node::parse(&text),
        // It has another type.
        _ => None,
    };
    let left = match left {
        Value::Int(left) => u64::try_from(left).ok().map(Duration::from_millis),
        _ => None,
    };
    Some(Heard { name, node, left })
}

fn left(until: Instant) -> std::io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(std::io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A text escaped so that the server's patterns take each character literally.
fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for it in text.chars() {
        if matches!(it, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(it);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_each_character_as_it_is() {
        for (text, pattern) in [
            ("graygate:node:", "graygate:node:"),
            ("shop[1]*?:", r"shop\[1\]\*\?:"),
            (r"^a\", r"\^a\\"),
        ] {
            assert_eq!(escaped(text), pattern);
        }
    }
}
