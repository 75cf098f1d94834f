//! What time decides: what has waited long enough comes in, of whatever service, and the log is told what it
//! is owed.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Publisher;
use super::intake::Intakes;
use crate::lists::{ListName, ServiceName, SharedLists};
use crate::process::supervised;
use crate::store::gate::door::Ripe;
use crate::store::gate::guard::{GuardRules, Timestamp};
use crate::store::{By, Cause};

impl Publisher {
    /// Starts the thread that lets in what waits, once its time has come: one for all services.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn keep_time(self: &Arc<Self>) -> io::Result<()> {
        let publisher = Arc::clone(self);
        supervised::spawn("lists-guard", move || publisher.follow_time())?;
        Ok(())
    }

    fn follow_time(&self) -> ! {
        let mut entrance = self.locked_entrance();
        loop {
            for service in entrance.waiting() {
                self.let_in_ripe(&mut entrance, &service, Timestamp::now());
                if let Some(intake) = entrance.get_mut(&service) {
                    let lists = self.lists_of(&service);
                    intake.reported.tell_unpublished(&lists, Instant::now());
                }
                entrance.note_time([&service]);
            }
            let left = entrance
                .look_at()
                .map(|it| it.saturating_duration_since(Instant::now()));
            entrance = match left {
                Some(left) => {
                    let waited = self.knock.wait_timeout(entrance, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.knock.wait(entrance);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// From now on the guard goes by these rules; what they allow is let in.
    pub(crate) fn set_rules(&self, rules: GuardRules) {
        let mut entrance = self.locked_entrance();
        entrance.set_rules(rules);
        for service in entrance.names() {
            self.let_in_ripe(&mut entrance, &service, Timestamp::now());
            entrance.note_time([&service]);
        }
        self.knock.notify_all();
    }

    pub(super) fn let_in_ripe(
        &self,
        entrance: &mut Intakes,
        service: &ServiceName,
        now: Timestamp,
    ) {
        let Some(intake) = entrance.get_mut(service) else {
            return;
        };
        if let Some(new) = intake.door.ripe_gray(&self.lists_of(service), now) {
            self.let_in(entrance, service, new, ListName::Gray, By::Rules);
        }
        let Some(intake) = entrance.get_mut(service) else {
            return;
        };
        match intake.door.ripe_prod(&self.lists_of(service), now) {
            Some(Ripe::Held(new)) => {
                self.let_in(entrance, service, new, ListName::Prod, By::Rules);
            }
            Some(Ripe::Settled(new)) => self.let_in_late(entrance, service, new),
            None => {}
        }
        let Some(intake) = entrance.get_mut(service) else {
            return;
        };
        if let Some(new) = intake
            .door
            .ripe_withheld(&self.lists_of(service), now.instant)
        {
            self.let_in_late(entrance, service, new);
        }
    }

    /// Brings lists into force that had to wait for a moment.
    fn let_in_late(&self, entrance: &mut Intakes, service: &ServiceName, new: SharedLists) {
        self.put_in_force(entrance, vec![(service.clone(), new)], Cause::Event);
        if let Some(intake) = entrance.get_mut(service) {
            self.note_faults(service, intake);
        }
        self.ring();
        self.keep_copy(entrance);
    }
}
