//! The last-good copy at the start: what the first reading is compared with, and what is in force while there
//! is nothing else.

use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::Publisher;
use super::intake::{FoundCopy, Intakes};
use crate::lists::{ListName, Lists, PeerList, ServiceName, SharedLists};
use crate::store::copy::{self, Keeper, KeptLists, Purpose};
use crate::store::{Cause, StoreName};

impl Publisher {
    /// Keeps a copy of the lists in force at `path`. What is found there, if it is of the same store,
    /// is what the first reading is compared with; and what [`Self::use_copy`] uses, unless it is older
    /// than the purpose allows.
    ///
    /// # Errors
    /// When the thread that writes cannot be started.
    pub(crate) fn with_copy(self, path: &Path, purpose: Purpose) -> io::Result<Self> {
        self.keep_at(path, purpose)?;
        Ok(self)
    }

    fn keep_at(&self, path: &Path, purpose: Purpose) -> io::Result<()> {
        let (max_age, store) = (purpose.max_age, purpose.store.clone());
        let (keeper, found) = Keeper::start(path, purpose)?;
        *self.locked_keeper() = Some(Arc::new(keeper));
        // Once lists were read, only the next start has a use for one.
        if self.lists.load().are_read() {
            return Ok(());
        }
        let found = judge(path, found, &store, max_age);
        if let Some(FoundCopy { copy, .. }) = &found {
            self.lists.names().remember(copy.names.iter().cloned());
        }
        self.locked_entrance().take_copy(found);
        Ok(())
    }

    /// Keeps the copy there and for this purpose from now on, or none; the one so far is left as it is.
    ///
    /// # Errors
    /// When the thread that writes cannot be started: then none is kept.
    pub(crate) fn move_copy(&self, copy: Option<(&Path, Purpose)>) -> io::Result<()> {
        let before = self.locked_keeper().take();
        // It may have the same lock.
        if let Some(before) = before {
            before.end();
        }
        let Some((path, purpose)) = copy else {
            return Ok(());
        };
        self.keep_at(path, purpose)?;
        let entrance = self.locked_entrance();
        if self.lists.load().are_read() {
            self.keep_copy(&entrance);
        }
        Ok(())
    }

    fn locked_keeper(&self) -> MutexGuard<'_, Option<Arc<Keeper>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keeper(&self) -> Option<Arc<Keeper>> {
        self.locked_keeper().clone()
    }

    /// What is known of the last-good copy, if one is kept.
    pub(crate) fn copy(&self) -> Option<copy::CopyView> {
        self.keeper().map(|it| it.view())
    }

    /// Brings the last-good copy into force, if there is one that may be used, where nothing else is.
    pub(crate) fn use_copy(&self) {
        let usable = self.usable_copy(&self.locked_entrance());
        let pools = usable.iter().map(|(service, lists)| {
            let pools = [&lists.pre, &lists.prod].map(|it| Some(&**it));
            (service, pools)
        });
        self.lists.names().prepare_all(pools);
        let entrance = self.locked_entrance();
        let usable = self.usable_copy(&entrance);
        let Some(found) = entrance.copy.as_ref().filter(|_| !usable.is_empty()) else {
            return;
        };
        let age = found.copy.age(SystemTime::now()).unwrap_or_default();
        let (written, age) = (found.copy.written, copy::shown_age(age));
        let lines = usable.iter().map(|(service, lists)| {
            let service = service.in_log();
            let (generation, digest) = (lists.generation, lists.digest);
            let [gray, pre, prod] = ListName::ALL.map(|list| lists.len(list));
            format!(
                "{service}generation={generation} digest={digest} age={age} \
                 gray={gray} pre={pre} prod={prod}"
            )
        });
        let lines: Vec<String> = lines.collect();
        let services: Vec<ServiceName> = usable.iter().map(|(it, _)| it.clone()).collect();
        self.lists.store_all(usable);
        let mut status = self.locked();
        for service in &services {
            status.of_mut(service).changed = Some(written);
        }
        status.refreshed(Cause::Copy);
        self.ring();
        for line in lines {
            log::warn!("lists-from-copy {line}");
        }
    }

    /// What of the last-good copy may come into force now.
    fn usable_copy(&self, entrance: &Intakes) -> Vec<(ServiceName, Lists)> {
        if entrance.copy.as_ref().is_none_or(|it| it.is_too_old) {
            return Vec::new();
        }
        let unread = entrance
            .each()
            .filter(|(service, _)| !self.lists_of(service).are_read());
        let usable = unread.filter_map(|(service, intake)| {
            let lists = Lists {
                generation: intake.generation_before + 1,
                ..intake.copy.clone()?
            };
            Some((service.clone(), lists))
        });
        usable.collect()
    }

    /// True when the copy that was found turns out to be of another store, since it names none and this
    /// `prod` is the default service's: it is set aside then.
    pub(super) fn is_strange(&self, entrance: &Intakes, prod: Option<&PeerList>) -> bool {
        let copy = entrance.copy.as_ref().zip(prod);
        let is_strange = copy.is_some_and(|(found, prod)| found.copy.is_strange_to(prod));
        if let Some(keeper) = self.keeper().filter(|_| is_strange) {
            keeper.set_aside();
        }
        is_strange
    }

    /// The lists in force; before there are any, those of the copy that the first reading will be
    /// compared with.
    pub(super) fn compared(&self, entrance: &Intakes, service: &ServiceName) -> Arc<Lists> {
        let lists = self.lists_of(service);
        let copy = entrance.get(service).and_then(|it| it.copy.as_ref());
        match copy {
            Some(copy) if !lists.are_read() => Arc::new(copy.clone()),
            _ => lists,
        }
    }

    pub(super) fn keep_copy(&self, entrance: &Intakes) {
        let Some(keeper) = self.keeper() else {
            return;
        };
        let kept = self.kept_lists(entrance);
        if !kept.is_empty() {
            keeper.keep(kept, self.lists.names().addresses());
        }
    }

    /// What is in force, of whatever service, as it is to be there for the next process.
    pub(super) fn kept_lists(&self, entrance: &Intakes) -> KeptLists {
        let own = entrance.each().filter(|(_, intake)| !intake.awaits_store);
        let all = own.map(|(service, intake)| {
            let lists = self.lists_of(service);
            (service, intake.terms.gray_of.is_some(), lists)
        });
        KeptLists::of(all.filter(|(_, _, lists)| lists.are_read()))
    }

    /// Writes the newest copy, and stops keeping it.
    pub(crate) fn end(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.end();
        }
    }
}

