//! What a running gateway makes of what was written: what the machine decides, and what has no effect.

use super::key::service_part;
use super::redis::REDIS_URL_VARIABLE;
use super::written::{URL, ValueOrigin, WrittenKey};
use super::{Config, Store, UpstreamSettings};

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
            "upstream.stall_timeout" => {
                let upstream = self.upstream_of(&key.section);
                let is_shorter = upstream.stall_timeout == upstream.read_timeout
                    && key.in_force.text != self.read_timeout_of(&key.section);
                is_shorter.then(|| "read_timeout is longer, and counts".to_owned())
            }
            "service.gray_key"
            | "service.pre_key"
            | "service.prod_key"
            | "service.salt_key"
            | "service.tripped_key"
            | "service.release_key"
            | "service.history_key"
                if !is_redis =>
            {
                Some("no effect: the lists come from a file".to_owned())
            }
            _ if &*key.section == "redis" && !is_redis && is_given && name != URL => {
                Some("no effect: the lists come from a file".to_owned())
            }
            _ => None,
        }
    }

    /// What a section says of the servers' side, which may be that of a service.
    fn upstream_of(&self, section: &str) -> &UpstreamSettings {
        let service = service_part(section).and_then(|(name, _)| {
            let mut all = self.services.iter();
            all.find(|it| it.name.as_str() == name)
        });
        service.map_or(&self.default_service().upstream, |it| &it.upstream)
    }

    /// What is written of the read_timeout that holds for a section.
    fn read_timeout_of(&self, section: &str) -> &str {
        let of = |section: &str| {
            let mut all = self.written.all().iter();
            let is_it = |it: &&WrittenKey| {
                &*it.section == section && it.key.full_name == "upstream.read_timeout"
            };
            all.find(is_it)
        };
        let found = of(section).or_else(|| of("upstream"));
        found.map_or("", |it| &it.in_force.text)
    }
}
