//! What runs: Redis, the servers, and the gateways, each with an ini file of its own beside the others'.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::acts::GRAY;
use crate::children::{Running, free_address};
use crate::client::Client;
use crate::origin::Origin;
use crate::receiver::Receiver;
use crate::release::{BASKET, TUNNEL_GRACE};
use crate::selected::{ENDED, SERVICES, SHOP};
use crate::stored;

/// A running gateway.
pub(crate) struct Gateway {
    running: Running,
    pub(crate) workers: usize,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    folder: PathBuf,
    /// What is the gateway's own; the rest is as shipped.
    settings: String,
}

impl Gateway {
    /// Starts one, whose lists are found by `source`, lines of the ini file, and waits until it has them.
    pub(crate) fn start(
        program: &Path,
        scratch: &Path,
        workers: usize,
        listen: Vec<SocketAddr>,
        source: &str,
    ) -> Result<Self, String> {
        let folder = scratch.join(format!("gateway-{workers}"));
        fs::create_dir(&folder).map_err(|it| format!("a folder: {it}"))?;
        let admin = free_address()?;
        let addresses: Vec<String> = listen.iter().map(ToString::to_string).collect();
        let mut settings = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            settings,
            "[gateway]\nlisten = {}\nworkers = {workers}\npid_file = pid\nuser =\n\
             tunnel_grace = {}s\n[admin]\nsocket = off\nlisten = {admin}\n[log]\naccess = access.log\nerror = error.log\n\
             [lists]\nlast_good = copy\n{source}",
            addresses.join(", "),
            TUNNEL_GRACE.as_secs()
        );
        let ini = folder.join("graygate.ini");
        fs::write(&ini, with_keepalive(&settings, 64))
            .map_err(|it| format!("an ini file: {it}"))?;
        let mut command = Command::new(program);
        command.args(["run", "-c"]).arg(&ini);
        let running = Running::start(command, listen[0], &folder.join("out"))?;
        let gateway = Self {
            running,
            workers,
            listen,
            admin,
            folder,
            settings,
        };
        gateway.wait_healthy()?;
        Ok(gateway)
    }

    fn wait_healthy(&self) -> Result<(), String> {
        let start = Instant::now();
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let is_healthy = || {
            let answer = Client::connect(self.admin).and_then(|mut it| it.ask(request));
            answer.is_ok_and(|it| it.status == 200)
        };
        while !is_healthy() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(format!(
                    "the gateway is not healthy: {}",
                    self.running.said()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Its ini file, also for commands.
    pub(crate) fn ini(&self) -> PathBuf {
        self.folder.join("graygate.ini")
    }

    fn signal(&self, signal: Signal) {
        // One that has ended shows by everything else.
        let _ = kill(Pid::from_raw(self.id().cast_signed()), signal);
    }

    /// Has it read its settings again, of which one was changed.
    pub(crate) fn reload(&self, at: usize) {
        let keepalive = [64, 48][at % 2];
        let settings = with_keepalive(&self.settings, keepalive);
        // As an editor does it.
        let new = self.folder.join("graygate.ini.new");
        let written = fs::write(&new, settings);
        if written.and_then(|()| fs::rename(&new, self.ini())).is_ok() {
            self.signal(Signal::SIGHUP);
        }
    }

    /// Rotates its logs, of which the last one is lost.
    pub(crate) fn rotate(&self) {
        for log in ["access.log", "error.log"] {
            let name = self.folder.join(log);
            let _ = fs::rename(&name, name.with_extension("1"));
        }
        self.signal(Signal::SIGUSR1);
    }
}

/// Everything; fields in the order in which they end.
pub(crate) struct Site {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) redis: Redis,
    /// Sound ones of the new and of the old version.
    sound: Vec<Origin>,
    pub(crate) flaky: Origin,
    /// The two versions of the service that is released all the time.
    old: Origin,
    pub(crate) new: Origin,
    pub(crate) receiver: Receiver,
    pub(crate) weather: Weather,
    _scratch: TempDir,
}

impl Site {
    /// Everything, with a gateway for each of these numbers of workers.
    pub(crate) fn start(program: &Path, workers: &[usize]) -> Result<Self, String> {
        let scratch = scratch()?;
        let origin = || -> Result<Origin, String> {
            Origin::start(free_address()?).map_err(|it| format!("a server: {it}"))
        };
        let sound = (0..4).map(|_| origin()).collect::<Result<Vec<_>, _>>()?;
        let receiver =
            Receiver::start(free_address()?).map_err(|it| format!("a receiver: {it}"))?;
        let mut site = Self {
            gateways: Vec::new(),
            redis: Redis::start(scratch.path())?,
            sound,
            flaky: origin()?,
            old: origin()?,
            new: origin()?,
            receiver,
            weather: Weather::new(),
            _scratch: scratch,
        };
        site.fill().map_err(|it| format!("redis: {it}"))?;
        for workers in workers {
            let url = site.redis.url();
            let receiver = site.receiver.address;
            let source = format!(
                "{SERVICES}{BASKET}[verdict]\nwebhook = http://{receiver}/\n\
                 [redis]\nurl = {url}\nnode = soak-{workers}\n"
            );
            let listen = vec![free_address()?];
            let folder = site._scratch.path();
            let gateway = Gateway::start(program, folder, *workers, listen, &source)?;
            site.gateways.push(gateway);
        }
        site.fill_history(program)?;
        Ok(site)
    }

    /// Has the history of the release as full as it gets.
    fn fill_history(&self, program: &Path) -> Result<(), String> {
        for verb in [&["admit"][..], &["remove", "--yes"]] {
            let mut command = Command::new(program);
            command
                .args(verb)
                .args(["127.9.9.9", "--service", "basket", "-c"]);
            command.arg(self.gateways[0].ini()).stdin(Stdio::null());
            let output = command.output().map_err(|it| format!("{verb:?}: {it}"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{verb:?}: {said}"));
            }
        }
        stored::fill(&self.redis).map_err(|it| format!("redis: {it}"))
    }

    fn fill(&self) -> redis::RedisResult<()> {
        let [pre, prod] = [&self.sound[..2], &self.sound[2..]];
        let addresses =
            |of: &[Origin]| -> Vec<String> { of.iter().map(|it| it.address.to_string()).collect() };
        let mut lists = redis::pipe();
        lists.cmd("SADD").arg("gray").arg(GRAY).arg(ENDED);
        lists.cmd("SADD").arg("shop:gray").arg(&SHOP);
        for service in ["", "shop:", "tunnels:"] {
            for (pool, origins) in [("pre", pre), ("prod", prod)] {
                let key = format!("{service}{pool}");
                lists.cmd("RPUSH").arg(key).arg(addresses(origins));
            }
        }
        for (key, origin) in [
            ("prod", &self.flaky),
            ("basket:prod", &self.old),
            ("basket:pre", &self.new),
        ] {
            lists.cmd("RPUSH").arg(key).arg(origin.address.to_string());
        }
        lists.exec(&mut self.redis.connect()?)
    }
}

/// A folder for everything, which goes with it.
pub(crate) fn scratch() -> Result<TempDir, String> {
    let scratch = tempfile::Builder::new().prefix("soak-").tempdir();
    scratch.map_err(|it| format!("a folder: {it}"))
}

/// The Redis server; after a restart it has what it had.
pub(crate) struct Redis {
    running: Option<Running>,
    address: SocketAddr,
    folder: PathBuf,
}

impl Redis {
    fn start(scratch: &Path) -> Result<Self, String> {
        let mut redis = Self {
            running: None,
            address: free_address()?,
            folder: scratch.to_owned(),
        };
        redis.begin()?;
        Ok(redis)
    }

    fn begin(&mut self) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", &self.address.ip().to_string()])
            .args(["--port", &self.address.port().to_string()])
            // So that it saves when it is told to end.
            .args(["--save", "3600 1", "--appendonly", "no"])
            .args(["--notify-keyspace-events", "KEA"])
            // Records are dropped by so many at once.
            .args(["--stream-node-max-entries", "10"])
            .arg("--dir")
            .arg(&self.folder);
        let log = self.folder.join("redis.log");
        self.running = Some(Running::start(command, self.address, &log)?);
        Ok(())
    }

    /// Ends it, and starts it anew after a moment.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.running = None;
        std::thread::sleep(Duration::from_millis(300));
        self.begin()
    }

    fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    pub(crate) fn connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(self.url())?;
        client.get_connection_with_timeout(Duration::from_secs(5))
    }
}

/// Whether commands may fail because Redis was restarted.
pub(crate) struct Weather {
    start: Instant,
    /// Until so many milliseconds after the start.
    bad_until: AtomicU64,
}

impl Weather {
    /// After a restart gateways connect again, and their heartbeats come.
    const AFTER: Duration = Duration::from_secs(3);

    fn new() -> Self {
        Self {
            start: Instant::now(),
            bad_until: AtomicU64::new(0),
        }
    }

    /// It turns bad.
    pub(crate) fn turn_bad(&self) {
        self.bad_until.store(u64::MAX, Ordering::SeqCst);
    }

    /// It turns good, after a while.
    pub(crate) fn turn_good(&self) {
        let until = self.start.elapsed() + Self::AFTER;
        self.bad_until.store(milliseconds(until), Ordering::SeqCst);
    }

    /// It is bad, or was at some time after `moment`.
    pub(crate) fn was_bad_after(&self, moment: Instant) -> bool {
        milliseconds(moment - self.start) < self.bad_until.load(Ordering::SeqCst)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The settings of a gateway that keeps so many connections.
fn with_keepalive(settings: &str, keepalive: usize) -> String {
    format!("{settings}\n[upstream]\nkeepalive = {keepalive}\n")
}
