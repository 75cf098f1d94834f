//! One of the gateways.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::clock::Clock;
use super::forwarder::{Forwarder, Writers};
use super::model::Model;
use crate::support::{Client, Setup, free_address};

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    admin: SocketAddr,
    pub(crate) way: Forwarder,
    setup: Setup,
    pub(crate) clock: Option<Clock>,
    process: Mutex<Option<Child>>,
    count: AtomicU32,
    /// It is killed as soon as it has taken something back.
    pub(crate) is_doomed: Arc<AtomicBool>,
}

impl Node {
    pub(crate) fn new(number: usize, server: SocketAddr, writers: &Writers) -> Self {
        let (name, way) = (
            format!("gw-{number}"),
            Forwarder::start(number, server, writers),
        );
        let [listen, admin] = [free_address(), free_address()];
        let mut setup = Setup::new()
            .redis(format!("redis://{}/0", way.address))
            .set("gateway.listen", listen)
            .set("gateway.trusted_proxies", "127.0.0.0/8")
            .set("admin.listen", admin)
            .set("redis.node", &name)
            .set("redis.heartbeat", "500ms")
            .set("redis.check_interval", "2s")
            .set("redis.timeout", "1s")
            .set("lists.last_good", "copy")
            .set("upstream.max_fails", 0)
            .set("verdict.mode", "enforce")
            .set("verdict.tolerate", "50%");
        let clock = Clock::build(&setup.path("."));
        for (name, value) in clock.iter().flat_map(Clock::environment) {
            setup = setup.environment(name, value);
        }
        Self {
            number,
            name,
            listen,
            admin,
            way,
            setup,
            clock,
            process: Mutex::new(None),
            count: AtomicU32::new(0),
            is_doomed: Arc::default(),
        }
    }

    /// Starts its next process.
    pub(crate) fn start(&self, model: &Arc<Model>) {
        let mut process = self.process.lock().unwrap();
        self.way
            .of_process(self.count.fetch_add(1, Ordering::Relaxed) + 1);
        let mut child = self.setup.spawn();
        let mut output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let _ = output.read_to_end(&mut Vec::new());
        });
        let (log, pid) = (
            BufReader::new(child.stderr.take().unwrap()),
            child.id().cast_signed(),
        );
        let (model, number, name) = (Arc::clone(model), self.number, self.name.clone());
        let is_doomed = Arc::clone(&self.is_doomed);
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let has_tripped = model.heard(number, &name, &line);
                // Its pid is not another's before whoever has started it has waited for it.
                if has_tripped && is_doomed.swap(false, Ordering::Relaxed) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    model.note(&format!("{name} is killed, since it has taken that back"));
                    model.count("gateways killed right after their trip");
                }
            }
        });
        *process = Some(child);
    }

    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = &*self.process.lock().unwrap() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    /// False if it was killed, whoever has done so.
    pub(crate) fn is_there(&self) -> bool {
        let mut process = self.process.lock().unwrap();
        let there = |it: &mut Child| it.try_wait().unwrap().is_none();
        process.as_mut().is_some_and(there)
    }

    /// It has the lease of a rollout, by this state of a release.
    pub(crate) fn leads(&self, state: &Value) -> bool {
        let holder = state["rollout"]["holder"].as_str().unwrap_or_default();
        holder.starts_with(&format!("{}/", self.name))
    }

    /// What `/lists` says, if it says anything.
    pub(crate) fn lists(&self) -> Option<Value> {
        let mut client = Client::try_from("127.0.0.1", self.admin).ok()?;
        let head = b"GET /lists HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.send_if_open(head);
        let response = client.try_response_to("GET").ok()?;
        serde_json::from_str(&response.text()).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
