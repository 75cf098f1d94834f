//! Where the server is: where the URL says, or where the Sentinels say.
//!
//! With Sentinels, the host in the URL is the name of a master. A Sentinel may be out of date, so its
//! answer counts only once the server that it names is connected and says that it is a master (by ROLE
//! or INFO; without the right to ask, the Sentinel's word must do), as Redis's guide for Sentinel
//! clients requires. Otherwise the next Sentinel is asked, in the same attempt. The first to be asked is
//! the one whose answer counted last.
//!
//! They are asked again at each check; a master is left only for another one. A name in the URL is
//! resolved again then, too. In a cluster, any other server will do while the one in the URL is away.

use std::net::SocketAddr;

use redis::{RedisError, RedisResult};

use super::cluster::Division;
use super::errors::{describe, io_error, reworded};
use super::keyring::Keyring;
use super::link::Link;
use super::{cluster, standing};
use crate::config::{self, Address, Url};

/// Finds the server.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    /// The Sentinel whose answer counted last.
    first: usize,
    /// The address that was last logged.
    told: Option<Address>,
    /// What was logged about Sentinels that lead nowhere while the server is a master.
    doubt_told: Option<&'static str>,
    /// Something other than the URL says where the server is.
    quiet: bool,
    /// The other servers of a cluster.
    others: Vec<Address>,
    /// The server that is connected, or else the one that the Sentinels have named last.
    named: Option<Address>,
}

impl Finder {
    /// One that does not log.
    pub(crate) fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// One that knows the servers of a cluster that this one knows.
    pub(crate) fn another(&self) -> Self {
        Self {
            others: self.others.clone(),
            ..Self::default()
        }
    }

    /// Notes the servers of a cluster. If there are none, the last ones are kept.
    pub(crate) fn learn(&mut self, servers: Vec<Address>) {
        if !servers.is_empty() {
            self.others = servers;
        }
    }

    /// Connects to the server, wherever it is now; to the one at `at`, if its name resolves to several.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub(crate) fn open(
        &mut self,
        at: Option<SocketAddr>,
        settings: &config::RedisSettings,
    ) -> RedisResult<Link> {
        if !settings.sentinels.is_empty() {
            let connect = |it: &mut Self, address: &Address| it.open_master(address, settings);
            return self.ask_sentinels(settings, connect);
        }
        self.open_any(at, settings, |_| Ok(()))
    }

    /// The same, and follows redirections to where the lists of some services are; the `division` says who
    /// has the others.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub(crate) fn open_at_lists(
        &mut self,
        settings: &config::RedisSettings,
        keyring: &Keyring,
        division: &mut Division,
    ) -> RedisResult<Link> {
        if settings.sentinels.is_empty() {
            // A server that has left the cluster, or is cut off from it, answers, but knows no others.
            let settle = |link: &mut Link| cluster::settle(link, settings, keyring, division);
            return self.open_any(None, settings, settle);
        }
        let mut link = self.open(None, settings)?;
        cluster::settle(&mut link, settings, keyring, division)?;
        Ok(link)
    }

    /// Connects to the server of the URL, or otherwise to another one of the cluster that is good
    /// enough.
    fn open_any(
        &self,
        at: Option<SocketAddr>,
        settings: &config::RedisSettings,
        mut is_good: impl FnMut(&mut Link) -> RedisResult<()>,
    ) -> RedisResult<Link> {
        let mut open = |at, address: &Address| {
            let mut link = open(at, address, settings)?;
            is_good(&mut link)?;
            Ok(link)
        };
        // Resolved anew each time.
        let mut outcome = open(at, settings.url.address());
        for other in &self.others {
            if outcome.is_ok() {
                break;
            }
            outcome = open(None, other).or(outcome);
        }
        outcome
    }

    /// Connects to the server at `address`, which must be a master.
    fn open_master(
        &mut self,
        address: &Address,
        settings: &config::RedisSettings,
    ) -> RedisResult<Link> {
        let mut link = open(None, address, settings)?;
        must_be_master(&mut link, address)?;
        if !self.quiet && self.told.as_ref() != Some(address) {
            log::info!("redis-master address={address}");
            self.told = Some(address.clone());
        }
        Ok(link)
    }

    /// An error in words, with the server that it is about where the URL does not say that.
    pub(crate) fn describe(&self, error: &RedisError) -> String {
        match &self.named {
            Some(address) => about(address, error),
            None => describe(error),
        }
    }

    /// The server that is meant, as far as that is known.
    pub(crate) fn place<'a>(&'a self, settings: &'a config::RedisSettings) -> Option<&'a Address> {
        match settings.sentinels.is_empty() {
            true => Some(settings.url.address()),
            false => self.named.as_ref(),
        }
    }

    /// The result of `reach` with the server that a Sentinel names: of the first Sentinel for which it
    /// succeeds.
    ///
    /// # Errors
    /// When there is none: the outcome for each of them.
    fn ask_sentinels<T>(
        &mut self,
        settings: &config::RedisSettings,
        mut reach: impl FnMut(&mut Self, &Address) -> RedisResult<T>,
    ) -> RedisResult<T> {
        self.named = None;
        let (count, first) = (settings.sentinels.len(), self.first);
        let mut complaints = vec![String::new(); count];
        // Many may name the same one, which is tried once.
        let mut failed: Vec<(Address, RedisError)> = Vec::new();
        for at in (0..count).map(|it| (first + it) % count) {
            let sentinel = &settings.sentinels[at];
            let why = match ask(sentinel, settings) {
                Ok(address) => {
                    let known = failed.iter().position(|(it, _)| *it == address);
                    let known = known.unwrap_or(failed.len());
                    if known == failed.len() {
                        self.named = Some(address.clone());
                        match reach(self, &address) {
                            Ok(reached) => {
                                self.first = at;
                                return Ok(reached);
                            }
                            Err(error) => failed.push((address.clone(), error)),
                        }
                    }
                    about(&address, &failed[known].1)
                }
                Err(error) => describe(&error),
            };
            complaints[at] = format!("{}: {why}", sentinel.address());
        }
        // In the same order each time, so that the log says it once.
        let complaints = complaints.join(", ");
        let name = host(settings.url.address());
        let error = format!("no Sentinel leads to the master {name}: {complaints}");
        Err(match failed.last() {
            Some((_, last)) => reworded(last, error),
            None => io_error(error),
        })
    }

    /// With Sentinels, makes sure that the server to which `link` leads still is the master. It is left
    /// when it says that it is not a master, or when they lead to another one; while they lead nowhere,
    /// its own word must do.
    ///
    /// # Errors
    /// When another one is.
    pub(crate) fn check(
        &mut self,
        link: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<()> {
        if settings.sentinels.is_empty() {
            return Ok(());
        }
        let own = link.address().clone();
        must_be_master(link, &own)?;
        let reach = |it: &mut Self, address: &Address| match *address == own {
            true => Ok(()),
            false => it.open_master(address, settings).map(drop),
        };
        match self.ask_sentinels(settings, reach) {
            Ok(()) => {
                self.doubt_told = None;
                match self.named.as_ref().filter(|it| **it != own) {
                    None => Ok(()),
                    Some(now) => {
                        let error = format!("another server is the master now: {now}");
                        Err(io_error(error))
                    }
                }
            }
            Err(error) => {
                let doubt = match self.named.replace(own) {
                    None => "redis-sentinels-lost",
                    Some(_) => "redis-sentinels-unconfirmed",
                };
                if self.doubt_told.replace(doubt) != Some(doubt) {
                    log::warn!("{doubt} error={:?}", describe(&error));
                }
                Ok(())
            }
        }
    }
}

