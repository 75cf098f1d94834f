//! Idle connections on their way to the next process: the old one's end.
//!
//! If there is nobody to go on with them any more ([`HeirWay`]), what is left ends here, as in any drain.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::io::Errno;

use super::{ANSWER, HeirWay};
use crate::process::handover::{ConnectionNote, Message};
use crate::proxy::Gateway;
use crate::proxy::listeners;
use crate::proxy::moved::MovedConnection;

/// Most connections in one message.
const BATCH: usize = 32;

/// The kernel bounds how many descriptors may be on their way between processes (unix(7), ETOOMANYREFS); the
/// pause until some of them have arrived.
const TOO_MANY: Duration = Duration::from_millis(1);

/// The old process's end.
pub(in crate::run) struct Mover {
    connections: Sender<Option<MovedConnection>>,
    thread: JoinHandle<()>,
}

impl Mover {
    /// Sends what `gateway` hands to its heir on this `way`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::run) fn start(gateway: &Arc<Gateway>, way: &Arc<HeirWay>) -> io::Result<Self> {
        let (connections, inbox) = unbounded();
        let moving = Moving {
            gateway: Arc::clone(gateway),
            way: Arc::clone(way),
        };
        let thread = std::thread::Builder::new().name("mover".to_owned());
        let thread = thread.spawn(move || moving.run(&inbox))?;
        gateway.heir.appoint(connections.clone());
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

struct Moving {
    gateway: Arc<Gateway>,
    way: Arc<HeirWay>,
}

impl Moving {
    fn run(self, inbox: &Receiver<Option<MovedConnection>>) {
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
            self.deliver(batch);
        }
    }

    /// What cannot be delivered stays here.
    fn deliver(&self, batch: Vec<MovedConnection>) {
        let until = Instant::now() + ANSWER;
        let mut channel = self.way.channel();
        while let Some(at) = &channel {
            let sockets: Vec<_> = batch.iter().map(|it| it.socket.as_fd()).collect();
            let notes = Message::Connections(batch.iter().map(note).collect());
            let Err(error) = at.send(&notes, &sockets) else {
                return;
            };
            // A message is taken as a whole, or not at all.
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::TOOMANYREFS) if Instant::now() < until => sleep(TOO_MANY),
                _ => channel = self.way.instead_of(at),
            }
            if channel.is_none() {
                let (count, error) = (batch.len(), error.to_string());
                log::error!("connections-not-moved count={count} error={error:?}");
            }
        }
        for connection in batch {
            let client = connection.past.client;
            if let Err(error) = listeners::go_on_with(&self.gateway, connection) {
                let error = error.to_string();
                log::error!("attach-failed client={client} error={error:?} unsaid=0");
            }
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
        header_due: past.header_due,
    }
}
