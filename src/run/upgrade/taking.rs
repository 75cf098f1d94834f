//! The new gateway's side of an upgrade.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::unistd::User;
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::{ANSWER, DONE, PROBATION, socket_name_of};
use crate::config::Config;
use crate::process::handover::{Channel, Message};

/// What the old gateway has offered.
pub(in crate::run) struct Taking {
    channel: Channel,
    /// Of each, its kind and what the ini file calls it.
    doors: Vec<(String, String, OwnedFd)>,
    /// Standard output of the old one.
    output: Option<OwnedFd>,
    /// The supervisor is told instead of whoever reads standard output.
    is_supervised: bool,
    /// The old one has lists.
    pub(in crate::run) has_lists: bool,
}

impl Taking {
    /// Asks the gateway that runs with this ini file for all that it has.
    ///
    /// # Errors
    /// Nobody runs with it, or it refuses; in words.
    pub(in crate::run) fn begin(config: &Config, is_supervised: bool) -> Result<Self, String> {
        Self::if_any(config, is_supervised)?.ok_or_else(|| {
            let path = config.path.display();
            format!("no gateway that can be asked runs with {path}")
        })
    }

    /// As [`Self::begin`]; `None` when nobody runs with it.
    ///
    /// # Errors
    /// It refuses; in words.
    pub(in crate::run) fn if_any(
        config: &Config,
        is_supervised: bool,
    ) -> Result<Option<Self>, String> {
        let in_words = |error: io::Error| error.to_string();
        let user = config.gateway.user.as_deref();
        let user = user.and_then(|it| User::from_name(it).ok().flatten());
        let users: Vec<u32> = user.iter().map(|it| it.uid.as_raw()).collect();
        let socket = socket_name_of(&config.path);
        let found = Channel::connect(&socket, &users).map_err(in_words)?;
        let Some(channel) = found else {
            return Ok(None);
        };
        let take = Message::Take {
            version: crate::process::handover::VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        channel.send(&take, &[]).map_err(in_words)?;
        let (mut doors, mut output) = (Vec::new(), None);
        loop {
            match channel.receive(ANSWER).map_err(in_words)? {
                Some((Message::Door { kind, asked }, sockets)) => {
                    doors.extend(sockets.into_iter().next().map(|it| (kind, asked, it)));
                }
                // Those of the supervisor stay.
                Some((Message::Streams, _)) if is_supervised => {}
                Some((Message::Streams, streams)) => {
                    let mut streams = streams.into_iter();
                    output = streams.next();
                    // Now, since a log may go there.
                    let errors = streams.next().map_or(Ok(()), dup2_stderr);
                    errors.map_err(|error| error.to_string())?;
                }
                Some((Message::Offered { has_lists }, _)) => {
                    return Ok(Some(Self {
                        channel,
                        doors,
                        output,
                        is_supervised,
                        has_lists,
                    }));
                }
                Some((Message::Refused { reason }, _)) => return Err(reason),
                Some(_) => {}
                None => return Err("the running gateway has broken off".to_owned()),
            }
        }
    }

    /// The socket of this kind that listens at what the ini file calls `asked`, if the old one has it.
    pub(in crate::run) fn door(&mut self, kind: &str, asked: &str) -> Option<OwnedFd> {
        let mut doors = self.doors.iter();
        let place = doors.position(|(of, at, _)| of == kind && at == asked)?;
        Some(self.doors.swap_remove(place).2)
    }

    /// This one serves: waits until the old one lets go. If it dies instead, that comes to the same.
    ///
    /// # Errors
    /// It has changed its mind; in words.
    pub(in crate::run) fn take_over(&self) -> Result<(), String> {
        let in_words = |error: io::Error| error.to_string();
        let limit = PROBATION + ANSWER + Duration::from_secs(5);
        self.channel.send(&Message::Ready, &[]).map_err(in_words)?;
        match self.channel.receive(limit).map_err(in_words)? {
            Some((Message::Yours, _)) | None => Ok(()),
            Some((Message::Refused { reason }, _)) => Err(reason),
            Some(_) => Err("the running gateway has said what it should not".to_owned()),
        }
    }

    /// All is this one's now. Tells whoever has started it, by one line on standard output, and goes on with
    /// that of the old one.
    pub(in crate::run) fn confirm(self) -> Channel {
        // The old one may have gone.
        let _ = self.channel.send(&Message::Taken, &[]);
        if self.is_supervised {
            return self.channel;
        }
        let told = writeln!(io::stdout(), "{DONE}").and_then(|()| io::stdout().flush());
        let taken = told.and_then(|()| Ok(self.output.map_or(Ok(()), dup2_stdout)?));
        if let Err(error) = taken {
            log::error!("streams-not-taken error={:?}", error.to_string());
        }
        self.channel
    }
}
