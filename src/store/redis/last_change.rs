//! Asks the history of a service what was [confirmed](crate::store::confirmed) with the last change of its
//! lists.

use redis::{RedisResult, Value};

use super::cluster;
use super::errors::is_refusal;
use super::link::Link;
use crate::config;
use crate::store::confirmed::{LOOKED_AT, RecordedChange, confirmed_last};

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
    confirmed_last(newest.into_iter().map(|(_, fields)| {
        let get = |name: &str| {
            let found = fields.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        RecordedChange {
            before: get("before"),
            after: get("after"),
            confirmed: get("confirmed"),
        }
    }))
}
