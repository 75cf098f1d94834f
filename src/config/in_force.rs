//! What a running gateway makes of what was written: what the machine decides, and what has no effect.

use super::redis::REDIS_URL_VARIABLE;
use super::written::{URL, ValueOrigin, WrittenKey};
use super::{Config, Store};

impl Config {
    /// Every key with its value as it was written.
    pub(crate) fn written(&self) -> &[WrittenKey] {
        self.written.all()
    }

    /// The value of a key that the machine has decided, where it is another than what was written; and why.
    pub(crate) fn decided(&self, key: &WrittenKey) -> Option<(String, &'static str)> {
        let count = |count: usize, why| {
            let is_same = key.in_force.text.parse() == Ok(count);
            (!is_same).then(|| (count.to_string(), why))
        };
        match key.key.full_name {
            "gateway.workers" => count(self.gateway.workers, "one for each CPU"),
            "gateway.max_connections" => count(
                self.gateway.max_connections,
                "the limit of descriptors (ulimit -n) allows no more",
            ),
            "redis.node" => match &self.store {
                Store::Redis(redis) if redis.fleet.node != key.in_force.text => {
                    Some((redis.fleet.node.clone(), "the host's name"))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Why the value of a key has no effect, if it has none.
    pub(crate) fn idle(&self, key: &WrittenKey) -> Option<String> {
        let name = key.key.full_name;
        let is_redis = matches!(self.store, Store::Redis(_));
        let is_given = key.in_force.origin != ValueOrigin::Default;
        // The variable is named by the URL itself.
        if self.masked.contains(&name) && name != URL {
            return Some(format!("no effect: {REDIS_URL_VARIABLE} takes precedence"));
        }
        match name {
            "lists.file" if is_redis && is_given => {
                Some("no effect: the lists come from Redis".to_owned())
            }
            "upstream.stall_timeout"
                if self.upstream.stall_timeout == self.upstream.read_timeout =>
            {
                let is_longer = key.in_force.text != self.text_of("upstream.read_timeout");
                is_longer.then(|| "read_timeout is longer, and counts".to_owned())
            }
            _ if key.section == "redis" && !is_redis && is_given && name != URL => {
                Some("no effect: the lists come from a file".to_owned())
            }
            _ => None,
        }
    }

    fn text_of(&self, name: &str) -> &str {
        let mut all = self.written.all().iter();
        let found = all.find(|it| it.key.full_name == name);
        found.map_or("", |it| &it.in_force.text)
    }
}
