//! How one gateway hands what it has open to the next one, on the same machine: a socket by which processes
//! of the same owner find each other, and messages that can carry descriptors (unix(7), SCM_RIGHTS).
//!
//! The socket has a name in the abstract namespace, so it goes with its process, and needs no folder that
//! both may write. Anybody may make such a name and connect to one; so each side asks the kernel who the
//! other one is, before anything is said.

mod carried;
mod message;
mod notes;
mod supervision;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_send_buffer_size, set_socket_send_buffer_size_force, set_socket_timeout,
    socket_peercred, socket_type,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with, socketpair,
};

pub(crate) use carried::{carried, carry};
pub(crate) use message::{Message, VERSION};
pub(crate) use notes::{
    CheckNote, ConnectionNote, DrainNote, GateNote, HistoryNote, ListsNote, PeerNote, ServiceNote,
    WaitingNote,
};
pub(crate) use supervision::SupervisorMessage;

/// The longest message, in bytes.
const LONGEST: usize = 64 * 1024;

/// Most descriptors in one message: the kernel allows 253.
pub(crate) const MOST_DESCRIPTORS: usize = 64;

/// How long the other end of a pair may leave its messages unread, once there are many.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// Bytes on their way that a channel has room for, whatever the system's default: a message that is longer
/// than that cannot be sent (unix(7), EMSGSIZE).
const ROOM: usize = 4 * LONGEST;

/// Those who ask at the same time.
const BACKLOG: i32 = 8;

/// Where other processes ask for a handover.
pub(crate) struct HandoverSocket {
    socket: OwnedFd,
}

