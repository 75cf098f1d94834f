//! Reading keys of services at one moment.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use redis::{RedisError, RedisResult, Value};

use super::errors::{bounded, io_error, is_of_open_slot, is_too_long, naming};
use super::extras::{ExtraReply, Extras};
use super::keyring::{KeyOf, Keyring, KeysQuery};
use super::link::Link;
use super::open_slot::OpenSlot;
use super::reply::Replies;
use super::rights::Rights;

use super::standing::{ServerStanding, StandingQuery};
use super::transaction;
use crate::lists::{ByList, ListName};
use crate::store::{Entries, Fault, Reading};

/// The server's answer about the keys of some services, unparsed.
pub(crate) struct KeysReply {
    /// The keys that it is about, in this order, service by service: of its release, lists, salt. Those that
    /// are missing are forbidden, or not wanted.
    keys: Vec<KeyOf>,
    bytes: Vec<u8>,
    places: Vec<PartPlace>,
    /// What the server says about itself, just before that.
    pub(crate) standing: ServerStanding,
}

/// Where the part of a service is.
struct PartPlace {
    service: usize,
    keys: Range<usize>,
    /// What is said of its release.
    ahead: Range<usize>,
    bytes: Range<usize>,
}

/// The part of an answer that is about one service.
pub(crate) struct ServicePart<'a> {
    pub(crate) service: usize,
    keys: &'a [KeyOf],
    /// The replies about its release.
    ahead: &'a [u8],
    /// The others.
    bytes: &'a [u8],
}

/// How often the keys are asked for: they may have been touched, some may be forbidden, and some elsewhere.
const TRIES: usize = 4;

/// A list is left out, so that the others can be read, if it takes more than this part of `max_reply`. Many
/// that are short would have to be left out one by one, each after a long answer.
const ALONE: usize = 4;

/// Asks until there is an answer, of `max_reply` bytes at most. Also returns whether the WATCHed keys
/// were untouched before. The server is asked for its standing in passing.
///
/// # Errors
/// When the server cannot be asked, or the answer is longer.
pub(crate) fn ask(
    link: &mut Link,
    slot: &mut OpenSlot,
    query: &KeysQuery<'_>,
    (rights, extras): (&mut Rights, &mut Extras),
    question: &mut StandingQuery,
) -> RedisResult<(KeysReply, bool)> {
    for at in 0..TRIES {
        if let Some(answer) = ask_once(link, slot, query, (rights, extras), question)? {
            rights.read(&answer.keys);
            // After the first try nothing is watched any more.
            return Ok((answer, at == 0));
        }
    }
    Err(io_error("the transaction was aborted"))
}

/// The keys to ask for.
fn keys_of(query: &KeysQuery<'_>, rights: &Rights, extras: &Extras) -> Vec<KeyOf> {
    let of = |service: &usize| {
        let ahead = extras.ahead(*service, query.keyring);
        let lists = query.keyring.lists(*service);
        ahead.chain(lists).chain(extras.with_lists(*service))
    };
    let keys = query.services.iter().flat_map(of);
    keys.filter(|it| rights.allow(*it)).collect()
}

/// Commands, with the key that each is about.
struct KeysPipe {
    pipe: redis::Pipeline,
    of: Vec<KeyOf>,
}

impl KeysPipe {
    fn of(keys: &[KeyOf], keyring: &Keyring) -> Self {
        let (mut pipe, mut all) = (redis::pipe(), Vec::new());
        for key in keys {
            for command in key.commands(keyring.key(*key)) {
                pipe.add_command(command);
                all.push(*key);
            }
        }
        Self { pipe, of: all }
    }

    /// A reply that is too long, with what it was about.
    fn bounded(&self, error: RedisError, most: usize, at: usize, keyring: &Keyring) -> RedisError {
        let what = self.of.get(at).map(|it| keyring.words(*it));
        bounded(error, most, what.as_deref())
    }
}

/// Whether the server does not let a key be read. That there is no such command says so, too, where lists can
/// be read without it.
fn is_refused(of: KeyOf, error: &RedisError) -> bool {
    match error.code() {
        Some("NOPERM") => true,
        Some("ERR") => !of.part.is_list(),
        _ => false,
    }
}

