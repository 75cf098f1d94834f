//! A release on a real Redis, and what moves it.

use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;

use super::{Commands, DEADLINE, Gateway, Origin, Redis, Setup, run_to_exit, wait_for, wait_until};

/// A Redis with the lists of a release, and an ini file by which commands find it.
pub(crate) struct Ground {
    pub(crate) redis: Redis,
    pub(crate) setup: Setup,
    commands: Commands,
    _origins: [Origin; 2],
}

impl Deref for Ground {
    type Target = Commands;

    fn deref(&self) -> &Commands {
        &self.commands
    }
}

impl Ground {
    pub(crate) fn new() -> Self {
        let (pre, prod) = Origin::pre_and_prod();
        Self::of(pre, prod)
    }

    /// With these versions.
    pub(crate) fn of(pre: Origin, prod: Origin) -> Self {
        let redis = Redis::start();
        redis.push_peers(&pre, &prod);
        let setup = Setup::new().redis(redis.url());
        let commands = Commands::of(&setup.write_ini());
        Self {
            redis,
            setup,
            commands,
            _origins: [pre, prod],
        }
    }

    pub(crate) fn gateway(&self, node: &str) -> Gateway {
        self.gateway_at(node, self.redis.url())
    }

    pub(crate) fn gateway_at(&self, node: &str, url: String) -> Gateway {
        self.gateway_with(node, url, |it| it)
    }

    pub(crate) fn gateway_with(
        &self,
        node: &str,
        url: String,
        edit: impl FnOnce(Setup) -> Setup,
    ) -> Gateway {
        let setup = Setup::new().redis(url);
        let setup = setup
            .set("redis.node", node)
            .set("redis.heartbeat", "500ms")
            // What is read is read for its being announced.
            .set("redis.check_interval", "1h");
        let gateway = edit(setup.set("verdict.tolerate", "50%")).start();
        gateway.wait_served("127.0.0.200", "prod", DEADLINE);
        gateway
    }

    #[track_caller]
    pub(crate) fn start(&self, steps: &str, every: &str, more: &[&str]) {
        let words = ["rollout", "start", "--steps", steps, "--every", every];
        self.done(&[&words, more].concat());
    }

    /// The member of the state.
    #[track_caller]
    pub(crate) fn rollout(&self) -> Value {
        self.json(&["rollout", "status"])["rollout"].clone()
    }

    /// Waits until it is like that; why it is.
    #[track_caller]
    pub(crate) fn wait_course(&self, course: &str) -> String {
        let rollout = wait_for(course, || {
            Some(self.rollout()).filter(|it| it["course"] == course)
        });
        rollout["why"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        redis::from_redis_value(self.redis.cli(&["LRANGE", key, "0", "-1"])).unwrap()
    }

    /// What was done, the oldest first: the verb, and the shares that came.
    #[track_caller]
    pub(crate) fn history(&self) -> Vec<(String, String)> {
        let all = self.json(&["history", "--last", "1000"]);
        let all = all["changes"].as_array().unwrap().iter().rev();
        let told = all.map(|it| {
            let lines = it["difference"].as_array().unwrap().iter();
            let mut shares = lines.filter_map(|it| it.as_str()?.strip_prefix("+ gray "));
            let share = shares.next().unwrap_or_default().to_owned();
            (it["verb"].as_str().unwrap().to_owned(), share)
        });
        told.collect()
    }

    /// The gateway that has the lease.
    pub(crate) fn leader(&self) -> Option<String> {
        let rollout = self.rollout();
        let holder = rollout["holder"].as_str()?;
        Some(holder.split('/').next().unwrap().to_owned())
    }
}

/// As `wait_for`, for so long.
pub(crate) fn wait_for_within<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let mut found = None;
    wait_until(what, limit, || {
        found = look();
        found.is_some()
    });
    found.unwrap()
}
