//! Idle connections on their way to the next process: the old one's end, and the new one's.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::process::handover::{Channel, ConnectionNote, Message};
use crate::proxy::Gateway;
use crate::proxy::listeners;
use crate::proxy::moved::{ConnectionPast, MovedConnection};

/// Most connections in one message.
const BATCH: usize = 32;

/// Longer than any drain: the end of the other side is seen at once.
const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// The old process's end.
pub(in crate::run) struct Mover {
    connections: Sender<Option<MovedConnection>>,
    thread: JoinHandle<()>,
}

impl Mover {
    /// Sends what `gateway` hands to its heir through `channel`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::run) fn start(gateway: &Gateway, channel: Channel) -> std::io::Result<Self> {
        let (connections, inbox) = unbounded();
        let thread = std::thread::Builder::new().name("mover".to_owned());
        let thread = thread.spawn(move || send(&channel, &inbox))?;
        // There is one upgrade in the life of a process.
        let _ = gateway.heir.set(connections.clone());
        Ok(Self {
            connections,
            thread,
        })
    }

    /// Waits until all of them are on their way.
    pub(in crate::run) fn end(self) {
        let _ = self.connections.send(None);
        let _ = self.thread.join();
    }
}

fn send(channel: &Channel, inbox: &Receiver<Option<MovedConnection>>) {
    let mut is_over = false;
    while !is_over {
        let mut batch = Vec::new();
        match inbox.recv() {
            Ok(Some(first)) => batch.push(first),
            Ok(None) | Err(_) => return,
        }
        while batch.len() < BATCH {
            match inbox.try_recv() {
                Ok(Some(next)) => batch.push(next),
                Ok(None) => {
                    is_over = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let sockets: Vec<_> = batch.iter().map(|it| it.socket.as_fd()).collect();
        let notes = Message::Connections(batch.iter().map(note).collect());
        if let Err(error) = channel.send(&notes, &sockets) {
            let (count, error) = (batch.len(), error.to_string());
            log::error!("connections-not-moved count={count} error={error:?}");
        }
    }
}

fn note(connection: &MovedConnection) -> ConnectionNote {
    let past = &connection.past;
    ConnectionNote {
        listener: connection.listener,
        client: past.client,
        vouched: past.vouched,
        served: past.served,
        idle_ms: u64::try_from(past.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        line: past.line as u64,
    }
}

/// The new process's end: goes on with whatever comes.
///
/// # Errors
/// When the thread cannot be started.
pub(in crate::run) fn receive(gateway: &Arc<Gateway>, channel: Channel) -> std::io::Result<()> {
    let gateway = Arc::clone(gateway);
    let thread = std::thread::Builder::new().name("arrivals".to_owned());
    thread.spawn(move || {
        let mut count = 0;
        while let Ok(Some((message, sockets))) = channel.receive(SILENCE) {
            let Message::Connections(notes) = message else {
                continue;
            };
            for (note, socket) in notes.into_iter().zip(sockets) {
                count += 1;
                let now = Instant::now();
                let idle = Duration::from_millis(note.idle_ms);
                let past = ConnectionPast {
                    client: note.client,
                    vouched: note.vouched,
                    served: note.served,
                    since: now.checked_sub(idle).unwrap_or(now),
                    line: usize::try_from(note.line).unwrap_or_default(),
                };
                let connection = MovedConnection {
                    socket,
                    listener: note.listener,
                    past,
                };
                if let Err(error) = listeners::go_on_with(&gateway, connection) {
                    let (client, error) = (note.client, error.to_string());
                    log::error!("attach-failed client={client} error={error:?} unsaid=0");
                }
            }
        }
        log::info!("predecessor-ended connections={count}");
    })?;
    Ok(())
}
