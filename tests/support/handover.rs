//! A gateway's end of the channel of an upgrade, played by a test: with code of its own, so that what is
//! said there cannot change unnoticed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{DEADLINE, wait_until};

/// One end.
#[derive(Debug)]
pub(crate) struct HandoverEnd(OwnedFd);

/// The name at which the gateway with this ini file can be asked.
fn name_of(ini: &Path) -> SocketAddrUnix {
    let path = ini.canonicalize().unwrap();
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let hash: String = hash[..16].iter().map(|it| format!("{it:02x}")).collect();
    SocketAddrUnix::new_abstract_name(format!("graygate-upgrade:{hash}").as_bytes()).unwrap()
}

fn socket() -> OwnedFd {
    let (unix, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    socket_with(unix, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Where a test waits for a new process in the place of the gateway with an ini file.
#[derive(Debug)]
pub(crate) struct HandoverPlace(OwnedFd);

impl HandoverPlace {
    #[track_caller]
    pub(crate) fn of(ini: &Path) -> Self {
        let socket = socket();
        bind(&socket, &name_of(ini)).unwrap();
        listen(&socket, 1).unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE)).unwrap();
        Self(socket)
    }

    #[track_caller]
    pub(crate) fn accept(&self) -> HandoverEnd {
        HandoverEnd(accept_with(&self.0, SocketFlags::CLOEXEC).unwrap())
    }
}

impl HandoverEnd {
    /// As a new process asks the gateway that runs with this ini file, or is about to.
    #[track_caller]
    pub(crate) fn to(ini: &Path) -> Self {
        let (socket, name) = (socket(), name_of(ini));
        wait_until("somebody can be asked", DEADLINE, || {
            connect(&socket, &name).is_ok()
        });
        Self(socket)
    }

    /// Says something, as it stands.
    #[track_caller]
    pub(crate) fn say(&self, text: &str) {
        self.say_with(text, &[]);
    }

    /// As [`Self::say`], with descriptors.
    #[track_caller]
    pub(crate) fn say_with(&self, text: &str, files: &[&dyn AsFd]) {
        let files: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    /// The next thing that the other side says, with what comes with it; `None` at its end.
    #[track_caller]
    pub(crate) fn hear(&self) -> Option<(Value, Vec<OwnedFd>)> {
        self.hear_within(DEADLINE).expect("silence")
    }

    /// As [`Self::hear`]; `Err` when nothing comes for so long.
    pub(crate) fn hear_within(
        &self,
        limit: Duration,
    ) -> Result<Option<(Value, Vec<OwnedFd>)>, Errno> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(limit)).unwrap();
        let mut bytes = vec![0; 64 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let length = match recvmsg(&self.0, &mut parts, &mut control, flags) {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error),
        };
        let files = control.drain().filter_map(|it| match it {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<OwnedFd> = files.flatten().collect();
        if length == 0 {
            return Ok(None);
        }
        let value = serde_json::from_slice(&bytes[..length]).unwrap();
        Ok(Some((value, files)))
    }

    /// All that is said until `name` is, that included.
    #[track_caller]
    pub(crate) fn hear_until(&self, name: &str) -> Vec<(Value, Vec<OwnedFd>)> {
        let (mut all, until) = (Vec::new(), Instant::now() + DEADLINE);
        while Instant::now() < until {
            let said = self
                .hear()
                .unwrap_or_else(|| panic!("the end before {name}: {all:?}"));
            let is_last = said.0["message"] == name;
            all.push(said);
            if is_last {
                return all;
            }
        }
        panic!("no {name}: {all:?}");
    }

    /// Asks as the first version does, and hears all that is offered.
    #[track_caller]
    pub(crate) fn take(&self) -> Vec<(Value, Vec<OwnedFd>)> {
        self.say(r#"{"message":"take","program":"0.0.1","version":1}"#);
        self.hear_until("offered")
    }
}
