//! How the gateway learns that a key was changed.
//!
//! By *keyspace events* on the exact channels of the keys, if the server sends them or can be
//! configured to. Otherwise by *client tracking* in broadcast mode: the server names the changed keys
//! that begin with one of some prefixes, and says when a database was flushed. Either arrives at a
//! subscription, on a connection of its own; the reader asks for tracking on its behalf. Otherwise the
//! keys are polled. Which of these it is, is chosen here.
//!
//! An announcement names the key, so only the services that it is about need be read
//! ([`AnnouncedChanges`]). A server sends what one of its clients writes at once in several messages, of
//! which the first may be here before the others. [`Subscription::catch_up`] makes sure that everything is
//! here that was announced before it: what a server sends on a connection, and what it answers on it, has
//! one order.

mod events;
mod subscription;
mod tracking;

use std::time::Instant;

use redis::{RedisError, RedisResult};

use self::events::{ask_for_events, hear_events};
pub(crate) use self::subscription::{AnnouncedChanges, Subscription, SubscriptionNews};
use self::tracking::{is_tracking, track};
use super::errors::{describe, io_error, is_refusal};
use super::keyring::Keyring;
use super::link::Link;
use crate::config::{self, Notify};
use crate::store::Mode;

/// How the gateway learns of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By keyspace events.
    Events,
    /// By client tracking.
    Tracking,
    /// By polling; but there is a subscription, since it is unknown whether the server sends events.
    Unsure,
    /// By polling.
    Poll,
}

impl Way {
    /// The same in the words of the status.
    pub(crate) const fn mode(self) -> Mode {
        match self {
            Self::Events => Mode::Events,
            Self::Tracking => Mode::Tracking,
            Self::Unsure | Self::Poll => Mode::Poll,
        }
    }
}

/// Chooses a way to learn of changes, and keeps to it.
#[derive(Debug)]
pub(crate) struct WayChooser {
    /// When the way was last chosen.
    chosen: Instant,
    /// What was logged already, so that it is logged once.
    events_refused: bool,
    tracking_refused: bool,
    acceptance_refused: bool,
    /// The id by which the server knows the connection that receives for the reader.
    redirected_to: i64,
}

impl Default for WayChooser {
    fn default() -> Self {
        Self {
            chosen: Instant::now(),
            events_refused: false,
            tracking_refused: false,
            acceptance_refused: false,
            redirected_to: 0,
        }
    }
}

impl WayChooser {
    /// Chooses the best way that the server and the settings allow.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(crate) fn choose(
        &mut self,
        reader: &mut Link,
        settings: &config::RedisSettings,
        keyring: &Keyring,
    ) -> RedisResult<(Way, Subscription)> {
        let notify = settings.notify;
        self.chosen = Instant::now();
        let mut may_be_on = false;
        if matches!(notify, Notify::Auto | Notify::Events) {
            let refusal = match ask_for_events(reader) {
                Ok(()) => {
                    match hear_events(reader, settings, keyring, &mut self.acceptance_refused) {
                        Ok(subscription) => {
                            self.events_refused = false;
                            return Ok((Way::Events, subscription));
                        }
                        // A user without the right to these channels.
                        Err(error) => error,
                    }
                }
                Err(error) => {
                    may_be_on = true;
                    error
                }
            };
            self.step_down_from_events(refusal, notify)?;
        }
        if matches!(notify, Notify::Auto | Notify::Tracking) {
            match track(reader, settings, keyring) {
                Ok((id, subscription)) => {
                    self.redirected_to = id;
                    self.tracking_refused = false;
                    return Ok((Way::Tracking, subscription));
                }
                Err(error) => self.step_down_from_tracking(error, notify)?,
            }
        }
        if may_be_on {
            match hear_events(reader, settings, keyring, &mut self.acceptance_refused) {
                Ok(subscription) => return Ok((Way::Unsure, subscription)),
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((Way::Poll, Subscription::none()))
    }

    /// Makes sure that `way` still works. Returns the way from now on; `None` when another one has to be
    /// chosen.
    ///
    /// # Errors
    /// When the server cannot be asked, or has forgotten the subscription.
    pub(crate) fn check(
        &mut self,
        way: Way,
        reader: &mut Link,
        settings: &config::RedisSettings,
    ) -> RedisResult<Option<Way>> {
        let notify = settings.notify;
        match way {
            // What was refused may have been allowed since.
            Way::Poll => {
                let is_time = self.chosen.elapsed() >= settings.check_interval;
                Ok((notify == Notify::Poll || !is_time).then_some(way))
            }
            Way::Tracking if is_tracking(reader, self.redirected_to)? => Ok(Some(way)),
            Way::Tracking => Err(io_error("the server no longer tracks the keys")),
            // Somebody may have switched them off, or given the right to switch them on.
            Way::Events | Way::Unsure => match ask_for_events(reader) {
                Ok(()) => {
                    self.events_refused = false;
                    Ok(Some(Way::Events))
                }
                Err(error) if is_refusal(&error) => {
                    self.step_down_from_events(error, notify)?;
                    Ok((way == Way::Unsure).then_some(way))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Logs once that there are no events, if that is what `error` says.
    fn step_down_from_events(&mut self, error: RedisError, notify: Notify) -> RedisResult<()> {
        let (level, instead) = match notify {
            Notify::Events => (log::Level::Error, Way::Poll),
            _ => (log::Level::Warn, Way::Tracking),
        };
        step_down(error, "events", level, instead, &mut self.events_refused)
    }

    fn step_down_from_tracking(&mut self, error: RedisError, notify: Notify) -> RedisResult<()> {
        let level = match notify {
            Notify::Tracking => log::Level::Error,
            _ => log::Level::Warn,
        };
        let told = &mut self.tracking_refused;
        step_down(error, "tracking", level, Way::Poll, told)
    }
}

/// Logs once that the server refuses something; any other error is returned.
fn step_down(
    error: RedisError,
    from: &str,
    level: log::Level,
    to: Way,
    told: &mut bool,
) -> RedisResult<()> {
    if !is_refusal(&error) {
        return Err(error);
    }
    if !std::mem::replace(told, true) {
        let instead = to.mode().name();
        let error = describe(&error);
        log::log!(
            level,
            "redis-{from}-refused error={error:?} instead={instead}"
        );
    }
    Ok(())
}
