//! What was confirmed with the last change of a service's lists that a command has made, as its history says.
//! The accept key says so to gateways that hear of the change when it is made, for a minute; one that was
//! away, or did not run, finds the change later, and would hold it, until somebody confirms it again.
//!
//! It is the last change of the lists: what was changed since, nobody has confirmed.

use redis::{RedisResult, Value};

use super::cluster;
use super::errors::is_refusal;
use super::link::Link;
use crate::config;

/// So many of the newest records are looked through for one that has changed the lists.
const LOOKED_AT: usize = 5;

/// What is known of the histories.
#[derive(Default)]
pub(crate) struct LastChange {
    /// They may not be read.
    is_refused: bool,
    /// A connection to the server of a cluster that has one, if that is not the one with the lists.
    aside: Option<Link>,
}

impl LastChange {
    /// The digests that were confirmed with it, as they are displayed; none if the `history` cannot be read,
    /// which is said where that matters.
    pub(crate) fn confirmed(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
        history: &str,
    ) -> RedisResult<Vec<String>> {
        if self.is_refused {
            return Ok(Vec::new());
        }
        let mut range = redis::cmd("XREVRANGE");
        range
            .arg(history)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(LOOKED_AT);
        let ask = |link: &mut Link| link.ask(&range);
        match cluster::follow_aside(reader, &mut self.aside, settings, ask) {
            Ok(newest) => Ok(in_newest(newest)),
            Err(error) if error.code().is_some() => {
                self.is_refused = is_refusal(&error);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

fn in_newest(newest: Value) -> Vec<String> {
    let newest: Vec<(String, Vec<(String, String)>)> =
        redis::from_redis_value(newest).unwrap_or_default();
    for (_, fields) in newest {
        let get = |name: &str| {
            let found = fields.iter().find(|(it, _)| it == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        // A version that was taken back, a freeze: what was confirmed before is the last still.
        if get("before") == get("after") {
            continue;
        }
        let confirmed = get("confirmed").split_ascii_whitespace();
        return confirmed.map(str::to_ascii_lowercase).collect();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_is_that_of_the_last_change_of_lists() {
        let record = |before: &str, after: &str, confirmed: &str| {
            let fields = [
                ("before", before),
                ("after", after),
                ("confirmed", confirmed),
            ];
            let fields = fields.iter().flat_map(|(name, value)| [*name, *value]);
            let fields = fields.map(|it| Value::BulkString(it.as_bytes().to_vec()));
            let id = Value::BulkString(b"1-1".to_vec());
            Value::Array(vec![id, Value::Array(fields.collect())])
        };
        let freeze = record("b", "b", "");
        let promotion = record("a", "b", "0A 0b");
        let other = record("b", "c", "");
        for (newest, expected) in [
            (vec![], &[][..]),
            (vec![freeze.clone(), promotion.clone()], &["0a", "0b"]),
            (vec![other, promotion], &[]),
            (vec![freeze], &[]),
        ] {
            assert_eq!(in_newest(Value::Array(newest)), expected);
        }
        assert!(in_newest(Value::Okay).is_empty());
    }
}