impl HandoverSocket {
    /// Opens the socket with this name.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::AddrInUse`] when another process has the name.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let socket = seqpacket()?;
        bind(
            &socket,
            &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        )?;
        listen(&socket, BACKLOG)?;
        Ok(Self { socket })
    }

    /// Waits for a process of the same user, or of root. Others are turned away. `None` once the socket is
    /// closed.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn accept(&self) -> io::Result<Option<Channel>> {
        loop {
            let socket = match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::INVAL) => return Ok(None),
                outcome => outcome?,
            };
            let channel = Channel::new(socket);
            if channel.is_trusted()? {
                return Ok(Some(channel));
            }
        }
    }

    /// As [`Self::accept`], but waits for nobody; `None` as well when somebody was turned away.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn accept_now(&self) -> io::Result<Option<Channel>> {
        let mut waits = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut waits, Some(&Timespec::default()))? == 0 {
            return Ok(None);
        }
        let socket = accept_with(&self.socket, SocketFlags::CLOEXEC)?;
        let channel = Channel::new(socket);
        Ok(channel.is_trusted()?.then_some(channel))
    }

    /// Closes it for whoever waits in [`Self::accept`]. Its name is free when it is dropped.
    pub(crate) fn close(&self) {
        // It listens, so there is nothing that could fail.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl AsFd for HandoverSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One that another program has opened.
impl From<OwnedFd> for HandoverSocket {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

/// A message with its descriptors; none when the other side has gone.
pub(crate) type ReceivedMessage = io::Result<Option<(Message, Vec<OwnedFd>)>>;

/// A connection between two gateways.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    has_ended_receiving: AtomicBool,
}

impl Channel {
    fn new(socket: OwnedFd) -> Self {
        // Root may have more than the system allows others. Without it, short messages are sent all the same.
        let _ = set_socket_send_buffer_size_force(&socket, ROOM)
            .or_else(|_| set_socket_send_buffer_size(&socket, ROOM));
        Self {
            socket,
            has_ended_receiving: AtomicBool::new(false),
        }
    }

    /// Receives what has been sent until now, and then the end; the other side can send nothing more.
    pub(crate) fn end_receiving(&self) {
        self.has_ended_receiving.store(true, Ordering::Release);
        // It is connected, so there is nothing that could fail but that the other side has gone.
        let _ = shutdown(&self.socket, Shutdown::Read);
    }

    /// True after [`Self::end_receiving`].
    pub(crate) fn has_ended_receiving(&self) -> bool {
        self.has_ended_receiving.load(Ordering::Acquire)
    }

    /// Connects to the socket with this name. `None` when there is none, or it is not that of a process of
    /// root or of the same user.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn connect(name: &str) -> io::Result<Option<Self>> {
        Self::connect_if(name, |_, _| false)
    }

    /// As [`Self::connect`]; another user's, too, if `trusts` says so of the user and of the process.
    ///
    /// # Errors
    /// The kernel's.
    fn connect_if(name: &str, trusts: impl FnOnce(u32, u32) -> bool) -> io::Result<Option<Self>> {
        let socket = seqpacket()?;
        match connect(
            &socket,
            &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        ) {
            Err(Errno::CONNREFUSED) => return Ok(None),
            outcome => outcome?,
        }
        let channel = Self::new(socket);
        let is_trusted = channel.is_trusted()? || trusts(channel.user()?, channel.pid()?);
        Ok(is_trusted.then_some(channel))
    }

    /// As [`Self::connect_if`], to the first of these names that leads to such a process.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn connect_to_any(
        names: &[String],
        trusts: impl Fn(u32, u32) -> bool,
    ) -> io::Result<Option<Self>> {
        for name in names {
            if let Some(channel) = Self::connect_if(name, &trusts)? {
                return Ok(Some(channel));
            }
        }
        Ok(None)
    }

    /// Both ends of a channel: one for this process, and the other one for a child of its.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (unix, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (own, other) = socketpair(unix, kind, SocketFlags::CLOEXEC, None)?;
        // A child that does not listen must not stop its parent.
        set_socket_timeout(&own, Timeout::Send, Some(SEND_LIMIT))?;
        Ok((Self::new(own), other))
    }

    /// The end of a pair that another process has made. `None` when it is something else.
    pub(crate) fn of(socket: OwnedFd) -> Option<Self> {
        let is_channel = socket_type(&socket).is_ok_and(|it| it == SocketType::SEQPACKET);
        is_channel.then_some(Self::new(socket))
    }

    fn is_trusted(&self) -> io::Result<bool> {
        let user = self.user()?;
        Ok(user == 0 || user == rustix::process::geteuid().as_raw())
    }

    /// Of the process on the other side.
    fn user(&self) -> io::Result<u32> {
        Ok(socket_peercred(&self.socket)?.uid.as_raw())
    }

    /// True when the other side, which has had its user since it began to listen, listens to this process.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn is_heard(&self) -> io::Result<bool> {
        let user = socket_peercred(&self.socket)?.uid;
        let own = rustix::process::geteuid();
        Ok(own.is_root() || own == user)
    }

    /// The process on the other side.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn pid(&self) -> io::Result<u32> {
        let pid = socket_peercred(&self.socket)?.pid;
        Ok(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The kernel's, when the other side has gone.
    pub(crate) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.to_bytes();
        if bytes.len() > LONGEST || descriptors.len() > MOST_DESCRIPTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parts = [IoSlice::new(&bytes)];
        loop {
            match sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                outcome => return outcome.map(drop).map_err(io::Error::from),
            }
        }
    }

    /// Waits for a message, for `limit` at most; `None` when the other side has gone. Messages that this
    /// version does not know are passed over, since a newer one may send them.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when nothing came; the kernel's.
    pub(crate) fn receive(&self, limit: Duration) -> ReceivedMessage {
        let until = std::time::Instant::now() + limit;
        let mut was_reset = false;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
            let mut bytes = vec![0; LONGEST];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let length = match recvmsg(&self.socket, &mut parts, &mut control, flags) {
                Err(Errno::INTR | Errno::AGAIN) => continue,
                // The other side has gone without reading all: what it has said before is still there.
                Err(Errno::CONNRESET) if !was_reset => {
                    was_reset = true;
                    continue;
                }
                Err(Errno::CONNRESET) => return Ok(None),
                outcome => outcome?.bytes,
            };
            let descriptors = control.drain().filter_map(|it| match it {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            });
            let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
            if length == 0 {
                return Ok(None);
            }
            if let Some(message) = Message::of_bytes(&bytes[..length]) {
                return Ok(Some((message, descriptors)));
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Keeps the borders of messages, with the descriptors of each.
fn seqpacket() -> io::Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    Ok(socket_with(
        AddressFamily::UNIX,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn name() -> String {
        format!(
            "graygate-test:{}:{:x}",
            std::process::id(),
            fastrand::u64(..)
        )
    }

    fn pair() -> (Channel, Channel) {
        let name = name();
        let open = HandoverSocket::open(&name).unwrap();
        let asking = Channel::connect(&name).unwrap().unwrap();
        (asking, open.accept().unwrap().unwrap())
    }

    #[test]
    fn messages_come_whole_with_the_descriptors_of_each() {
        let (one, other) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"carried").unwrap();
        let refused = Message::Refused {
            reason: "busy".to_owned(),
        };
        one.send(&refused, &[]).unwrap();
        one.send(&Message::Ready, &[file.as_fd(), file.as_fd()])
            .unwrap();
        let (message, descriptors) = other.receive(LIMIT).unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (refused, 0));
        let (message, descriptors) = other.receive(LIMIT).unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (Message::Ready, 2));
        let mut carried = File::from(descriptors.into_iter().next().unwrap());
        carried.rewind().unwrap();
        let mut text = String::new();
        carried.read_to_string(&mut text).unwrap();
        assert_eq!(text, "carried");
        assert_eq!(other.pid().unwrap(), std::process::id());
    }

    #[test]
    fn there_is_room_for_long_messages_on_every_way_whatever_the_system_gives_a_socket() {
        let (one, other) = pair();
        let (parent, child) = Channel::pair().unwrap();
        let child = Channel::of(child).unwrap();
        for channel in [one, other, parent, child] {
            let room = rustix::net::sockopt::socket_send_buffer_size(&channel.socket).unwrap();
            // The kernel doubles it, for what it needs itself. Who is not root may get less.
            let is_root = rustix::process::geteuid().is_root();
            assert!(!is_root || room >= 2 * ROOM, "{room}");
        }
    }

    #[test]
    fn what_a_newer_version_may_say_is_passed_over() {
        let (one, other) = pair();
        for bytes in [&b"{\"message\":\"later\"}"[..], b"no json", b"[]"] {
            sendmsg(
                &one.socket,
                &[IoSlice::new(bytes)],
                &mut SendAncillaryBuffer::default(),
                SendFlags::empty(),
            )
            .unwrap();
        }
        one.send(&Message::Yours, &[]).unwrap();
        let (message, _) = other.receive(LIMIT).unwrap().unwrap();
        assert_eq!(message, Message::Yours);
    }

    #[test]
    fn the_end_of_the_other_side_is_seen_and_so_is_its_silence() {
        let (one, other) = pair();
        let silent = other.receive(Duration::from_millis(10)).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert!(other.receive(LIMIT).unwrap().is_none());
        assert!(other.send(&Message::Ready, &[]).is_err());
    }

    #[test]
    fn what_was_sent_before_the_end_of_receiving_arrives_and_nothing_is_sent_after_it() {
        let (one, other) = pair();
        let file = tempfile::tempfile().unwrap();
        for _ in 0..2 {
            one.send(&Message::Ready, &[file.as_fd()]).unwrap();
        }
        other.end_receiving();
        let refused = one.send(&Message::Ready, &[file.as_fd()]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        for _ in 0..2 {
            let (_, descriptors) = other.receive(LIMIT).unwrap().unwrap();
            assert_eq!(descriptors.len(), 1);
        }
        assert!(other.receive(LIMIT).unwrap().is_none());
    }

    #[test]
    fn a_name_belongs_to_one_process_and_where_nobody_has_it_nobody_answers() {
        let name = name();
        assert!(Channel::connect(&name).unwrap().is_none());
        let _open = HandoverSocket::open(&name).unwrap();
        let taken = HandoverSocket::open(&name).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn who_waits_at_a_socket_notices_that_it_closes_and_then_its_name_is_free() {
        let name = name();
        let open = HandoverSocket::open(&name).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| open.accept().unwrap().is_none());
            open.close();
            assert!(waits.join().unwrap());
        });
        drop(open);
        HandoverSocket::open(&name).unwrap();
    }
}
