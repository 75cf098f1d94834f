//! The servers of a pool.
//!
//! An entry may leave its port to the settings. Entries are kept as they were written, and digest and
//! last-good copy are made from that form: so a list is the same on every gateway, whatever port its
//! settings add. The addresses that the entries mean here are kept in addition.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::almost::almost_peer;
use super::digest::{ContentHash, Digest};
use super::entry::{WrittenPeer, read_peer};
use super::name::ListName;
use super::notes::{self, FindingKind, Notes};
use super::peer::{ListedPeer, Place};
use super::remarks::{Remarks, Skipped, parse_all};

/// The peers of a pool.
#[derive(Clone, Debug)]
pub struct PeerList {
    peers: Box<[ListedPeer]>,
    written: Box<[WrittenPeer]>,
    content: ContentHash,
    remarks: Remarks,
}

impl Default for PeerList {
    fn default() -> Self {
        Self::parse::<&[u8]>([], 0)
    }
}

impl PeerList {
    /// Reads entries, as [`peer_entry`](super::peer_entry) does; without a port it is `default_port`.
    pub fn parse<E: AsRef<[u8]>>(texts: impl IntoIterator<Item = E>, default_port: u16) -> Self {
        let (mut peers, mut all_written) = (Vec::new(), Vec::new());
        let read = |text: &str, noted: &mut Notes| {
            let (written, peer) = read_peer(text, default_port)?;
            if matches!(peer.place(), Place::Address(it) if it.is_ipv6())
                && let Some(told) = notes::address_or_port(text, &peer)
            {
                noted.add(FindingKind::AddressOrPort, || told);
            }
            peers.push(peer);
            all_written.push(written);
            Ok(())
        };
        let almost = |text: &str| almost_peer(text, default_port);
        let mut remarks = parse_all(texts, read, almost);
        peers.sort_unstable();
        remarks.notes.dedup(&mut peers, ListedPeer::to_string);
        remarks.notes.keep_largest_weights(&mut peers);
        all_written.sort_unstable();
        all_written.dedup();
        let mut content = Sha256::new();
        for written in &all_written {
            content.update(format!("{written}\n"));
        }
        Self {
            peers: peers.into_boxed_slice(),
            written: all_written.into_boxed_slice(),
            content: content.finalize().into(),
            remarks,
        }
    }

    /// The peers, sorted by place and without repetition.
    pub fn peers(&self) -> &[ListedPeer] {
        &self.peers
    }

    /// The entries as they were written, sorted and without repetition. Two of them may be one peer.
    pub fn written(&self) -> &[WrittenPeer] {
        &self.written
    }

    /// The peer at `place`, if it is one of these.
    pub fn at(&self, place: &Place) -> Option<&ListedPeer> {
        let found = self.peers.binary_search_by(|it| it.place().cmp(place));
        found.ok().map(|it| &self.peers[it])
    }

    /// The names among the places.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.peers.iter().filter_map(|it| match it.place() {
            Place::Name(name, _) => Some(name),
            Place::Address(_) => None,
        })
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A hash of these peers only, as those of `list`.
    pub fn digest(&self, list: ListName) -> Digest {
        Digest::of(&[(list, self.content())])
    }

    /// The digest that earlier versions computed for these peers, with the port of the settings.
    /// Somebody may have written it down.
    pub(crate) fn digest_with_ports(&self, list: ListName) -> Digest {
        let mut content = Sha256::new();
        for peer in &self.peers {
            content.update(format!("{peer}\n"));
        }
        Digest::of(&[(list, &content.finalize().into())])
    }

    pub(super) fn content(&self) -> &ContentHash {
        &self.content
    }

    /// What could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.remarks.skipped
    }

    /// The notes about the entries.
    pub(crate) fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// These entries, with the skipped entries and notes of another list.
    pub(crate) fn with_skipped_of(&self, other: &Self) -> Self {
        Self {
            remarks: other.remarks.clone(),
            ..self.clone()
        }
    }
}
