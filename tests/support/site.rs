//! A small installation: an origin of each version, a Redis or a lists file that lists them, and a gateway.

use std::path::PathBuf;
use std::time::Duration;

use super::gateway::Gateway;
use super::origin::Origin;
use super::redis::Redis;
use super::setup::Setup;
use super::wait_until;

/// A change in Redis must be in force so soon: far above what it takes, far below a check.
const AT_ONCE: Duration = Duration::from_secs(3);

/// An origin of each version, a Redis that lists them, and a gateway. Nobody is gray.
pub(crate) struct Site {
    pub(crate) redis: Redis,
    pub(crate) gateway: Gateway,
    pub(crate) pre: Origin,
    pub(crate) prod: Origin,
}

impl Site {
    /// A site whose gateway learns of changes by keyspace events alone.
    #[track_caller]
    pub(crate) fn by_events() -> Self {
        Self::with(|setup| setup.set("redis.check_interval", "1h"))
    }

    /// A site whose gateway has other settings.
    #[track_caller]
    pub(crate) fn with(edit: impl FnOnce(Setup) -> Setup) -> Self {
        Self::on(Redis::start(), edit)
    }

    /// A site on a server that runs.
    #[track_caller]
    pub(crate) fn on(redis: Redis, edit: impl FnOnce(Setup) -> Setup) -> Self {
        let (pre, prod) = Origin::pre_and_prod();
        redis.push_peers(&pre, &prod);
        let gateway = edit(Setup::new().redis(redis.url())).start();
        // The start waits for the lists, but not for ever.
        gateway.wait_served("127.0.0.200", "prod", AT_ONCE);
        Self {
            redis,
            gateway,
            pre,
            prod,
        }
    }

    /// Runs a command of words without spaces, on database 0.
    #[track_caller]
    pub(crate) fn redis(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        self.redis.cli(&words);
    }

    /// Waits until `client` is served by an origin of the pool of this name.
    #[track_caller]
    pub(crate) fn wait_served(&self, client: &str, pool: &str) {
        self.gateway.wait_served(client, pool, AT_ONCE);
    }

    /// How often the lists were read because of `cause`.
    #[track_caller]
    pub(crate) fn refreshes(&self, cause: &str) -> u64 {
        let name = format!("graygate_lists_refreshes_total{{cause=\"{cause}\"}}");
        self.gateway.metric(&name) as u64
    }

    /// Waits until the lists were read `more` times more because of `cause`.
    #[track_caller]
    pub(crate) fn wait_refreshes(&self, cause: &str, more: u64) {
        let before = self.refreshes(cause);
        wait_until(
            &format!("{more} readings by {cause}"),
            super::DEADLINE,
            || self.refreshes(cause) >= before + more,
        );
    }
}

/// An origin of each version, and a gateway that has them from a lists file.
pub(crate) struct FileSite {
    pub(crate) gateway: Gateway,
    pub(crate) pre: Origin,
    pub(crate) prod: Origin,
}

impl FileSite {
    /// A site where these clients are gray.
    #[track_caller]
    pub(crate) fn with(gray: &[&str], edit: impl FnOnce(Setup) -> Setup) -> Self {
        let (pre, prod) = Origin::pre_and_prod();
        let gateway = edit(Setup::new().lists(gray, &[&pre], &[&prod])).start();
        Self { gateway, pre, prod }
    }

    /// The lists file.
    pub(crate) fn file(&self) -> PathBuf {
        self.gateway.path("lists")
    }

    /// The text of a lists file with these gray clients.
    pub(crate) fn text(&self, gray: &str) -> String {
        let Self { pre, prod, .. } = self;
        format!("[gray]\n{gray}\n[pre]\n{pre}\n[prod]\n{prod}\n")
    }

    /// Checks that each client is served by its pool.
    #[track_caller]
    pub(crate) fn assert_served(&self, clients: &[(&str, &str)], when: &str) {
        for (client, pool) in clients {
            let response = self.gateway.get(client, "/");
            assert_eq!(response.text(), *pool, "{client}, {when}");
        }
    }
}
