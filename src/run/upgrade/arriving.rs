//! What comes from earlier processes, for as long as they finish what is under way: idle connections, and how
//! far they are.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::process::Command;
use crate::process::handover::{Channel, ConnectionNote, Message};
use crate::process::lineage::Lineage;
use crate::proxy::Gateway;
use crate::proxy::listeners;
use crate::proxy::moved::{ConnectionPast, MovedConnection};

/// Longer than any drain: the end of the other side is seen at once.
pub(super) const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// Goes on with the connections of earlier processes, of which there may be several.
pub(in crate::run) struct Arrivals {
    gateway: Arc<Gateway>,
    lineage: Arc<Lineage>,
    /// Takes what this process is to do as well.
    orders: Sender<Command>,
    open: Arc<OpenChannels>,
}

/// By their numbers; none once no more is taken.
type OpenChannels = Mutex<Option<BTreeMap<u64, Arriving>>>;

/// Those of one process.
struct Arriving {
    channel: Arc<Channel>,
    thread: JoinHandle<()>,
}

impl Arrivals {
    pub(in crate::run) fn new(
        gateway: &Arc<Gateway>,
        lineage: &Arc<Lineage>,
        orders: Sender<Command>,
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            lineage: Arc::clone(lineage),
            orders,
            open: Arc::new(Mutex::new(Some(BTreeMap::new()))),
        }
    }

    /// The processes of this gateway.
    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Goes on with whatever comes through `channel`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::run) fn receive(&self, channel: Arc<Channel>) -> io::Result<()> {
        self.begin(channel, |_| Ok(()))
    }

    /// As [`Self::receive`], for a process that does not know whether it is taken in.
    ///
    /// # Errors
    /// As of [`Self::receive`], and when it has gone.
    pub(in crate::run) fn welcome(&self, channel: Arc<Channel>) -> io::Result<()> {
        self.begin(channel, |channel| channel.send(&Message::Welcome, &[]))
    }

    fn begin(
        &self,
        channel: Arc<Channel>,
        greet: impl FnOnce(&Channel) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut open = lock(&self.open);
        let Some(channels) = open.as_mut() else {
            return Ok(());
        };
        greet(&channel)?;
        let number = channels.last_key_value().map_or(0, |(last, _)| last + 1);
        let arriving = ArrivingProcess {
            gateway: Arc::clone(&self.gateway),
            lineage: Arc::clone(&self.lineage),
            orders: self.orders.clone(),
            channel: Arc::clone(&channel),
        };
        let all = Arc::clone(&self.open);
        let thread = std::thread::Builder::new().name("arrivals".to_owned());
        let thread = thread.spawn(move || {
            arriving.follow();
            // Nothing is kept of one that has ended.
            drop(lock(&all).as_mut().and_then(|it| it.remove(&number)));
        })?;
        channels.insert(number, Arriving { channel, thread });
        Ok(())
    }

    /// Tells all of them to open their logs anew.
    pub(in crate::run) fn reopen_logs(&self) {
        let open = lock(&self.open);
        for Arriving { channel, .. } in open.iter().flat_map(BTreeMap::values) {
            // It may have ended.
            let _ = channel.send(&Message::Reopen, &[]);
        }
    }

    /// Takes no more, and waits until all that was taken is here. The other processes notice.
    pub(in crate::run) fn close(&self) {
        let channels = lock(&self.open).take().unwrap_or_default();
        for Arriving { channel, thread } in channels.into_values() {
            channel.end_receiving();
            // Its panics are in the log.
            let _ = thread.join();
        }
    }
}

fn lock(open: &OpenChannels) -> MutexGuard<'_, Option<BTreeMap<u64, Arriving>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An earlier process, and what this one makes of what it says.
struct ArrivingProcess {
    gateway: Arc<Gateway>,
    lineage: Arc<Lineage>,
    orders: Sender<Command>,
    channel: Arc<Channel>,
}

impl ArrivingProcess {
    /// Goes on with whatever comes, until nothing more can.
    fn follow(self) {
        let (mut count, mut pid) = (0, None);
        while let Ok(Some((message, sockets))) = self.channel.receive(SILENCE) {
            match message {
                Message::Connections(notes) => {
                    count += notes.len();
                    self.go_on_with(&notes, sockets);
                }
                Message::Draining(note) => {
                    pid = Some(note.pid);
                    self.lineage.drains(note);
                }
                Message::Stop => drop(self.orders.send(Command::Drain)),
                Message::Reload => drop(self.orders.send(Command::Reload)),
                Message::Reopen => drop(self.orders.send(Command::ReopenLogs)),
                _ => {}
            }
        }
        if let Some(pid) = pid {
            self.lineage.has_ended(pid);
        }
        match self.channel.has_ended_receiving() {
            true => log::info!("predecessor-left-to-another connections={count}"),
            false => log::info!("predecessor-ended connections={count}"),
        }
    }

    fn go_on_with(&self, notes: &[ConnectionNote], sockets: Vec<OwnedFd>) {
        if sockets.len() < notes.len() {
            let missing = notes.len() - sockets.len();
            log::error!("connections-not-moved count={missing} error=\"no descriptors left\"");
        }
        for (note, socket) in notes.iter().zip(sockets) {
            let (client, connection) = (note.client, of_note(note, socket));
            if let Err(error) = listeners::go_on_with(&self.gateway, connection) {
                let error = error.to_string();
                log::error!("attach-failed client={client} error={error:?} unsaid=0");
            }
        }
    }
}

fn of_note(note: &ConnectionNote, socket: OwnedFd) -> MovedConnection {
    let now = Instant::now();
    let idle = Duration::from_millis(note.idle_ms);
    let past = ConnectionPast {
        client: note.client,
        vouched: note.vouched,
        served: note.served,
        since: now.checked_sub(idle).unwrap_or(now),
        line: usize::try_from(note.line).unwrap_or_default(),
        header_due: note.header_due,
    };
    MovedConnection {
        socket,
        listener: note.listener,
        past,
    }
}
