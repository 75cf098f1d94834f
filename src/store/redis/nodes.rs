//! The heartbeats of all gateways on one server, for the command line.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::link::Link;
use super::place::Finder;
use super::{io_error, reading};
use crate::config;
use crate::store::node::{Node, plain};

/// How many keys the server looks at in one step.
const STEP: usize = 1000;

/// How many heartbeats are read at once.
const AT_ONCE: usize = 100;

/// No fleet is larger.
const MOST: usize = 10_000;

/// A gateway whose key is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Its name, from its key.
    pub name: String,
    /// What it says of itself; none when it is not understood.
    pub node: Option<Node>,
    /// How long its key has to live, if not for ever.
    pub left: Option<Duration>,
}

impl Heard {
    /// Time since its last heartbeat.
    pub fn ago(&self) -> Option<Duration> {
        let ttl = Duration::from_millis(self.node.as_ref()?.ttl_ms);
        Some(ttl.saturating_sub(self.left?))
    }
}

/// Reads the heartbeats again and again, on one connection while that holds.
pub struct Nodes<'a> {
    settings: &'a config::Redis,
    finder: Finder,
    link: Option<Link>,
}

impl<'a> Nodes<'a> {
    /// Will read from the server of these settings.
    pub fn new(settings: &'a config::Redis) -> Self {
        Self {
            settings,
            finder: Finder::quiet(),
            link: None,
        }
    }

    /// All gateways whose keys are there, by their names. Gives up at `until`.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub fn read(&mut self, until: Instant) -> Result<Vec<Heard>, String> {
        let outcome = self.try_read(until);
        if outcome.is_err() {
            self.link = None;
        }
        outcome.map_err(|error| self.finder.describe(&error))
    }

    fn try_read(&mut self, until: Instant) -> RedisResult<Vec<Heard>> {
        let link = match &mut self.link {
            Some(link) => link,
            none => {
                let mut settings = self.settings.clone();
                settings.timeout = settings.timeout.min(left(until)?);
                none.insert(self.finder.open(None, &settings)?)
            }
        };
        let beginning = self.settings.fleet.key_of("");
        let pattern = format!("{}*", escaped(&beginning));
        let timeout = self.settings.timeout;
        let step = |link: &mut Link| -> RedisResult<()> {
            link.set_limit(timeout.min(left(until)?));
            Ok(())
        };
        // A set, since a scan may name a key more than once.
        let mut keys = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        loop {
            step(link)?;
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern);
            let reply = link.ask(scan.arg("COUNT").arg(STEP))?;
            let (next, found): (Vec<u8>, Vec<Vec<u8>>) = redis::from_redis_value(reply)?;
            keys.extend(found);
            if keys.len() > MOST {
                return Err(io_error(format!(
                    "more than {MOST} keys are like {pattern}"
                )));
            }
            if next == b"0" {
                break;
            }
            cursor = next;
        }
        let keys: Vec<Vec<u8>> = keys.into_iter().collect();
        let mut all = Vec::new();
        for some in keys.chunks(AT_ONCE) {
            step(link)?;
            let mut pipe = redis::pipe();
            for key in some {
                pipe.cmd("GET").arg(key).cmd("PTTL").arg(key);
            }
            let replies = reading::transaction(link, &pipe)?;
            let mut replies = replies.unwrap_or_default().into_iter();
            for key in some {
                let (Some(value), Some(left)) = (replies.next(), replies.next()) else {
                    return Err(io_error("the transaction has too few replies"));
                };
                let name = &key[beginning.len().min(key.len())..];
                all.extend(heard(name, value, left?));
            }
        }
        Ok(all)
    }
}

/// `None` when the key has vanished meanwhile.
fn heard(name: &[u8], value: RedisResult<Value>, left: Value) -> Option<Heard> {
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
    let name = plain(&String::from_utf8_lossy(name));
    Some(Heard { name, node, left })
}

fn left(until: Instant) -> std::io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(std::io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A text of which a pattern of the server means each character as it is.
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
