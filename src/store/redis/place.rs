//! Where the server is: as the URL says, or as the Sentinels do.
//!
//! With Sentinels, the host in the URL is the name of a master. They are asked one after the other,
//! beginning with the one that answered last, and what they say is believed only if the server
//! itself says that it is a master (ROLE). They are asked again at each check.

use redis::{RedisResult, Value};

use super::io_error;
use super::link::Link;
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
}

impl Finder {
    /// One that has nothing to say in the log.
    pub(super) fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::default()
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
        let count = settings.sentinels.len();
        let mut complaints = vec![String::new(); count];
        for at in (0..count).map(|it| (self.first + it) % count) {
            let sentinel = &settings.sentinels[at];
            match ask(sentinel, host, settings) {
                Ok((host, port)) => {
                    self.first = at;
                    return Ok(Address::Tcp { host, port, tls });
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
    /// When it does not, or does not say.
    pub(super) fn confirm(
        &mut self,
        link: &mut Link,
        address: &Address,
        settings: &config::Redis,
    ) -> RedisResult<()> {
        if settings.sentinels.is_empty() {
            return Ok(());
        }
        let role = link.ask(&redis::cmd("ROLE"))?;
        let Value::Array(role) = role else {
            return Err(io_error("ROLE has no list as its reply"));
        };
        let role = role.into_iter().next().unwrap_or(Value::Nil);
        let role: String = redis::from_redis_value(role)?;
        if role != "master" {
            let error = format!("{address} is no master, but a {role}");
            return Err(io_error(error));
        }
        if !self.quiet && self.told.as_ref() != Some(address) {
            log::info!("redis-master address={address}");
            self.told = Some(address.clone());
        }
        Ok(())
    }

    /// Makes sure that the server at `address`, to which `link` leads, still is the master. While
    /// no Sentinel answers, its own word must do.
    ///
    /// # Errors
    /// When another one is.
    pub(super) fn check(
        &mut self,
        link: &mut Link,
        address: &Address,
        settings: &config::Redis,
    ) -> RedisResult<()> {
        if settings.sentinels.is_empty() {
            return Ok(());
        }
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
    let mut link = Link::open(address, login, &settings.tls, settings.timeout)?;
    let mut command = redis::cmd("SENTINEL");
    let found = link.ask(command.arg("get-master-addr-by-name").arg(name))?;
    let found: Option<(String, u16)> = redis::from_redis_value(found)?;
    found.ok_or_else(|| io_error("it knows no such master"))
}