fn open(
    at: Option<SocketAddr>,
    address: &Address,
    settings: &config::RedisSettings,
) -> RedisResult<Link> {
    let login = settings.url.login();
    Link::open_at(at, address, login, &settings.tls, settings.timeout)
}

/// Makes sure that `link`, to the server at `address`, leads to a master.
///
/// # Errors
/// When it does not.
fn must_be_master(link: &mut Link, address: &Address) -> RedisResult<()> {
    // Without the right to ask, the Sentinels' word must do.
    match standing::role(link)?.filter(|it| it != "master") {
        Some(role) => Err(io_error(format!("{address} is a {role}, not a master"))),
        None => Ok(()),
    }
}

/// The host of an address; with Sentinels, that is the name of a master.
fn host(address: &Address) -> &str {
    match address {
        Address::Tcp { host, .. } => host,
        // Refused with Sentinels when the settings are read.
        Address::Unix(_) => "",
    }
}

/// An error in words, with the server that it is about.
fn about(address: &Address, error: &RedisError) -> String {
    let words = describe(error);
    match words.contains(&address.to_string()) {
        true => words,
        false => format!("{address}: {words}"),
    }
}

/// Where this Sentinel says that the master is.
fn ask(sentinel: &Url, settings: &config::RedisSettings) -> RedisResult<Address> {
    let (address, login) = (sentinel.address(), sentinel.login());
    // Another server uses another name.
    let tls = config::Tls {
        name: None,
        ..settings.tls.clone()
    };
    let mut link = Link::open(address, login, &tls, settings.timeout)?;
    let mut command = redis::cmd("SENTINEL");
    let name = host(settings.url.address());
    let found = link.ask(command.arg("get-master-addr-by-name").arg(name))?;
    let found: Option<(String, u16)> = redis::from_redis_value(found)?;
    let (host, port) = found.ok_or_else(|| io_error("it does not know that master"))?;
    let tls = settings.url.is_tls();
    Ok(Address::Tcp { host, port, tls })
}
