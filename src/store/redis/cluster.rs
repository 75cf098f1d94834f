//! Redis Cluster: finding the server that has a key's slot at the moment.
//!
//! A server without the slot names the one that has it (MOVED), or, while the slot is being migrated key by
//! key, the one that may have the key already (ASK). Both are followed with a new connection. After a MOVED
//! that connection replaces the old one. An ASK is for one command only, and the next command goes to the
//! owner again: if a migration is cancelled at the owner, the other server may go on importing, and would
//! be believed for ever. The lists of a service are read at one moment, so they must be in one slot, by a
//! hash tag as in `{gg}gray`. They are read at the owner of the slot; how they are read during a migration
//! is in `open_slot`. Other services, and other keys, may be anywhere: each server of which some services
//! are has a watcher of its own (`watchers`).

use std::net::SocketAddr;

use redis::{RedisError, RedisResult, Value};

use super::errors::{describe, io_error, is_of_cluster, is_of_open_slot, is_refusal};
use super::keyring::Keyring;
use super::link::Link;
use crate::config::{self, Address};

/// Most redirections that are followed, one after the other.
const MOST: usize = 5;

/// What is probably wrong if a redirection leads nowhere.
const UNNAMED: &str = "does not name the host: set cluster-announce-hostname at each server of the cluster, or \
     cluster-preferred-endpoint-type to ip";

/// Where a server redirects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirection {
    /// Empty: the host of the server itself.
    host: String,
    port: u16,
    /// The slot is yet to come there.
    asking: bool,
}

