//! One check of one peer, by `ureq`, within a time for the whole of it.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, TcpConnector};

use crate::config::Checks;
use crate::error::Checked;
use crate::net;

/// Bytes of a response's body that are read, so that its peer sees an orderly end.
const BODY: u64 = 64 << 10;

/// The largest head of a response, in bytes.
const HEAD: usize = 16 << 10;

/// For what comes: with some room, without which a head that is too large would look as if it were cut short.
const INPUT: usize = HEAD + (1 << 10);

/// For what is sent.
const OUTPUT: usize = 4 << 10;

const USER_AGENT: &str = concat!("graygate/", env!("CARGO_PKG_VERSION"), " (health check)");

/// What a check has come to.
#[derive(Debug)]
pub(super) struct CheckOutcome {
    pub(super) outcome: Checked,
    /// Of the response, if one came.
    pub(super) status: Option<u16>,
    /// Why it was not made.
    pub(super) error: Option<ureq::Error>,
}

impl From<Checked> for CheckOutcome {
    fn from(outcome: Checked) -> Self {
        Self {
            outcome,
            status: None,
            error: None,
        }
    }
}

/// Checks peers in one way.
#[derive(Debug)]
pub(super) struct CheckClient {
    pub(super) checks: Arc<Checks>,
    agent: ureq::Agent,
}

impl CheckClient {
    pub(super) fn new(checks: Arc<Checks>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(checks.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_response_header_size(HEAD)
            .input_buffer_size(INPUT)
            .output_buffer_size(OUTPUT)
            .user_agent(USER_AGENT)
            // Whatever the environment says.
            .proxy(None);
        // No way but a plain connection to the very address.
        let agent = ureq::Agent::with_parts(config.build(), TcpConnector::default(), AddressesOnly);
        Self { checks, agent }
    }

    /// Makes one check.
    pub(super) fn ask(&self, peer: SocketAddr) -> CheckOutcome {
        let mut status = None;
        let error = self.exchange(peer, &mut status).err();
        let is_expected = |it: u16| self.checks.expect.iter().any(|range| range.contains(&it));
        let outcome = match &error {
            Some(error) => outcome_of(error),
            None if status.is_some_and(is_expected) => Checked::Ok,
            None => Checked::Status,
        };
        CheckOutcome {
            outcome,
            status,
            error: error.filter(|_| outcome == Checked::NotMade),
        }
    }

    fn exchange(&self, peer: SocketAddr, status: &mut Option<u16>) -> Result<(), ureq::Error> {
        let checks = &self.checks;
        let request = self.agent.get(format!("http://{peer}{}", checks.path));
        let own = peer.to_string();
        let host = checks.host.as_deref().unwrap_or(&own);
        let request = request.header("Host", host).header("Connection", "close");
        let mut response = request.call()?;
        *status = Some(response.status().as_u16());
        let mut body = response.body_mut().as_reader().take(BODY);
        io::copy(&mut body, &mut io::sink())?;
        Ok(())
    }
}

fn outcome_of(error: &ureq::Error) -> Checked {
    match error {
        ureq::Error::Timeout(_) => Checked::Timeout,
        ureq::Error::Io(error) => outcome_of_io(error),
        _ => Checked::Malformed,
    }
}

fn outcome_of_io(error: &io::Error) -> Checked {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Checked::Timeout,
        ErrorKind::ConnectionRefused => Checked::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            Checked::Unreachable
        }
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe => Checked::Closed,
        ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory => Checked::NotMade,
        _ if net::is_out_of_descriptors(error) => Checked::NotMade,
        _ if error.get_ref().is_some() => Checked::Malformed,
        _ => Checked::NotMade,
    }
}

/// The name of each peer is its address already: nothing is looked up, and no thread is started for that.
#[derive(Debug)]
struct AddressesOnly;

impl Resolver for AddressesOnly {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().ok_or(ureq::Error::HostNotFound)?;
        let address = authority.as_str().parse();
        let mut found = self.empty();
        found.push(address.map_err(|_| ureq::Error::HostNotFound)?);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn what_is_no_fault_of_the_peer_says_nothing_of_it() {
        for (errno, outcome) in [
            (libc::ECONNREFUSED, Checked::Refused),
            (libc::ETIMEDOUT, Checked::Timeout),
            (libc::EHOSTUNREACH, Checked::Unreachable),
            (libc::ENETUNREACH, Checked::Unreachable),
            (libc::ECONNRESET, Checked::Closed),
            (libc::EPIPE, Checked::Closed),
            (libc::EMFILE, Checked::NotMade),
            (libc::ENFILE, Checked::NotMade),
            (libc::EADDRNOTAVAIL, Checked::NotMade),
            (libc::ENOBUFS, Checked::NotMade),
            (libc::ENOMEM, Checked::NotMade),
            (libc::EPERM, Checked::NotMade),
        ] {
            let error = ureq::Error::Io(io::Error::from_raw_os_error(errno));
            assert_eq!(outcome_of(&error), outcome, "{error}");
        }
    }
}
