//! A gateway within the test's own process, for what cannot be seen, or not be set, from outside of it.
//!
//! One in a process: its workers are for the process's life, and so is the hook for panics.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use graygate::config::{Config, LogTarget};
use graygate::lists::{ByList, Lists};
use graygate::logs::writer::Log;
use graygate::metrics::Metrics;
use graygate::net;
use graygate::proxy::Gateway;
use graygate::proxy::doubts::Doubts;
use graygate::proxy::listeners;
use graygate::proxy::moved::Heir;
use graygate::snapshot::Published;
use graygate::upstream::in_force::InForce;

use super::client::Client;
use super::origin::Origin;

/// A gateway whose parts the test can reach.
pub(crate) struct GatewayInside {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) addr: SocketAddr,
    pub(crate) access_log: Log,
    /// What it was started with.
    pub(crate) config: Config,
}

impl GatewayInside {
    /// Starts it with as many workers as the text says, and without lists.
    #[track_caller]
    pub(crate) fn start(ini: &str, access_log: &LogTarget) -> Self {
        Self::start_with(ini, access_log, |_| {})
    }

    /// As [`Self::start`], where the gateway is edited before anything reaches it.
    #[track_caller]
    pub(crate) fn start_with(
        ini: &str,
        access_log: &LogTarget,
        edit: impl FnOnce(&mut Gateway),
    ) -> Self {
        let config = Config::parse(Path::new("/test.ini"), ini, None).unwrap();
        let access_log = Log::open("access", access_log, |path| File::create(path)).unwrap();
        let entrances = listeners::bind(&config.gateway.listen, |_| None).unwrap();
        let addr = entrances[0].addr();
        let workers = net::start(config.gateway.workers).unwrap();
        let mut gateway = Gateway {
            config: Arc::new(Published::new(config.clone())),
            lists: Arc::new(InForce::new(workers)),
            metrics: Metrics::new(workers),
            access_log: access_log.queue(),
            listening: arc_swap::ArcSwap::default(),
            doubts: Doubts::default(),
            draining: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            heir: Heir::default(),
            accepting: AtomicUsize::new(0),
            connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        };
        gateway.lists.set_services(&config.services);
        edit(&mut gateway);
        let gateway = Arc::new(gateway);
        listeners::serve(&gateway, entrances).unwrap();
        Self {
            gateway,
            addr,
            access_log,
            config,
        }
    }

    /// From now on, requests go to `origin`.
    pub(crate) fn send_to(&self, origin: &Origin) {
        let entries = ByList {
            prod: vec![origin.to_string()],
            ..ByList::default()
        };
        self.gateway.lists.store(Lists::parse(1, entries, 80));
    }

    /// The same, whether or not an entry of this gray list selects them.
    #[track_caller]
    pub(crate) fn send_to_both(&self, origin: &Origin, gray: &[&str]) {
        let entries = ByList {
            gray: gray.iter().map(|it| (*it).to_owned()).collect(),
            pre: vec![origin.to_string()],
            prod: vec![origin.to_string()],
        };
        let lists = Lists::parse(1, entries, 80);
        assert_eq!(lists.gray.skipped().first, []);
        self.gateway.lists.store(lists);
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }
}
