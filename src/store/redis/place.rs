//! Where the server is: as the URL says, or as the Sentinels do.
//!
//! With Sentinels, the host in the URL is the name of a master. They are asked one after the other,
//! beginning with the one that answered last, and what they say is believed only if the server
//! itself, where it may be asked, says that it is a master (ROLE, or INFO). They are asked again at each check. A name in the URL
//! is resolved again then, too. In a cluster, one of the other servers does when that of the URL is
//! away.

use std::net::SocketAddr;

use redis::{RedisError, RedisResult};

use super::io_error;
use super::link::Link;
use super::standing;
use crate::config::{self, Address, Url};

/// Finds the server.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// The Sentinel that answered last.
    first: usize,
    /// The address that was last told.
    told: Option<Address>,
    /// Whether it was said that no Sentinel answers, while the server does.
    lost_told: bool,
    /// Somebody else says where the server is.
    quiet: bool,
    /// The other servers of a cluster.
    others: Vec<Address>,
    /// The server that the Sentinels have named last.
    named: Option<Address>,
}

impl Finder {
    /// One that has nothing to say in the log.
    pub(super) fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// Notes the servers of a cluster. When it does not name any, the last ones stay.
    pub(super) fn learn(&mut self, servers: Vec<Address>) {
        if !servers.is_empty() {
            self.others = servers;
        }
    }

    /// Connects to the server, wherever it is now; to the one that `at` says, if its name means several.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub(super) fn open(
        &mut self,
        at: Option<SocketAddr>,
        settings: &config::Redis,
    ) -> RedisResult<Link> {
        let open = |at, address: &Address| {
            let login = settings.url.login();
            Link::open_at(at, address, login, &settings.tls, settings.timeout)
        };
        // Found and resolved anew each time.
        let address = self.find(settings)?;
        let at = at.filter(|_| settings.sentinels.is_empty());
        let mut outcome = open(at, &address);
        for other in &self.others {
            if outcome.is_ok() {
                break;
            }
            outcome = open(None, other).or(outcome);
        }
        let mut link = outcome?;
        self.confirm(&mut link, &address, settings)?;
        Ok(link)
    }

    /// An error in words, with the server that it is about where the URL does not say that.
    pub(super) fn describe(&self, error: &RedisError) -> String {
        let words = super::describe(error);
        match &self.named {
            Some(address) if !words.contains(&address.to_string()) => format!("{address}: {words}"),
            _ => words,
        }
    }

    /// The address of the server, or of the master as the first Sentinel that answers knows it.
    ///
    /// # Errors
    /// When no Sentinel knows the master: what each of them said.
    pub(super) fn find(&mut self, settings: &config::Redis) -> RedisResult<Address> {
        let (host, tls) = match settings.url.address() {
            Address::Tcp { host, tls, .. } if !settings.sentinels.is_empty() => (host, *tls),
            address => return Ok(address.clone()),
        };
        self.named = None;
        let count = settings.sentinels.len();
        let mut complaints = vec![String::new(); count];
        for at in (0..count).map(|it| (self.first + it) % count) {
            let sentinel = &settings.sentinels[at];
            match ask(sentinel, host, settings) {
                Ok((host, port)) => {
                    self.first = at;
                    let address = Address::Tcp { host, port, tls };
                    self.named = Some(address.clone());
                    return Ok(address);
                }
                Err(error) => {
                    complaints[at] = format!("{}: {}", sentinel.address(), super::describe(&error));
                }
            }
        }
        // In the same order each time, so that they are told once.
        let complaints = complaints.join(", ");
        let error = format!("no Sentinel knows the master {host}: {complaints}");
        Err(io_error(error))
    }

    /// Makes sure that `link`, to the server at `address`, leads to a master, if Sentinels are to
    /// find one; and says where that is.
    ///
    /// # Errors
    /// When it does not.
    fn confirm(
        &mut self,
        link: &mut Link,
        address: &Address,
        settings: &config::Redis,
    ) -> RedisResult<()> {
        if settings.sentinels.is_empty() {
            return Ok(());
        }
        // Where it may not be asked, the Sentinels' word must do.
        let role = standing::role(link)?;
        if let Some(role) = role.filter(|it| it != "master") {
            let error = format!("{address} is no master, but a {role}");
            return Err(io_error(error));
        }
        if !self.quiet && self.told.as_ref() != Some(address) {
            log::info!("redis-master address={address}");
            self.told = Some(address.clone());
        }
        Ok(())
    }

    /// Makes sure that the server to which `link` leads still is the master, if Sentinels are to find
    /// one. While none of them answers, its own word must do.
    ///
    /// # Errors
    /// When another one is.
    pub(super) fn check(&mut self, link: &mut Link, settings: &config::Redis) -> RedisResult<()> {
        if settings.sentinels.is_empty() {
            return Ok(());
        }
        let address = &link.address().clone();
        match self.find(settings) {
            Ok(now) if now != *address => {
                let error = format!("another server is the master now: {now}");
                return Err(io_error(error));
            }
            Ok(_) => self.lost_told = false,
            Err(error) if !self.lost_told => {
                self.lost_told = true;
                log::warn!("redis-sentinels-lost error={:?}", super::describe(&error));
            }
            Err(_) => {}
        }
        self.confirm(link, address, settings)
    }
}

fn ask(sentinel: &Url, name: &str, settings: &config::Redis) -> RedisResult<(String, u16)> {
    let (address, login) = (sentinel.address(), sentinel.login());
    // Another server, another name.
    let tls = config::Tls {
        name: None,
        ..settings.tls.clone()
    };
    let mut link = Link::open(address, login, &tls, settings.timeout)?;
    let mut command = redis::cmd("SENTINEL");
    let found = link.ask(command.arg("get-master-addr-by-name").arg(name))?;
    let found: Option<(String, u16)> = redis::from_redis_value(found)?;
    found.ok_or_else(|| io_error("it knows no such master"))
}
