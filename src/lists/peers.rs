//! A pool: the addresses of its servers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sha2::{Digest as _, Sha256};

use super::{Content, Digest, ListName, Remarks, Skipped, lint, parse_all};

/// The peers of a pool.
#[derive(Clone, Debug)]
pub struct PeerList {
    peers: Box<[SocketAddr]>,
    content: Content,
    remarks: Remarks,
}

impl Default for PeerList {
    fn default() -> Self {
        Self::parse::<&[u8]>([], 0)
    }
}

impl PeerList {
    /// Reads entries: `ip`, `ip:port` or `[v6]:port`; without a port it is `default_port`.
    pub fn parse<E: AsRef<[u8]>>(texts: impl IntoIterator<Item = E>, default_port: u16) -> Self {
        let mut peers = Vec::new();
        let read = |text: &str, _: &mut lint::Notes| {
            peers.push(peer_entry(text, default_port)?);
            Ok(())
        };
        let almost = |text: &str| lint::almost_peer(text, default_port);
        let mut remarks = parse_all(texts, read, almost);
        peers.sort_unstable();
        peers
            .dedup_by(|peer, before| peer == before && remarks.notes.repeated(|| peer.to_string()));
        let mut content = Sha256::new();
        for peer in &peers {
            content.update(format!("{peer}\n"));
        }
        Self {
            peers: peers.into_boxed_slice(),
            content: content.finalize().into(),
            remarks,
        }
    }

    /// The peers, sorted and without repetition.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A hash of these peers alone, as those of `list`.
    pub fn digest(&self, list: ListName) -> Digest {
        Digest::of(&[(list, self.content())])
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// What could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.remarks.skipped
    }

    /// What there is to be said of the entries.
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// These entries, with what could not be read of another list, and what was said of it.
    pub fn with_skipped_of(&self, other: &Self) -> Self {
        Self {
            remarks: other.remarks.clone(),
            ..self.clone()
        }
    }
}

/// Reads one entry of a pool.
///
/// # Errors
/// What is wrong with it.
pub fn peer_entry(text: &str, default_port: u16) -> Result<SocketAddr, &'static str> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .map(|v6| v6.parse::<Ipv6Addr>().map(IpAddr::V6));
    let address = match bare {
        Some(Ok(address)) => Some(address),
        _ => text.parse::<IpAddr>().ok(),
    };
    let peer = match address {
        Some(address) => SocketAddr::new(address, default_port),
        None => text
            .parse::<SocketAddr>()
            .map_err(|_| "neither `ip`, `ip:port` nor `[v6]:port`")?,
    };
    let address = peer.ip().to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err("no address that can be connected to");
    }
    if peer.port() == 0 {
        return Err("port 0");
    }
    Ok(SocketAddr::new(address, peer.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_have_a_port_of_their_own_or_the_default_one() {
        let table = [
            ("10.0.0.1", Some("10.0.0.1:8000")),
            ("10.0.0.1:81", Some("10.0.0.1:81")),
            ("::1", Some("[::1]:8000")),
            ("[::1]", Some("[::1]:8000")),
            ("[::1]:81", Some("[::1]:81")),
            ("::ffff:10.0.0.1", Some("10.0.0.1:8000")),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65536", None),
            ("10.0.0.1:", None),
            ("0.0.0.0", None),
            ("[::]:80", None),
            ("224.0.0.1", None),
            ("localhost", None),
            ("http://10.0.0.1", None),
        ];
        for (text, expected) in table {
            let peer = peer_entry(text, 8000).ok().map(|it| it.to_string());
            assert_eq!(peer.as_deref(), expected, "{text}");
        }
    }
}
