//! What a reading is not believed in, for what the server is (`standing`) or has done with its keys; and what is
//! said of that.

use std::time::Instant;

use redis::RedisResult;

use super::changes::Subscription;
use super::reading::Answer;
use super::standing::{Adrift, Standing};
use super::{Server, Watcher, cluster};
use crate::error::Finding;
use crate::lists::ListName;
use crate::store::{Cause, Fault, Reading, StoreFinding};

impl Watcher {
    /// Why the lists were read that are to be taken; `None` where they are not, for what the server
    /// is: then those in force stay, as if it were away.
    pub(super) fn cause_if_taken(
        &mut self,
        answer: &Answer,
        server: &mut Server,
        cause: Cause,
    ) -> RedisResult<Option<Cause>> {
        let (standing, has_lists) = (&answer.standing, self.publisher.has_lists());
        let reader = &mut server.reader;
        let verdict = self
            .standings
            .judge(standing, answer.is_empty(), has_lists, reader)?;
        self.keeps = verdict.is_err();
        self.is_adrift = *standing != Standing::Settled;
        match verdict {
            Ok(adrift) => {
                let found = adrift.map(|it| without_master(&server.reader.place(), it));
                self.publisher.find(Finding::ReplicaLinkDown, found);
                Ok(Some(self.owed.take().unwrap_or(cause)))
            }
            Err(fault) => {
                self.owed.get_or_insert(cause);
                let words = not_taken(&server.reader.place(), standing);
                self.publisher.failed_for(fault, words);
                Ok(None)
            }
        }
    }

    /// Notes which lists have vanished. One of which the server says that it was evicted was removed
    /// by nobody, and keeps its value.
    pub(super) fn see_what_is_gone(&mut self, reading: &mut Reading, subscription: &Subscription) {
        for (list, entries) in ListName::ALL.into_iter().zip(reading.lists_mut()) {
            let at = list as usize;
            let Ok(read) = entries else {
                continue;
            };
            if !read.is_empty() {
                self.had[at] = true;
                self.evicted[at] = false;
                self.gone.retain(|it| *it != list);
                continue;
            }
            if std::mem::take(&mut self.had[at]) {
                self.gone.push(list);
            }
            let heard = subscription.was_evicted(list);
            self.evicted[at] = heard.unwrap_or(self.evicted[at]);
            if self.evicted[at] {
                *entries = Err(Fault::Evicted);
            }
        }
    }

    /// Says so when keys were evicted and a list is gone since; and notes whose lists were taken.
    pub(super) fn note_evictions(&mut self, server: &mut Server) -> RedisResult<()> {
        let evicted = self.standings.note(&mut server.reader)?;
        if self.standings.is_cluster {
            let servers = cluster::servers(&mut server.reader)?;
            self.finder.learn(servers);
        }
        let is_said = |it: &&StoreFinding| it.finding == Finding::KeysEvicted;
        let before = self.publisher.status();
        let before = before.findings.iter().find(is_said).cloned();
        let gone: Vec<&str> = self.gone.iter().map(|it| it.name()).collect();
        if gone.is_empty() {
            self.publisher.find(Finding::KeysEvicted, None);
        } else if evicted > 0 && before.is_none() {
            let gone = gone.join(", ");
            let found = StoreFinding {
                finding: Finding::KeysEvicted,
                server: server.reader.place(),
                since: Instant::now(),
                text: format!(
                    "Redis has evicted {evicted} keys since its memory was full (maxmemory), and is without {gone}"
                ),
            };
            self.publisher.find(Finding::KeysEvicted, Some(found));
        } else if before.is_none() {
            // Somebody has removed them.
            self.gone.clear();
        }
        Ok(())
    }
}

/// What is to be said of a replica without its master.
fn without_master(address: &str, adrift: Adrift) -> StoreFinding {
    let Adrift { master, since } = adrift;
    StoreFinding {
        finding: Finding::ReplicaLinkDown,
        server: address.to_owned(),
        since,
        text: format!(
            "the lists come from the replica {address}, whose link to its master {master} is down"
        ),
    }
}

/// Why lists are not taken, in the same words for as long as that is so.
fn not_taken(address: &str, standing: &Standing) -> String {
    match standing {
        Standing::Adrift(master) => format!(
            "the replica {address} has not synced with its master {master}: what it lacks was \
             removed by nobody"
        ),
        Standing::Settled => format!(
            "{address} has none of the lists since it was restarted, or its master was: fill them in \
             again"
        ),
    }
}
