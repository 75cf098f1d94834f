//! The old gateway's side of an upgrade.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::{ANSWER, Arrivals, PROBATION, socket_name_of};
use crate::fleet::heartbeat::Heartbeat;
use crate::process::handover::{Channel, HandoverSocket, Message, Received};
use crate::process::supervised;
use crate::proxy::Gateway;
use crate::proxy::listeners::{self, Entrance};
use crate::run::open_socket::OpenSocket;
use crate::run::sockets::{SharedSockets, Sockets};
use crate::run::supervisor::Supervisor;
use crate::store::Publisher;

/// The new gateway, which has proved itself.
pub(in crate::run) struct Successor {
    channel: Channel,
    pid: u32,
}

impl Successor {
    /// Tells it that what only one can have is free now, and waits until it has it.
    pub(in crate::run) fn let_it_take_over(self) -> Channel {
        let outcome = self.channel.send(&Message::Yours, &[]);
        let outcome = outcome.and_then(|()| self.channel.receive(ANSWER));
        match outcome {
            Ok(Some((Message::Taken, _))) => log::info!("handed-over pid={}", self.pid),
            Ok(_) => log::error!(
                "handover-unconfirmed pid={} reason=\"it has ended\"",
                self.pid
            ),
            Err(error) => {
                let error = error.to_string();
                log::error!("handover-unconfirmed pid={} reason={error:?}", self.pid);
            }
        }
        self.channel
    }
}

/// A socket that is attended.
pub(in crate::run) struct Open {
    socket: Arc<HandoverSocket>,
    thread: JoinHandle<()>,
}

impl Open {
    /// Closes it, so that its name is free.
    pub(in crate::run) fn close(self) {
        self.socket.close();
        // Its panics are in the log.
        let _ = self.thread.join();
    }
}

/// Hands over when it is asked to.
pub(in crate::run) struct Giver {
    gateway: Arc<Gateway>,
    arrivals: Arc<Arrivals>,
    publisher: Arc<Publisher>,
    heartbeat: Option<Arc<Heartbeat>>,
    sockets: SharedSockets,
    supervisor: Option<Arc<Supervisor>>,
    /// One is under way.
    busy: AtomicBool,
    successors: Sender<Successor>,
}

