//! The slot of the lists while it is *open*, that is being migrated within a Redis Cluster: some keys
//! may be at its owner, the others at its destination.
//!
//! The owner (MIGRATING) answers for the keys that it has, and redirects to the other server for the
//! rest (ASK); that one (IMPORTING) answers after ASKING. Neither runs a transaction about keys that it
//! does not have (ASK, TRYAGAIN), and an empty list is a missing key. After an interrupted resharding
//! this may last for days. So each key is read by itself, first at the owner, then at the other server:
//! a key is deleted at the first only once the second has it. Two equal readings in a row count as a
//! reading at one moment. The connections and the subscription stay with the owner until it says MOVED;
//! the other server does not announce its changes, so the keys are polled meanwhile.

use redis::{RedisError, RedisResult};

use super::cluster::Redirection;
use super::errors::{bounded, describe, io_error};
use super::keyring::{KeyOf, KeysQuery};
use super::link::Link;

/// Most readings that are made to find two equal ones in a row.
const TRIES: usize = 6;

/// What is known of the open slot.
#[derive(Default)]
pub(crate) struct OpenSlot {
    is_open: bool,
    /// The server to which the slot is migrated.
    target: Option<Link>,
}

impl OpenSlot {
    /// It was open when the keys were last read.
    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// A transaction about all keys has succeeded.
    pub(crate) fn close(&mut self, owner: &Link) {
        if std::mem::take(&mut self.is_open) {
            log::info!("redis-slot-open-over server={:?}", owner.place());
        }
        self.target = None;
    }

    /// What `owner`, and the server to which it redirects, have of these `keys`, in the form of a reply of
    /// EXEC; `None` when that does not stop changing.
    ///
    /// # Errors
    /// When one of the two cannot be asked, or the slot is elsewhere.
    pub(crate) fn read(
        &mut self,
        owner: &mut Link,
        keys: &[KeyOf],
        query: &KeysQuery<'_>,
    ) -> RedisResult<Option<Vec<u8>>> {
        let mut before = None;
        for _ in 0..TRIES {
            let now = self.read_once(owner, keys, query)?;
            if before.as_ref() == Some(&now) {
                return Ok(before);
            }
            before = Some(now);
        }
        Ok(None)
    }

    fn read_once(
        &mut self,
        owner: &mut Link,
        keys: &[KeyOf],
        query: &KeysQuery<'_>,
    ) -> RedisResult<Vec<u8>> {
        let mut left = query.settings.max_reply;
        let commands: usize = keys.iter().map(|it| it.count()).sum();
        let mut all = format!("*{commands}\r\n").into_bytes();
        for key in keys {
            let replies = ask(owner, *key, &mut left, query)?;
            all.extend(match redirection(&replies)? {
                None => replies.concat(),
                Some(error) => {
                    let to = Redirection::of(&error).filter(Redirection::is_asking);
                    let to = to.ok_or(error)?;
                    self.read_there(&to, owner, *key, &mut left, query)?
                }
            });
        }
        Ok(all)
    }

    /// What the other server has of a list.
    fn read_there(
        &mut self,
        to: &Redirection,
        owner: &Link,
        key: KeyOf,
        left: &mut usize,
        query: &KeysQuery<'_>,
    ) -> RedisResult<Vec<u8>> {
        let kept = self.target.take().filter(|it| to.leads_to(it, owner));
        let is_kept = kept.is_some();
        let mut target = match kept {
            Some(kept) => kept,
            None => to.open(owner, query.settings)?,
        };
        let replies = match ask(&mut target, key, left, query) {
            // It may have been closed meanwhile.
            Err(error) if is_kept && error.is_connection_dropped() => {
                target = to.open(owner, query.settings)?;
                ask(&mut target, key, left, query)?
            }
            outcome => outcome?,
        };
        let (from, there) = (owner.place(), target.place());
        // The key may exist or not: it cannot be read, but nobody has removed it.
        if let Some(error) = redirection(&replies)? {
            let error = describe(&error);
            return Err(io_error(format!(
                "{from} sends to {there} for {}, which sends elsewhere ({error}): the slot of the lists is open \
                 at one of them only; redis-cli --cluster fix {from} mends that",
                query.keyring.words(key)
            )));
        }
        self.target = Some(target);
        if !std::mem::replace(&mut self.is_open, true) {
            log::info!("redis-slot-open server={from:?} to={there:?}");
        }
        Ok(replies.concat())
    }
}

/// Asks for a key in every way; a server that is still importing the slot gets an ASKING each time.
fn ask(
    link: &mut Link,
    of: KeyOf,
    left: &mut usize,
    query: &KeysQuery<'_>,
) -> RedisResult<Vec<Vec<u8>>> {
    let commands = of.commands(query.keyring.key(of));
    let mut request = Vec::new();
    for command in &commands {
        request.extend(link.asking());
        request.extend(command.get_packed_command());
    }
    link.send(&request)?;
    let mut replies = Vec::new();
    for _ in &commands {
        link.receive_asked()?;
        let received = link.receive_lists(*left);
        let what = || query.keyring.words(of);
        let reply = received.map_err(|it| bounded(it, query.settings.max_reply, Some(&what())))?;
        *left = left.saturating_sub(reply.len());
        replies.push(reply);
    }
    Ok(replies)
}

/// The redirection among the replies. If only one is a redirection, the key has moved in between.
///
/// # Errors
/// When it is not a reply.
fn redirection(replies: &[Vec<u8>]) -> RedisResult<Option<RedisError>> {
    for reply in replies.iter().filter(|it| it.starts_with(b"-")) {
        if let Err(error) = redis::parse_redis_value(reply)?.extract_error()
            && Redirection::of(&error).is_some()
        {
            return Ok(Some(error));
        }
    }
    Ok(None)
}