impl Redirection {
    /// What an error says, if it is a redirection: `MOVED 3999 10.0.0.1:6379`.
    pub(crate) fn of(error: &RedisError) -> Option<Self> {
        let asking = match error.code()? {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let mut words = error.detail()?.split_ascii_whitespace();
        let (_slot, place) = (words.next()?, words.next()?);
        let (host, port) = place.rsplit_once(':')?;
        Some(Self {
            // Sent by a server that should announce a name, but does not know it.
            host: if host == "?" { "" } else { host }.to_owned(),
            port: port.parse().ok()?,
            asking,
        })
    }

    /// The slot is yet to come there.
    pub(crate) const fn is_asking(&self) -> bool {
        self.asking
    }

    /// True when `link` leads there, if the server at `from` sent this.
    pub(crate) fn leads_to(&self, link: &Link, from: &Link) -> bool {
        self.address(from).as_ref() == Some(link.address())
    }

    /// The address, if the server at `from` sent this. Without a host it is the same host.
    fn address(&self, from: &Link) -> Option<Address> {
        match from.address() {
            Address::Tcp { host, tls, .. } => Some(Address::Tcp {
                host: match self.host.as_str() {
                    "" => host.clone(),
                    other => other.to_owned(),
                },
                port: self.port,
                tls: *tls,
            }),
            Address::Unix(_) => None,
        }
    }

    /// Connects to it.
    pub(crate) fn open(&self, from: &Link, settings: &config::RedisSettings) -> RedisResult<Link> {
        let address = self.address(from).ok_or_else(|| {
            io_error("a Redis Cluster cannot be followed by a socket of the file system: give a host in url")
        })?;
        let login = settings.url.login();
        // Its name may resolve to others, too.
        let answered = from.peer().filter(|_| self.host.is_empty());
        let peer = answered.map(|it| SocketAddr::new(it.ip(), self.port));
        let link = Link::open_at(peer, &address, login, &settings.tls, settings.timeout);
        let mut link = link.map_err(|error| match peer {
            Some(peer) => {
                let (error, from) = (describe(&error), from.place());
                io_error(format!(
                    "{peer}: {error} ({from} sends there, and {UNNAMED})"
                ))
            }
            None => error,
        })?;
        link.set_asking(self.asking);
        Ok(link)
    }
}

/// Does something on `link`; if a server says that the slot has moved, `link` leads there from then on.
///
/// # Errors
/// Those of `act`, or why the server to which it was redirected cannot be reached.
pub(crate) fn follow<T>(
    link: &mut Link,
    settings: &config::RedisSettings,
    mut act: impl FnMut(&mut Link) -> RedisResult<T>,
) -> RedisResult<T> {
    let mut outcome = act(link);
    for _ in 0..MOST {
        let Err(error) = &outcome else {
            break;
        };
        let Some(to) = Redirection::of(error) else {
            break;
        };
        let mut there = to.open(link, settings)?;
        outcome = act(&mut there);
        if to.asking {
            break;
        }
        *link = there;
    }
    outcome
}

/// As [`follow`], but `link` stays where it is, and `aside` is the connection to elsewhere.
///
/// # Errors
/// The same.
pub(crate) fn follow_aside<T>(
    link: &mut Link,
    aside: &mut Option<Link>,
    settings: &config::RedisSettings,
    mut act: impl FnMut(&mut Link) -> RedisResult<T>,
) -> RedisResult<T> {
    if let Some(there) = aside {
        match follow(there, settings, &mut act) {
            // It may have been closed meanwhile.
            Err(error) if error.code().is_none() => *aside = None,
            outcome => return outcome,
        }
    }
    let error = match act(link) {
        Err(error) => error,
        outcome => return outcome,
    };
    let Some(to) = Redirection::of(&error) else {
        return Err(error);
    };
    let mut there = to.open(link, settings)?;
    match to.asking {
        true => act(&mut there),
        false => follow(aside.insert(there), settings, act),
    }
}

/// Which of the services of a keyring a server has, and who has the others.
#[derive(Debug, Default)]
pub(crate) struct Division {
    /// Those that it has.
    pub(crate) here: Vec<usize>,
    /// The others, by the servers that have them, as far as those are known.
    pub(crate) elsewhere: Vec<(Option<Address>, Vec<usize>)>,
}

/// Where the lists of a service are.
enum Whereabouts {
    Here,
    /// Where this redirection leads.
    There(Redirection, RedisError),
    /// Nowhere at present, or in several places.
    Nowhere(RedisError),
}

/// Makes `link` lead to a server that owns the slots of some services: of those of the first one that is
/// elsewhere, if this one has none. Where it is no cluster, it has all. The `division` says of the others,
/// also where this fails, who has them.
///
/// # Errors
/// When no server says which one that is, or the lists of each service are in several slots.
pub(crate) fn settle(
    link: &mut Link,
    settings: &config::RedisSettings,
    keyring: &Keyring,
    division: &mut Division,
) -> RedisResult<()> {
    *division = Division::default();
    let mut services = keyring.all();
    let mut last = None;
    for _ in 0..=MOST {
        let mut there: Vec<(Redirection, Vec<usize>)> = Vec::new();
        let mut lost = Vec::new();
        for (service, place) in look(link, keyring, &services)? {
            match place {
                Whereabouts::Here => division.here.push(service),
                Whereabouts::There(to, error) => {
                    last = Some(error);
                    match there.iter_mut().find(|(it, _)| *it == to) {
                        Some((_, others)) => others.push(service),
                        None => there.push((to, vec![service])),
                    }
                }
                Whereabouts::Nowhere(error) => {
                    last.get_or_insert(error);
                    lost.push(service);
                }
            }
        }
        let is_here = !division.here.is_empty();
        let next = (!is_here && !there.is_empty()).then(|| there.remove(0));
        if !lost.is_empty() && (is_here || next.is_some()) {
            division.elsewhere.push((None, lost));
        }
        let others = there.into_iter();
        let others = others.map(|(to, services)| (to.address(link), services));
        division.elsewhere.extend(others);
        if is_here {
            return Ok(());
        }
        let Some((to, own)) = next else { break };
        services = own;
        *link = to.open(link, settings)?;
    }
    let error = last.unwrap_or_else(|| io_error("no server has the lists"));
    Err(explained(error, keyring))
}

/// Sends a trivial command about each list of these services. Only an answer that the slot is elsewhere, or
/// nowhere, counts: the owner of a slot in migration redirects for single keys (ASK), and stays the owner.
fn look(
    link: &mut Link,
    keyring: &Keyring,
    services: &[usize],
) -> RedisResult<Vec<(usize, Whereabouts)>> {
    let lists = || services.iter().flat_map(|it| keyring.lists(*it));
    let mut request = Vec::new();
    for list in lists() {
        request.extend(link.asking());
        let mut command = redis::cmd("LRANGE");
        command.arg(keyring.key(list)).arg(0).arg(0);
        request.extend(command.get_packed_command());
    }
    link.send(&request)?;
    let mut found = Vec::with_capacity(services.len());
    for service in services {
        let mut place: Option<Whereabouts> = None;
        for _ in keyring.lists(*service) {
            link.receive_asked()?;
            let now = match link.receive()?.extract_error() {
                Err(error) if is_of_cluster(&error) && !is_of_open_slot(&error) => {
                    match Redirection::of(&error) {
                        Some(to) => Whereabouts::There(to, error),
                        None => Whereabouts::Nowhere(error),
                    }
                }
                _ => Whereabouts::Here,
            };
            place = Some(match place {
                None => now,
                Some(before) => before.and(now),
            });
        }
        found.push((*service, place.unwrap_or(Whereabouts::Here)));
    }
    Ok(found)
}

impl Whereabouts {
    /// Where two lists of a service are.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Here, Self::Here) => Self::Here,
            (Self::There(to, error), Self::There(other, _)) if to == other => {
                Self::There(to, error)
            }
            (Self::Nowhere(error), _)
            | (_, Self::Nowhere(error) | Self::There(_, error))
            | (Self::There(_, error), Self::Here) => Self::Nowhere(error),
        }
    }
}

