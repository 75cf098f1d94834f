//! Redis, the two versions, and the gateways in front of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::children::{Running, free_address};
use crate::programs::Gateway;
use crate::version::Version;

/// A folder that is gone with this.
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("graygate-releases-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(|it| format!("{}: {it}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All of it.
pub(crate) struct Site {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) old: Version,
    pub(crate) new: Version,
    client: redis::Client,
    /// Its address, without the number of a database.
    url: String,
    _redis: Running,
    folder: Folder,
}

impl Site {
    /// Redis and the versions, without gateways.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) fn start() -> Result<Self, String> {
        let folder = Folder::new()?;
        let address = free_address()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--notify-keyspace-events", "KA"]);
        command.current_dir(&folder.0);
        let redis = Running::start(command, address, &folder.0.join("redis.log"))?;
        let url = format!("redis://{address}");
        let client = redis::Client::open(url.as_str()).map_err(|it| it.to_string())?;
        Ok(Self {
            gateways: Vec::new(),
            old: Version::start("old")?,
            new: Version::start("new")?,
            client,
            url,
            _redis: redis,
            folder,
        })
    }

    /// Writes the lists of a database.
    ///
    /// # Errors
    /// What Redis has against it.
    pub(crate) fn fill(&self, database: usize, gray: &[&str]) -> Result<(), String> {
        let mut pipe = redis::pipe();
        pipe.cmd("SELECT").arg(database).ignore();
        pipe.cmd("RPUSH")
            .arg("prod")
            .arg(self.old.address.to_string())
            .ignore();
        pipe.cmd("RPUSH")
            .arg("pre")
            .arg(self.new.address.to_string())
            .ignore();
        pipe.cmd("RPUSH").arg("gray").arg(gray).ignore();
        let connection = self.client.get_connection();
        let mut connection = connection.map_err(|it| it.to_string())?;
        pipe.exec(&mut connection).map_err(|it| it.to_string())
    }

    /// One more gateway on a database.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn add(
        &mut self,
        graygate: &Path,
        database: usize,
        mode: &str,
    ) -> Result<(), String> {
        let name = format!("gw-{}", self.gateways.len());
        let more = format!(
            "[redis]\nurl = {}/{database}\nnode = {name}\n[verdict]\nmode = {mode}\nclient = header:X-User\n",
            self.url
        );
        let gateway = Gateway::start(graygate, self.folder.0.join(name), &more)?;
        self.gateways.push(gateway);
        Ok(())
    }

    /// Looks when the lists are written next.
    ///
    /// # Errors
    /// What Redis has against it.
    pub(crate) fn watch(&self) -> Result<Watch, String> {
        let in_words = |it: redis::RedisError| it.to_string();
        let mut connection = self.client.get_connection().map_err(in_words)?;
        let limit = Some(Duration::from_secs(90));
        connection.set_read_timeout(limit).map_err(in_words)?;
        let (ready, is_ready) = channel();
        let (found, when) = channel();
        thread::spawn(move || {
            let mut events = connection.as_pubsub();
            let names = ["prod", "pre", "gray"].map(|it| format!("__keyspace@0__:{it}"));
            let _ = ready.send(events.subscribe(&names));
            if events.get_message().is_ok() {
                let _ = found.send(Instant::now());
            }
        });
        let is_ready = is_ready.recv().map_err(|it| it.to_string())?;
        is_ready.map_err(in_words)?;
        Ok(Watch(when))
    }
}

/// The first write of a list since it began.
pub(crate) struct Watch(Receiver<Instant>);

impl Watch {
    /// When Redis told of it.
    ///
    /// # Errors
    /// When it did not.
    pub(crate) fn written(self) -> Result<Instant, String> {
        let when = self.0.recv_timeout(Duration::from_secs(1));
        when.map_err(|it| format!("no event of Redis: {it}"))
    }
}
