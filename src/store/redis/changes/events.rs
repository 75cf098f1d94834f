//! Changes by keyspace events, on the exact channels of the keys.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{RedisError, RedisResult, Value};

use super::subscription::{AnnouncedChanges, HeardChanges, Subscription, follow, subscribe};
use crate::config;
use crate::store::redis::errors::{describe, is_refusal, refusal};
use crate::store::redis::keyring::{KeyOf, Keyring};
use crate::store::redis::link::Link;

/// The name of the server's setting.
const FLAGS: &str = "notify-keyspace-events";

/// How many channels are asked for at once.
const BATCH: usize = 500;

/// Makes sure that the server announces changes, without switching off what others have switched on.
pub(super) fn ask_for_events(reader: &mut Link) -> RedisResult<()> {
    let current = reader.ask(redis::cmd("CONFIG").arg("GET").arg(FLAGS))?;
    let current: Vec<String> = redis::from_redis_value(current).unwrap_or_default();
    // A name and a value; nothing where the server has no such setting.
    let Some(current) = current.get(1) else {
        return Err(refusal(
            "it does not know notify-keyspace-events (CONFIG GET)",
        ));
    };
    // Keyspace channels, and all kinds of commands.
    let mut merged = current.clone();
    merged.extend(['K', 'A'].iter().filter(|it| !current.contains(**it)));
    if merged != *current {
        let mut set = redis::cmd("CONFIG");
        reader.ask(set.arg("SET").arg(FLAGS).arg(&merged))?;
        log::info!("redis-events-enabled flags={merged}");
    }
    Ok(())
}

/// Subscribes to the keys' channels. That the accept key's is refused is logged once.
pub(super) fn hear_events(
    reader: &Link,
    settings: &config::RedisSettings,
    keyring: &Keyring,
    acceptance_refused: &mut bool,
) -> RedisResult<Subscription> {
    let db = settings.url.login().db;
    let channel = |key: &str| format!("__keyspace@{db}__:{key}");
    let mut channels = HashMap::new();
    let lists = keyring.all_lists();
    let lists = lists.map(|it| (channel(keyring.key(it)), it));
    let lists: Vec<(String, KeyOf)> = lists.collect();
    let mut link = reader.another(settings)?;
    for batch in lists.chunks(BATCH) {
        let names: Vec<&str> = batch.iter().map(|(name, _)| &**name).collect();
        subscribe(&mut link, &names)?;
    }
    // Without the channels of the others, their keys are still read at each check.
    match subscribe(&mut link, &[&channel(&settings.accept_key)]) {
        Err(error) if is_refusal(&error) => {
            if !std::mem::replace(acceptance_refused, true) {
                let (key, error) = (&settings.accept_key, describe(&error));
                log::warn!("accept-key-events-refused key={key:?} error={error:?}");
            }
        }
        outcome => outcome?,
    }
    let extras = keyring.everything().filter(|it| !it.part.is_list());
    let extras = extras.map(|it| (channel(keyring.key(it)), it));
    let extras: Vec<(String, KeyOf)> = extras.collect();
    let mut deaf = Vec::new();
    for batch in extras.chunks(BATCH) {
        deaf.extend(subscribe_each(&mut link, batch)?);
    }
    let known = lists.into_iter().chain(extras);
    channels.extend(known.map(|(name, of)| (name.into_bytes(), of)));
    let heard = Arc::new(HeardChanges::of_services(keyring.len()));
    let noted = Arc::clone(&heard);
    let hears = move |channel: &Value, event: &Value| {
        let Value::BulkString(name) = channel else {
            return Some(AnnouncedChanges::ALL);
        };
        // Otherwise it is the accept key.
        let Some(of) = channels.get(name) else {
            return Some(AnnouncedChanges::ACCEPTS);
        };
        noted.note(of, event);
        Some(AnnouncedChanges::of(*of))
    };
    let subscription = follow(link, heard, hears).map_err(RedisError::from)?;
    Ok(subscription.without(deaf))
}

/// Subscribes to each of these channels that the server allows to hear; returns what the others are of.
fn subscribe_each(link: &mut Link, channels: &[(String, KeyOf)]) -> RedisResult<Vec<KeyOf>> {
    let one = |(name, _): &(String, KeyOf)| redis::cmd("SUBSCRIBE").arg(name).get_packed_command();
    let request: Vec<u8> = channels.iter().flat_map(one).collect();
    link.send(&request)?;
    let mut refused = Vec::new();
    for (_, of) in channels {
        match link.receive()?.extract_error() {
            Err(error) if is_refusal(&error) => refused.push(*of),
            outcome => drop(outcome?),
        }
    }
    Ok(refused)
}
