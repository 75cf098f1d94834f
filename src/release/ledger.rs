//! Bringing a change into the store: whole, or not at all.
//!
//! What is there is read, the change is made of that ([`change`](super::change)), whoever asks for it is
//! heard about it, and it is written unless something was changed meanwhile; then all of this is done again.
//! So two who are at it at the same moment both get what they asked for, and nobody confirms what he has not
//! seen.
//!
//! Renewals of the lease of a rollout are beside the state of the release, and are read as if they were in it
//! ([`rollout`](super::rollout) says why).

mod account;
mod file;
mod order;
mod redis;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::{Config, ServiceSettings, Store};
use crate::lists::ServiceName;
use crate::release::change::ServiceTerms;
use crate::release::history::ChangeRecord;
use crate::release::state::readable;

pub(crate) use self::account::{NotNoted, Noting, SeenAccount};
use self::file::FileLedger;
pub(crate) use self::file::note_beside;
pub(crate) use self::order::{Consent, Done, Hear, Order, Tend, TendedState};
use self::redis::RedisLedger;
pub(crate) use self::redis::stream::{added, newest};

/// Where the lists of a service are, and what is known of them.
pub(crate) enum Ledger<'a> {
    Redis(Box<RedisLedger<'a>>),
    File(FileLedger<'a>),
}

impl<'a> Ledger<'a> {
    /// That of a service in the store of this configuration.
    ///
    /// # Errors
    /// One line: there is no such service, or nowhere to note what is done to it.
    pub(crate) fn of(config: &'a Config, service: &ServiceName) -> Result<Self, String> {
        let all: &[Arc<ServiceSettings>] = &config.services;
        let Some(settings) = all.iter().find(|it| it.name == *service) else {
            let there: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
            let there = there.join(", ");
            return Err(format!(
                "the ini file has no service {service}; there is {there}"
            ));
        };
        let shares = |it: &&Arc<ServiceSettings>| it.gray_of.as_ref() == Some(service);
        let terms = ServiceTerms {
            service: service.clone(),
            gray_of: settings.gray_of.clone(),
            shared_by: all
                .iter()
                .filter(shares)
                .map(|it| it.name.clone())
                .collect(),
            salt: settings.salt.clone(),
            peer_port: settings.upstream.peer_port,
            guard_share: config.lists.guard_share,
        };
        match &config.store {
            Store::Redis(settings) => {
                let ledger = RedisLedger::of(settings, terms)?;
                Ok(Self::Redis(Box::new(ledger)))
            }
            Store::File(path) => Ok(Self::File(FileLedger::of(path, config, terms))),
        }
    }

    /// Does what is ordered, unless whoever asks for it says no.
    ///
    /// # Errors
    /// One line: why nothing was changed; or that it is not known whether something was.
    pub(crate) fn perform(&mut self, order: &Order, hear: Hear<'_>) -> Result<Done, String> {
        match self {
            Self::Redis(it) => it.perform(order, hear),
            Self::File(it) => it.perform(order, hear),
        }
    }

    /// Looks at the state of the release alone, and writes what `tend` makes of it, if that is something.
    /// Nothing of that is in the history. False if somebody else has changed it meanwhile, so that it was not
    /// written.
    ///
    /// # Errors
    /// One line: why that could not be done; or it is not known whether it was.
    pub(crate) fn tend(&mut self, tend: Tend<'_>) -> Result<bool, String> {
        let mut refusal = None;
        let mut tend = |state: &Map<String, Value>| match tend(state) {
            TendedState::Changed(next) => match readable(state, &next) {
                Ok(()) => TendedState::Changed(next),
                Err(why) => {
                    refusal = Some(why);
                    TendedState::Kept
                }
            },
            tended => tended,
        };
        let is_written = match self {
            Self::Redis(it) => it.tend(&mut tend),
            Self::File(it) => it.tend(&mut tend),
        }?;
        refusal.map_or(Ok(is_written), Err)
    }

    /// Notes what was changed by hand, if the history does not end with what is there.
    ///
    /// # Errors
    /// Why it cannot be noted.
    pub(crate) fn note_by_hand(&mut self, account: &SeenAccount<'_>) -> Result<Noting, NotNoted> {
        match self {
            Self::Redis(it) => it.note_by_hand(account),
            Self::File(it) => it.note_by_hand(account).map_err(NotNoted::Refused),
        }
    }

    /// The records that there are, the newest first; `most` of them at most.
    ///
    /// # Errors
    /// One line: why they cannot be read.
    pub(crate) fn history(&mut self, most: usize) -> Result<Vec<ChangeRecord>, String> {
        match self {
            Self::Redis(it) => it.history(most),
            Self::File(it) => it.history(most),
        }
    }
}