/// Asks for all keys in one transaction; `None` when a WATCHed key was touched, or some turned out to be
/// forbidden, or elsewhere.
fn ask_once(
    link: &mut Link,
    slot: &mut OpenSlot,
    query: &KeysQuery<'_>,
    (rights, extras): (&mut Rights, &mut Extras),
    question: &mut StandingQuery,
) -> RedisResult<Option<KeysReply>> {
    let (keyring, most) = (query.keyring, query.settings.max_reply);
    let keys = keys_of(query, rights, extras);
    let commands = KeysPipe::of(&keys, keyring);
    let mut request = question.packed().unwrap_or_default();
    let is_asked = !request.is_empty();
    request.extend(transaction::packed(link, &commands.pipe));
    link.send(&request)?;
    let standing = match is_asked {
        true => question.understand(link.receive()?.extract_error())?,
        false => ServerStanding::Settled,
    };
    let refusals = transaction::queued(link, &commands.pipe)?;
    let mut is_changed = false;
    for refusal in &refusals {
        let Some(of) = commands.of.get(refusal.at).copied() else {
            continue;
        };
        if !of.part.is_list() && extras.is_elsewhere(of, &refusal.error) {
            is_changed = true;
        } else if is_refused(of, &refusal.error) {
            rights.refused(of, keyring, &refusal.error);
            is_changed = true;
        }
    }
    let some_are_left = keys.iter().any(|it| it.part.is_list() && rights.allow(*it));
    if is_changed && (some_are_left || !query.is_about_all()) {
        return Ok(None);
    }
    let is_open = refusals.iter().any(|it| is_of_open_slot(&it.error));
    let bytes = match refusals.into_iter().next() {
        _ if is_open => slot.read(link, &keys, query)?,
        None => match receive(link, &commands, query, rights)? {
            bytes if are_across(&bytes, &keys, extras, keyring)? => None,
            // This may turn out only now, when all keys are checked together.
            bytes if is_refused_by_open_slot(&bytes)? => slot.read(link, &keys, query)?,
            bytes => {
                // An error says nothing of the slot.
                if refusal_of(&bytes)?.is_none() {
                    slot.close(link);
                }
                Some(bytes)
            }
        },
        // A server without free memory queues nothing, but still allows reading.
        Some(first) if first.error.code() == Some("OOM") => {
            read_one_by_one(link, &keys, &commands, most, keyring)?
        }
        Some(first) => {
            return Err(match commands.of.get(first.at) {
                Some(of) => naming(&first.error, &keyring.words(*of)),
                None => first.error,
            });
        }
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let Some(replies) = Replies::of(&bytes)? else {
        return Ok(None);
    };
    let places = places(replies, bytes.len(), &keys, query.services)?;
    Ok(Some(KeysReply {
        keys,
        bytes,
        places,
        standing,
    }))
}

/// Where the part of each of these `services` is among the `replies` about `keys`, which end at `end`.
fn places(
    mut replies: Replies<'_>,
    end: usize,
    keys: &[KeyOf],
    services: &[usize],
) -> RedisResult<Vec<PartPlace>> {
    let mut places = Vec::with_capacity(services.len());
    let mut key = 0;
    for service in services {
        let own = keys[key..].iter().take_while(|it| it.service == *service);
        let (mut count, mut commands, mut ahead) = (0, 0, 0);
        for it in own {
            match it.part.is_of_release() {
                true => ahead += it.count(),
                false => commands += it.count(),
            }
            count += 1;
        }
        let (first, begin) = (key, end - replies.rest().len());
        (0..ahead).try_for_each(|_| replies.skip())?;
        let start = end - replies.rest().len();
        key += count;
        // The last part ends where all does.
        let is_last = key == keys.len() && count > 0;
        if !is_last {
            (0..commands).try_for_each(|_| replies.skip())?;
        }
        let stop = match is_last {
            true => end,
            false => end - replies.rest().len(),
        };
        places.push(PartPlace {
            service: *service,
            keys: first..key,
            ahead: begin..start,
            bytes: start..stop,
        });
    }
    Ok(places)
}

/// The reply of EXEC. If one list is why it is too long, and there are other services, that list is left out
/// from now on.
fn receive(
    link: &mut Link,
    commands: &KeysPipe,
    query: &KeysQuery<'_>,
    rights: &mut Rights,
) -> RedisResult<Vec<u8>> {
    let (most, keyring) = (query.settings.max_reply, query.keyring);
    link.receive_lists(most).map_err(|error| {
        let (at, length) = link.longest();
        let list = commands.of.get(at).copied();
        if let Some(list) = list.filter(|it| it.part.is_list())
            && is_too_long(&error)
            && keyring.len() > 1
            && length > most / ALONE
        {
            rights.leave_out(list, query.settings.check_interval);
        }
        commands.bounded(error, most, link.reached(), keyring)
    })
}

/// EXEC's reply as an error, if it is one.
fn refusal_of(bytes: &[u8]) -> RedisResult<Option<RedisError>> {
    if !bytes.starts_with(b"-") {
        return Ok(None);
    }
    Ok(redis::parse_redis_value(bytes)?.extract_error().err())
}

/// True for EXEC's reply when some keys may be at another server.
fn is_refused_by_open_slot(bytes: &[u8]) -> RedisResult<bool> {
    Ok(refusal_of(bytes)?.is_some_and(|it| is_of_open_slot(&it)))
}

/// True for EXEC's reply when something is in another slot than the lists.
fn are_across(
    bytes: &[u8],
    keys: &[KeyOf],
    extras: &mut Extras,
    keyring: &Keyring,
) -> RedisResult<bool> {
    let refusal = refusal_of(bytes)?;
    let is_across = refusal.is_some_and(|it| it.code() == Some("CROSSSLOT"));
    Ok(is_across && extras.are_across(keys, keyring))
}

/// Runs the commands without a transaction, WATCHing the keys meanwhile. The replies are in the form of
/// EXEC's; `None` when a key was touched.
fn read_one_by_one(
    link: &mut Link,
    keys: &[KeyOf],
    commands: &KeysPipe,
    most: usize,
    keyring: &Keyring,
) -> RedisResult<Option<Vec<u8>>> {
    let watched: Vec<&str> = keys.iter().map(|it| keyring.key(*it)).collect();
    link.ask(redis::cmd("WATCH").arg(&watched))?;
    link.send(&commands.pipe.get_packed_pipeline())?;
    let mut replies = format!("*{}\r\n", commands.of.len()).into_bytes();
    for at in 0..commands.of.len() {
        let left = most.saturating_sub(replies.len());
        let reply = link.receive_lists(left);
        replies.extend(reply.map_err(|error| commands.bounded(error, most, at, keyring))?);
    }
    transaction::accepted(transaction::queue(link, &redis::pipe())?)?;
    let untouched = link.receive()? != Value::Nil;
    Ok(untouched.then_some(replies))
}

impl KeysReply {
    /// True when at least `count` entries may be in it.
    pub(crate) fn may_have(&self, count: usize) -> bool {
        // The shortest entry: `$7`, `1.1.1.1`, two line ends.
        self.bytes.len() >= count * 13
    }

    /// What is in it, service by service.
    pub(crate) fn parts(&self) -> impl Iterator<Item = ServicePart<'_>> {
        self.places.iter().map(|it| ServicePart {
            service: it.service,
            keys: &self.keys[it.keys.clone()],
            ahead: &self.bytes[it.ahead.clone()],
            bytes: &self.bytes[it.bytes.clone()],
        })
    }

    /// The same, unread.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.parts().map(|it| (it.service, it.bytes))
    }
}

