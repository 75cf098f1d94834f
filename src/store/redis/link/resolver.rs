//! The addresses of a host. The system's resolver has a deadline of its own at best, so it runs in other
//! threads, of which there are a few at most.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::stream::left;
use crate::config::Address;
use crate::memory::advice;

/// A change of the lists waits no longer than this for a name to be resolved.
pub(super) const PROMPT: Duration = Duration::from_millis(20);

/// A resolver may return only some of the addresses of a name, and others each time. Before a server is
/// left, it is asked this often, and each further answer may take this long.
const ASKED: usize = 8;
pub(super) const MORE: Duration = Duration::from_millis(100);

/// The outcomes of a resolution that goes on.
pub(super) type Resolution = Receiver<io::Result<Vec<SocketAddr>>>;

/// Starts to resolve the name in an address, if there is one, until `peer` is among its addresses.
pub(super) fn begin_to_resolve(address: &Address, peer: SocketAddr) -> Option<Resolution> {
    match address {
        Address::Tcp { host, port, .. } if host.parse::<IpAddr>().is_err() => {
            ask_resolver(host, *port, Some(peer)).ok()
        }
        _ => None,
    }
}

/// The addresses of a host.
pub(super) fn resolve(host: &str, port: u16, until: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    match ask_resolver(host, port, None)?.recv_timeout(left(until)?) {
        Ok(found) => found,
        Err(_) => Err(io::Error::other(format!("{host} was not resolved in time"))),
    }
}

/// Resolutions under way at most: one that hangs has its thread for as long.
const RESOLVING: usize = 16;

/// Those under way.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct UnderWay;

impl UnderWay {
    fn begin() -> Option<Self> {
        let one_more = |it| (it < RESOLVING).then_some(it + 1);
        let order = Ordering::Relaxed;
        UNDER_WAY.fetch_update(order, order, one_more).ok()?;
        Some(Self)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the resolver of the system, which has a deadline of its own at best, in another thread: once, or
/// until it tells the address that is `wanted`.
fn ask_resolver(host: &str, port: u16, wanted: Option<SocketAddr>) -> io::Result<Resolution> {
    let Some(place) = UnderWay::begin() else {
        return Err(io::Error::other(format!(
            "{host} was not asked for: the system's resolver hangs"
        )));
    };
    advice::room_for_thread()?;
    let (said, answers) = crossbeam_channel::bounded(ASKED);
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("lists-resolver".to_owned())
        .spawn(move || {
            let mut place = Some(place);
            for at in 1..=ASKED {
                let found = (name.as_str(), port).to_socket_addrs();
                let found: io::Result<Vec<SocketAddr>> = found.map(Iterator::collect);
                let others = found.as_ref().ok().filter(|it| !it.is_empty());
                let others = others.zip(wanted);
                let is_last = at == ASKED || others.is_none_or(|(it, wanted)| it.contains(&wanted));
                // Whoever hears the last answer may ask for another name.
                place = place.filter(|_| !is_last);
                // Nobody may be waiting any more.
                if said.send(found).is_err() || is_last {
                    return;
                }
            }
        })?;
    Ok(answers)
}