/// An error of a cluster, with what to do if the lists of a service are in several slots.
pub(crate) fn explained(error: RedisError, keyring: &Keyring) -> RedisError {
    let is_unnamed = || Redirection::of(&error).is_some_and(|it| it.host.is_empty());
    if !is_of_cluster(&error) {
        return error;
    }
    let Some(scattered) = keyring.scattered() else {
        return match is_unnamed() {
            true => io_error(format!("{} (the server {UNNAMED})", describe(&error))),
            false => error,
        };
    };
    let service = &keyring.services()[scattered].service;
    if service.is_default() {
        return io_error(
            "this is a Redis Cluster, and the keys of the lists are in several slots of it, which cannot be \
             read in one transaction; give them one hash tag, in [redis]: gray_key = {gg}gray, \
             pre_key = {gg}pre, prod_key = {gg}prod, accept_key = {gg}accept",
        );
    }
    io_error(format!(
        "this is a Redis Cluster, and the keys of the lists of {service} are in several slots of it, which cannot \
         be read in one transaction; give them one hash tag, in [service {service}]: \
         gray_key = {{{service}}}:gray, pre_key = {{{service}}}:pre, prod_key = {{{service}}}:prod, \
         salt_key = {{{service}}}:salt, and tripped_key, release_key and history_key likewise"
    ))
}

/// All servers of the cluster, as far as this one knows them; none if it does not say.
///
/// # Errors
/// When the server cannot be asked.
pub(crate) fn servers(link: &mut Link) -> RedisResult<Vec<Address>> {
    let reply = match link.ask(redis::cmd("CLUSTER").arg("SLOTS")) {
        Ok(reply) => reply,
        Err(error) if is_refusal(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let tls = matches!(link.address(), Address::Tcp { tls: true, .. });
    let mut servers = Vec::new();
    for (host, port) in places(&reply) {
        let server = Address::Tcp { host, port, tls };
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    Ok(servers)
}

/// Of `[[first slot, last slot, [host, port, …], …], …]`.
fn places(reply: &Value) -> Vec<(String, u16)> {
    let items = |value: &Value| match value {
        Value::Array(items) => items.clone(),
        _ => Vec::new(),
    };
    let ranges = items(reply);
    let servers = ranges
        .iter()
        .flat_map(|range| items(range).into_iter().skip(2));
    let place = |server: Value| match &items(&server)[..] {
        [Value::BulkString(host), Value::Int(port), ..] if !host.is_empty() => {
            let host = String::from_utf8(host.clone()).ok()?;
            Some((host, u16::try_from(*port).ok()?))
        }
        _ => None,
    };
    servers.filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, detail: &str) -> RedisError {
        redis::make_extension_error(code.to_owned(), Some(detail.to_owned()))
    }

    #[test]
    fn a_redirection_names_a_host_or_the_same_one() {
        let of = |code: &str, detail: &str| {
            let found = Redirection::of(&error(code, detail))?;
            Some((found.host, found.port, found.asking))
        };
        let to = |host: &str, asking| Some((host.to_owned(), 6381, asking));
        assert_eq!(of("MOVED", "3999 127.0.0.1:6381"), to("127.0.0.1", false));
        assert_eq!(of("ASK", "3999 127.0.0.1:6381"), to("127.0.0.1", true));
        assert_eq!(of("MOVED", "3999 :6381"), to("", false));
        assert_eq!(of("MOVED", "3999 ::1:6381"), to("::1", false));
        assert_eq!(of("MOVED", "3999 ?:6381"), to("", false));
        for (code, detail) in [
            ("MOVED", "3999"),
            ("MOVED", "3999 127.0.0.1:x"),
            ("ERR", "3999 127.0.0.1:6381"),
        ] {
            assert_eq!(of(code, detail), None, "{code} {detail}");
        }
    }
}
