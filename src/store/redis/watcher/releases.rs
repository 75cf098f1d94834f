//! What was read of releases, on its way to whoever wants to know it.

use std::collections::HashMap;

use redis::{RedisError, RedisResult};

use super::{Server, Watcher};
use crate::lists::ServiceName;
use crate::store::redis::extras::ExtraReply;
use crate::store::redis::info::Info;
use crate::store::redis::keyring::KeyOf;
use crate::store::redis::origin::Origin;
use crate::store::redis::reading::KeysReply;
use crate::store::redis::standing::SECTIONS;
use crate::store::redis::unsettled::KeysLook;
use crate::store::{ReleaseReading, StoredText};

impl Watcher {
    /// What was read of the releases of services, where they have a verdict.
    pub(super) fn releases(
        &mut self,
        answers: &[KeysReply],
        look: &KeysLook,
        server: &mut Server,
    ) -> RedisResult<HashMap<usize, ReleaseReading>> {
        let mut all = HashMap::new();
        for part in answers.iter().flat_map(KeysReply::parts) {
            let service = part.service;
            if self.keyring.of_release(service).next().is_none() {
                continue;
            }
            let mut here: HashMap<KeyOf, RedisResult<ExtraReply>> = part.release().collect();
            let mut text = |of: KeyOf| {
                let reply = match here.remove(&of) {
                    Some(Err(error)) if error.code().is_some() => {
                        self.rights.refused(of, &self.keyring, &error);
                        None
                    }
                    Some(reply) => Some(reply?),
                    None => look.extras.get(&of).cloned(),
                };
                Ok::<_, RedisError>(self.extras.text(of, reply, &self.keyring))
            };
            let mut read = ReleaseReading {
                tripped: text(KeyOf::tripped(service))?,
                state: text(KeyOf::release(service))?,
                lost: part.is_empty(),
            };
            let before = self.known[service].release.as_ref();
            let has_gone = read.tripped == StoredText::Absent
                && before.is_some_and(|it| matches!(it.tripped, StoredText::Text(_)));
            // What was evicted is no key any more that somebody could delete.
            let tripped = KeyOf::tripped(service);
            if has_gone && server.subscription.was_evicted(tripped) == Some(true) {
                read.lost = true;
            } else if has_gone && !read.lost {
                let now = Origin::of(&Info::ask(&mut server.reader, &SECTIONS)?);
                read.lost = self.known[service].taken.is_lost(now.as_ref());
            }
            all.insert(service, read);
        }
        Ok(all)
    }

    /// What is to be told of the release of a service: what is new.
    pub(super) fn told_release(
        &mut self,
        service: usize,
        releases: &mut HashMap<usize, ReleaseReading>,
    ) -> Option<(ServiceName, ReleaseReading)> {
        let read = releases.remove(&service)?;
        self.told_if_new(service, read)
    }

    /// This reading of the release of a service, if it is to be told.
    pub(super) fn told_if_new(
        &mut self,
        service: usize,
        read: ReleaseReading,
    ) -> Option<(ServiceName, ReleaseReading)> {
        let known = &mut self.known[service].release;
        if known.as_ref() == Some(&read) {
            return None;
        }
        *known = Some(read.clone());
        Some((self.keyring.services()[service].service.clone(), read))
    }
}