impl Giver {
    pub(in crate::run) fn new(
        gateway: &Arc<Gateway>,
        arrivals: &Arc<Arrivals>,
        publisher: &Arc<Publisher>,
        heartbeat: Option<&Arc<Heartbeat>>,
        sockets: &SharedSockets,
        supervisor: Option<&Arc<Supervisor>>,
        successors: Sender<Successor>,
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            arrivals: Arc::clone(arrivals),
            publisher: Arc::clone(publisher),
            heartbeat: heartbeat.cloned(),
            sockets: sockets.clone(),
            supervisor: supervisor.cloned(),
            busy: AtomicBool::new(false),
            successors,
        }
    }

    /// Waits for successors from now on, for the gateway with this ini file.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::run) fn start(self, config: &Path) -> io::Result<Option<Open>> {
        let socket = match HandoverSocket::open(&socket_name_of(config)) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                log::error!("upgrade-unavailable error={:?}", error.to_string());
                return Ok(None);
            }
        };
        let (giver, attended) = (Arc::new(self), Arc::clone(&socket));
        let thread = supervised::spawn("upgrades", move || {
            while let Some(channel) = giver.next_at(&attended) {
                let giver = Arc::clone(&giver);
                // Others are refused meanwhile, so they must be heard.
                let thread = std::thread::Builder::new().name("upgrade".to_owned());
                if let Err(error) = thread.spawn(move || giver.attend(channel)) {
                    log::error!("upgrade-unavailable error={:?}", error.to_string());
                }
            }
        })?;
        Ok(Some(Open { socket, thread }))
    }

    fn next_at(&self, socket: &HandoverSocket) -> Option<Channel> {
        loop {
            match socket.accept() {
                Ok(channel) => return channel,
                Err(error) => {
                    log::error!("upgrade-unavailable error={:?}", error.to_string());
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn attend(&self, channel: Channel) {
        let pid = channel.pid().unwrap_or_default();
        // Also before it is refused: otherwise it learns of the end of the channel, and not why.
        let asked = channel.receive(ANSWER);
        if let Ok(Some((Message::Arriving, _))) = asked {
            if let Err(error) = self.arrivals.welcome(channel) {
                let error = error.to_string();
                log::error!("connections-not-moved pid={pid} error={error:?}");
            }
            return;
        }
        if let Some(supervisor) = self.supervisor.as_ref().filter(|it| !it.lets(pid)) {
            let by = supervisor.pid;
            let reason = format!("it is supervised by process {by}, which starts its successors");
            refuse(&channel, &reason);
            return;
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            refuse(&channel, "another upgrade is under way");
            return;
        }
        let mut sockets = self.sockets.locked();
        // It may have the same name.
        self.rest(true);
        let outcome = self.give(&channel, pid, asked, &sockets);
        sockets.are_left = outcome.is_ok();
        drop(sockets);
        match outcome {
            // The gateway ends with it, so it stays busy.
            Ok(()) => drop(self.successors.send(Successor { channel, pid })),
            Err(reason) => {
                log::error!("upgrade-failed pid={pid} reason={reason:?}");
                refuse(&channel, &reason);
                self.rest(false);
                self.busy.store(false, Ordering::Release);
            }
        }
    }

    fn rest(&self, rests: bool) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.rest(rests);
        }
    }

    /// Hands over, as far as it can be taken back.
    fn give(
        &self,
        channel: &Channel,
        pid: u32,
        asked: Received,
        sockets: &Sockets,
    ) -> Result<(), String> {
        let in_words = |error: io::Error| error.to_string();
        let program = match asked.map_err(in_words)? {
            Some((Message::Take { program, .. }, _)) => program,
            _ => return Err("it has not asked for anything".to_owned()),
        };
        log::info!("upgrade-begun pid={pid} program={program:?}");
        for OpenSocket {
            kind,
            asked,
            socket,
        } in sockets.all().map_err(in_words)?
        {
            let kind = kind.to_owned();
            let door = Message::Door { kind, asked };
            channel.send(&door, &[socket.as_fd()]).map_err(in_words)?;
        }
        let (output, errors) = (io::stdout(), io::stderr());
        let streams = channel.send(&Message::Streams, &[output.as_fd(), errors.as_fd()]);
        streams.map_err(in_words)?;
        let has_lists = self.publisher.lists().are_read();
        let offered = Message::Offered { has_lists };
        channel.send(&offered, &[]).map_err(in_words)?;
        let limit = self.gateway.config.load().gateway.upgrade_timeout;
        match channel.receive(limit) {
            Ok(Some((Message::Ready, _))) => {}
            Ok(_) => return Err("it has ended before it was ready".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(format!(
                    "it was not ready within upgrade_timeout, {limit:?}"
                ));
            }
            Err(error) => return Err(in_words(error)),
        }
        let left = listeners::leave_to_another(&self.gateway);
        let proved = left.map_err(in_words).and_then(|()| prove(channel));
        proved.inspect_err(|_| {
            let entrances = sockets.entrances.iter().map(Entrance::again);
            let taken_back = entrances
                .collect::<io::Result<Vec<_>>>()
                .and_then(|it| listeners::take_back(&self.gateway, it));
            if let Err(error) = taken_back {
                log::error!("accept-failed error={:?}", error.to_string());
            }
        })
    }
}

/// Waits until it has lived for long enough.
fn prove(channel: &Channel) -> Result<(), String> {
    match channel.receive(PROBATION) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        Ok(None) => Err("it has ended within its first seconds".to_owned()),
        Ok(Some(_)) => Err("it has said what it should not".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn refuse(channel: &Channel, reason: &str) {
    let reason = reason.to_owned();
    // It may have gone.
    let _ = channel.send(&Message::Refused { reason }, &[]);
}