impl ServicePart<'_> {
    /// Equal for equal answers about lists and salt, and practically never for different ones: it has 64
    /// bits, which nobody outside can predict.
    pub(crate) fn fingerprint(&self, salt: Option<&ExtraReply>, hasher: &RandomState) -> u64 {
        {
            let keys = self.keys.iter().filter(|it| !it.part.is_of_release());
            let keys: Vec<&KeyOf> = keys.collect();
            hasher.hash_one((keys, self.bytes, salt))
        }
    }

    /// What is said of its release, as far as that was asked for with the lists.
    pub(crate) fn release(&self) -> impl Iterator<Item = (KeyOf, RedisResult<ExtraReply>)> {
        let mut replies = Replies::from_first(self.ahead);
        let keys = self.keys.iter().filter(|it| it.part.is_of_release());
        keys.map(move |it| (*it, ExtraReply::of(replies.string())))
    }

    /// Some of its lists were asked for.
    pub(crate) fn has_lists(&self) -> bool {
        self.keys.iter().any(|it| it.part.is_list())
    }

    /// True when there is none of the lists that may be read.
    pub(crate) fn is_empty(&self) -> bool {
        let lists = self.keys.iter().filter(|it| it.part.is_list());
        let commands: usize = lists.map(|it| it.count()).sum();
        self.bytes.starts_with("*0\r\n".repeat(commands).as_bytes())
    }

    /// What that means: the lists, and the salt if it was asked for. A list that was not is forbidden, or too
    /// long; a gray list that is another service's is empty.
    ///
    /// # Errors
    /// When the server does not allow the keys to be read.
    pub(crate) fn reading(
        &self,
        keyring: &Keyring,
        rights: &Rights,
    ) -> RedisResult<(Reading, Option<RedisResult<ExtraReply>>)> {
        let mut replies = Replies::from_first(self.bytes);
        let mut next = |list: ListName| {
            let of = KeyOf::list(self.service, list);
            if list == ListName::Gray && !keyring.has_gray(self.service) {
                return Ok(Ok(Entries::default()));
            }
            if !self.keys.contains(&of) {
                return Ok(Err(rights.fault(of)));
            }
            let (as_list, as_set) = (replies.entries(), replies.entries());
            entries(as_list, as_set).map_err(|error| naming(&error, &keyring.words(of)))
        };
        let lists = ByList {
            gray: next(ListName::Gray)?,
            pre: next(ListName::Pre)?,
            prod: next(ListName::Prod)?,
        };
        let has_salt = self.keys.contains(&KeyOf::salt(self.service));
        let salt = has_salt.then(|| ExtraReply::of(replies.string()));
        Ok((lists, salt))
    }
}

/// The entries of a key that was read both as a list and as a set.
fn entries(
    as_list: RedisResult<Entries>,
    as_set: RedisResult<Entries>,
) -> RedisResult<Result<Entries, Fault>> {
    let is_wrong_type = |error: &RedisError| error.code() == Some("WRONGTYPE");
    match (as_list, as_set) {
        (Ok(list), _) => Ok(Ok(list)),
        (Err(_), Ok(set)) => Ok(Ok(set)),
        (Err(one), Err(other)) if is_wrong_type(&one) && is_wrong_type(&other) => {
            Ok(Err(Fault::WrongType))
        }
        (Err(error), Err(_)) => Err(error),
    }
}
