//! The way from a process that has handed over to whoever serves by now.
//!
//! A process may outlast the one that has succeeded to it, when there is another upgrade meanwhile or that
//! one ends. Then it asks whoever runs with the ini file by now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::arriving::SILENCE;
use super::{ANSWER, socket_names_of};
use crate::process::Command;
use crate::process::handover::{Channel, Message};
use crate::proxy::Gateway;

/// For so long, whoever runs by now may not be there yet.
const OTHER_HEIR: Duration = Duration::from_secs(5);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The channel to whoever serves by now.
pub(in crate::run) struct HeirWay {
    gateway: Arc<Gateway>,
    /// Takes what this process is told to do.
    orders: Sender<Command>,
    /// None when there is nobody.
    channel: Mutex<Option<Arc<Channel>>>,
}

impl HeirWay {
    /// The way to the process at this channel.
    pub(in crate::run) fn to(
        gateway: &Arc<Gateway>,
        channel: Arc<Channel>,
        orders: Sender<Command>,
    ) -> Self {
        let way = Self {
            gateway: Arc::clone(gateway),
            orders,
            channel: Mutex::new(None),
        };
        way.hear(&channel);
        *way.locked() = Some(channel);
        way
    }

    fn locked(&self) -> MutexGuard<'_, Option<Arc<Channel>>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel at present.
    pub(super) fn channel(&self) -> Option<Arc<Channel>> {
        self.locked().clone()
    }

    /// Another one, if there is one: `failed` leads to nobody any more.
    pub(super) fn instead_of(&self, failed: &Arc<Channel>) -> Option<Arc<Channel>> {
        let mut channel = self.locked();
        if channel.as_ref().is_some_and(|it| Arc::ptr_eq(it, failed)) {
            *channel = self.other_heir().map(Arc::new);
            match &*channel {
                Some(found) => self.hear(found),
                // What was meant for the heir ends here from now on, and does not come back.
                None => self.gateway.heir.is_lost(),
            }
        }
        channel.clone()
    }

    /// Does what is said there.
    fn hear(&self, channel: &Arc<Channel>) {
        let (channel, orders) = (Arc::clone(channel), self.orders.clone());
        let thread = std::thread::Builder::new().name("heir".to_owned());
        let heard = thread.spawn(move || {
            while let Ok(Some((message, _))) = channel.receive(SILENCE) {
                if message == Message::Reopen && orders.send(Command::ReopenLogs).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = heard {
            log::error!("heir-unheard error={:?}", error.to_string());
        }
    }

    /// The gateway that runs with the ini file by now.
    fn other_heir(&self) -> Option<Channel> {
        let names = socket_names_of(&self.gateway.config.load().path);
        let until = Instant::now() + OTHER_HEIR;
        loop {
            if let Ok(Some(channel)) = Channel::connect_to_any(&names, |_, _| false)
                && channel.send(&Message::Arriving, &[]).is_ok()
                && let Ok(Some((Message::Welcome, _))) = channel.receive(ANSWER)
            {
                return Some(channel);
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(LOOK);
        }
    }
}