impl Intakes {
    /// Will compare the first readings with what was `found`.
    pub(super) fn take_copy(&mut self, found: Option<FoundCopy>) {
        let lists = |service: &ServiceName| found.as_ref()?.copy.of(service).cloned();
        self.each_mut(|service, intake| intake.copy = lists(service));
        let owned: Vec<_> = self
            .each()
            .filter_map(|(service, intake)| {
                let owner = intake.terms.gray_of.as_ref()?;
                Some((service.clone(), self.get(owner)?.copy.clone()?))
            })
            .collect();
        // Where there is nothing of the list that it has, it is as if nothing was read of the service.
        self.each_mut(|service, intake| {
            let (Some(copy), Some(_)) = (&mut intake.copy, &intake.terms.gray_of) else {
                return;
            };
            let owner = owned.iter().find(|(it, _)| it == service);
            intake.copy = owner.map(|(_, owner)| {
                let gray = Arc::clone(&owner.gray);
                let shared = SharedLists {
                    gray,
                    ..copy.shared()
                };
                Lists::new(copy.generation, shared)
            });
        });
        self.copy = found;
        self.forget_used_copy();
    }
}

/// The copy that was found, if there is a good one; says why it may not be used.
fn judge(
    path: &Path,
    found: copy::CopyAtStart,
    store: &StoreName,
    max_age: Option<Duration>,
) -> Option<FoundCopy> {
    let copy = match found {
        Ok(copy) => copy?,
        Err(error) => {
            let reason = error.to_string();
            log::error!("copy-refused path={path:?} reason={reason:?}");
            return None;
        }
    };
    if let Some(other) = copy.other_store(store) {
        let (other, store) = (other.to_string(), store.to_string());
        log::error!("copy-of-another-store path={path:?} store={other:?} own={store:?}");
        return None;
    }
    let written = humantime::format_rfc3339_millis(copy.written);
    if copy.store.is_none() {
        // It was written before copies named their store, most likely by this very gateway.
        log::warn!("copy-names-no-store path={path:?} written={written} taken_for=\"{store}\"");
    }
    let age = copy.age(SystemTime::now());
    let is_too_old = age.zip(max_age).is_some_and(|(age, most)| age > most);
    match age {
        None => log::warn!("copy-from-the-future path={path:?} written={written}"),
        Some(_) if is_too_old => {
            let [age, most] = [age, max_age].map(|it| copy::shown_age(it.unwrap_or_default()));
            log::error!(
                "copy-refused path={path:?} reason=\"it is older than last_good_max_age\" \
                 written={written} age={age} max_age={most}"
            );
        }
        Some(_) => {}
    }
    Some(FoundCopy { copy, is_too_old })
}
