//! The end of a process: by a command, or since another one goes on in its place.

use std::cell::Cell;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::upgrade::{HeirWay, Mover, Parting, Successor};
use super::{PID_FILE_WAIT, Running};
use crate::process::handover::Message;
use crate::process::notices::Notice;
use crate::process::{Command, PidFile};
use crate::proxy::{listeners, workers};

impl Running {
    /// Leaves to the successor what only one can have. False when that has come to nothing, and this process
    /// goes on.
    pub(super) fn hand_over(&mut self, successor: &Successor) -> bool {
        if let Some(pid_file) = &mut self.pid_file
            && let Err(error) = pid_file.leave()
        {
            log::error!("pid-file-not-left error={:?}", error.to_string());
        }
        if let Some(heartbeat) = &*self.heartbeat.load() {
            heartbeat.rest(true);
        }
        self.trips.rest(true);
        self.webhook.rest(true);
        let outcome = successor.let_it_take_over();
        let giver = self.handover.as_ref().map(|it| &it.giver);
        match (outcome, giver) {
            (Ok(()), Some(giver)) => {
                giver.has_succeeded();
                true
            }
            (Ok(()), None) => true,
            (Err(why), giver) => {
                if let Some(heartbeat) = &*self.heartbeat.load() {
                    heartbeat.rest(false);
                }
                self.trips.rest(false);
                self.webhook.rest(false);
                if let Some(pid_file) = &mut self.pid_file
                    && let Err(error) = pid_file.come_back(PID_FILE_WAIT)
                {
                    log::error!("pid-file-lost error={:?}", error.to_string());
                }
                if let Some(giver) = giver {
                    giver.has_failed(successor, &why);
                }
                false
            }
        }
    }

    /// Finishes what is under way.
    pub(super) fn end(mut self, commands: &Receiver<Command>, successor: Option<Successor>) {
        // It has duplicates of the listening sockets, which would keep a port open that nobody attends.
        if let Some(handover) = self.handover.take() {
            handover.close();
        }
        let is_stop = Cell::new(successor.is_none());
        self.notices.tell(match &successor {
            None => Notice::Ends,
            Some(successor) => Notice::Successor(successor.pid()),
        });
        let limit = self.gateway.config.load().gateway.drain_timeout;
        let (order, orders) = crossbeam_channel::unbounded();
        let mover = successor.and_then(|it| {
            // Whoever has sent them meant the gateway, and not one process of it.
            for command in commands.try_iter() {
                let message = match command {
                    Command::Drain => Message::Stop,
                    Command::Reload => Message::Reload,
                    // It has this one do so as well.
                    Command::ReopenLogs => Message::Reopen,
                    Command::Upgrade => continue,
                };
                let _ = it.channel.send(&message, &[]);
            }
            self.leave();
            let way = Arc::new(HeirWay::to(&self.gateway, it.channel, order));
            let parted = Parting::start(&self.gateway, &way, limit);
            let parted = parted.and_then(|()| Mover::start(&self.gateway, &way));
            let failed = |error: &std::io::Error| {
                log::error!("connections-not-moved error={:?}", error.to_string());
            };
            parted.inspect_err(failed).ok()
        });
        // Those of earlier processes go wherever this one's go.
        self.arrivals.close();
        self.sockets.close();
        log::info!(
            "draining connections={} limit={limit:?}",
            self.gateway.open_connections()
        );
        let hurry = || {
            // All of them, so that none is left behind another one.
            let told: Vec<Command> = commands.try_iter().chain(orders.try_iter()).collect();
            if told.contains(&Command::ReopenLogs) {
                self.reopen_logs();
            }
            let mut ends = told.iter().filter(|it| **it == Command::Drain);
            // The end of all, of those on their way out, too, is no reason to cut what is under way.
            ends.any(|_| is_stop.replace(true) || !listeners::end_silent_tunnels(&self.gateway))
        };
        let left = listeners::drain(&self.gateway, limit, hurry);
        if left > 0 {
            log::warn!("drain-cut connections={left}");
        }
        if let Some(mover) = mover {
            mover.end();
        }
        workers::flush_access_logs(&self.gateway);
        self.publisher.end();
        if let Some(heartbeat) = &*self.heartbeat.load() {
            heartbeat.end();
        }
        self.webhook.end();
        log::info!("stopped");
        drop(self.admin);
        drop(self.pid_file);
        self.access_log.close();
        self.error_log.close();
    }

    /// What only one gateway can have, and the successor has or waits for.
    fn leave(&mut self) {
        self.admin.leave();
        self.claims = None;
        if let Some(pid_file) = self.pid_file.take()
            && self.is_moved(&pid_file)
        {
            pid_file.give_up();
        }
        self.publisher.end();
    }

    /// By the ini file that the successor has read, the pid file is another one.
    fn is_moved(&self, pid_file: &PidFile) -> bool {
        let path = &self.gateway.config.load().path;
        super::load(path).is_ok_and(|it| it.gateway.pid_file.as_deref() != Some(pid_file.path()))
    }
}
