//! The watchers of one store: one, as a rule. In a Redis Cluster there is one for each server that has
//! lists of some services, with connections of its own, so that a server that is away holds up nobody but
//! its own services.
//!
//! A service is always one watcher's. A watcher that is told that a slot is elsewhere hands the services in
//! it on to the watcher of that server, or to a new one if there is none. The services in one slot stay
//! together, for they may be written together.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::{Address, ServiceKeys};

/// All watchers.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Vec<PostBox>>);

/// Where a watcher gets services.
struct PostBox {
    /// The server that it watches, as far as that is known.
    server: Option<Address>,
    handed: Vec<ServiceKeys>,
    bell: Sender<()>,
}

/// One watcher's place among them.
pub(crate) struct Post {
    watchers: Arc<Watchers>,
    pub(crate) number: usize,
    /// Rings when services were handed over.
    pub(crate) bell: Receiver<()>,
}

impl Watchers {
    /// A place for another watcher, of this server.
    pub(crate) fn post(self: &Arc<Self>, server: Option<Address>) -> Post {
        let (bell, rings) = bounded(1);
        let mut all = self.locked();
        all.push(PostBox {
            server,
            handed: Vec::new(),
            bell,
        });
        Post {
            watchers: Arc::clone(self),
            number: all.len() - 1,
            bell: rings,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<PostBox>> {
        // Whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Post {
    /// The services that were handed over since this was last asked.
    pub(crate) fn take(&self) -> Vec<ServiceKeys> {
        let mut all = self.watchers.locked();
        std::mem::take(&mut all[self.number].handed)
    }

    /// Notes the server that is watched from here.
    pub(crate) fn set_server(&self, server: &Address) {
        self.watchers.locked()[self.number].server = Some(server.clone());
    }

    /// Hands services on to the watcher of that server; `begin` starts a new one if there is none.
    ///
    /// # Errors
    /// Those of `begin`; then the services are returned by the next [`Self::take`].
    pub(crate) fn hand_on(
        &self,
        server: Option<Address>,
        services: Vec<ServiceKeys>,
        begin: impl FnOnce(Post, Vec<ServiceKeys>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut all = self.watchers.locked();
        let own = self.number;
        let others = all.iter_mut().enumerate().filter(|(at, _)| *at != own);
        let mut boxes = others.map(|(_, it)| it);
        if let Some(found) = boxes.find(|it| server.is_some() && it.server == server) {
            found.handed.extend(services);
            // A full bell has not been heard yet.
            let _ = found.bell.try_send(());
            return Ok(());
        }
        drop(all);
        let post = self.watchers.post(server);
        begin(post, services.clone()).inspect_err(|_| {
            self.watchers.locked()[own].handed.extend(services);
        })
    }
}

/// The pause between two times, where services come back at once: from, to (doubling).
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// When services were handed over to this watcher.
///
/// While a slot moves, two servers may each say that it is the other one's: then the services in it go to and
/// fro, and with each time both watchers connect anew. That is to stay rare.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    last: Option<Instant>,
    pause: Duration,
}

impl Handovers {
    /// How long to wait before those that were handed over now are looked for.
    pub(crate) fn pause(&mut self, now: Instant) -> Duration {
        let is_soon = |last: Instant| now.saturating_duration_since(last) < PAUSE.1 * 2;
        self.pause = match self.last.is_some_and(is_soon) {
            true => (self.pause * 2).clamp(PAUSE.0, PAUSE.1),
            false => Duration::ZERO,
        };
        self.last = Some(now + self.pause);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_go_to_and_fro_are_looked_for_less_and_less_often() {
        let (mut handed, mut now) = (Handovers::default(), Instant::now());
        let mut pauses = |after: Duration| {
            now += after;
            let pause = handed.pause(now);
            now += pause;
            pause.as_millis()
        };
        let ms = Duration::from_millis;
        let soon = [0, 5, 5, 5, 5, 5, 5, 2000].map(|it| pauses(ms(it)));
        assert_eq!(soon, [0, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!([5000, 0].map(|it| pauses(ms(it))), [0, 100]);
    }
}
