//! Changes by client tracking in broadcast mode: the server names the changed keys that begin with one of
//! some prefixes.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{RedisResult, Value};

use super::subscription::{AnnouncedChanges, Subscription, follow, subscribe};
use crate::config;
use crate::store::redis::errors::{is_refusal, refusal};
use crate::store::redis::keyring::{KeyOf, Keyring};
use crate::store::redis::link::Link;

/// The channel on which a server tells RESP2 clients what was changed.
const INVALIDATIONS: &str = "__redis__:invalidate";

/// How many prefixes are tracked: at each write by anybody, the server compares the key with each of them.
const MOST_PREFIXES: usize = 128;

/// Has the server tell a subscription of the keys that the reader wants to know about. Also returns the id by
/// which the server knows the connection that receives for the reader.
pub(super) fn track(
    reader: &mut Link,
    settings: &config::RedisSettings,
    keyring: &Keyring,
) -> RedisResult<(i64, Subscription)> {
    let owned = |it: KeyOf| (keyring.key(it).as_bytes().to_vec(), Some(it));
    let keys = keyring.everything().map(owned);
    let accept_key = (settings.accept_key.as_bytes().to_vec(), None);
    let keys: HashMap<Vec<u8>, Option<KeyOf>> = keys.chain([accept_key]).collect();
    let mut link = reader.another(settings)?;
    let id = link.ask(redis::cmd("CLIENT").arg("ID"))?;
    let id: i64 = redis::from_redis_value(id)?;
    subscribe(&mut link, &[INVALIDATIONS])?;
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON");
    tracking.arg("REDIRECT").arg(id).arg("BCAST");
    for prefix in prefixes(keys.keys().map(|it| &**it)) {
        tracking.arg("PREFIX").arg(prefix);
    }
    reader.ask(&tracking)?;
    if !is_tracking(reader, id)? {
        // Something in between the two behaves differently.
        let what = "it tracks nothing although it has accepted to (CLIENT GETREDIR)";
        return Err(refusal(what));
    }
    let hears = move |_: &Value, payload: &Value| named(payload, &keys);
    let subscription = follow(link, Arc::default(), hears)?;
    Ok((id, subscription))
}

/// Asks the server whether the reader's invalidations go where they should. Without the right to
/// ask, the full check must do.
pub(super) fn is_tracking(reader: &mut Link, redirected_to: i64) -> RedisResult<bool> {
    match reader.ask(redis::cmd("CLIENT").arg("GETREDIR")) {
        Ok(Value::Int(id)) => Ok(id == redirected_to),
        Ok(_) => Ok(false),
        Err(error) if is_refusal(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Prefixes that cover the keys, as long as can be if there are to be [`MOST_PREFIXES`]. None begins with
/// another one, which the server would refuse.
fn prefixes<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut keys: Vec<&[u8]> = keys.collect();
    // What begins with a key follows it.
    keys.sort_unstable();
    let mut shortest: Vec<&[u8]> = Vec::new();
    for key in keys {
        if shortest.last().is_none_or(|it| !key.starts_with(it)) {
            shortest.push(key);
        }
    }
    match shortest.len() > MOST_PREFIXES {
        true => common_beginnings(&shortest, MOST_PREFIXES),
        false => shortest,
    }
}

/// At most so many prefixes that cover `keys`, which are sorted: those stand together that have the longest
/// beginnings in common.
fn common_beginnings<'a>(keys: &[&'a [u8]], most: usize) -> Vec<&'a [u8]> {
    let common = |pair: &[&[u8]]| {
        let both = pair[0].iter().zip(pair[1]);
        both.take_while(|(one, other)| one == other).count()
    };
    let mut lengths: Vec<usize> = keys.windows(2).map(common).collect();
    lengths.sort_unstable();
    // Where two that follow each other have less in common, a new prefix begins: at most one less than there
    // may be.
    let least = lengths
        .get(most.saturating_sub(1))
        .copied()
        .unwrap_or(usize::MAX);
    let groups = keys.chunk_by(|one, other| common(&[one, other]) >= least);
    let beginning = |group: &[&'a [u8]]| {
        let (first, last) = (group[0], group[group.len() - 1]);
        match group.len() {
            1 => first,
            // All between them have that in common, too.
            _ => &first[..common(&[first, last])],
        }
    };
    groups.map(beginning).collect()
}

/// What of `keys` an invalidation is about: it names keys, or nothing after a flush. A key without a service
/// is the accept key.
fn named(payload: &Value, keys: &HashMap<Vec<u8>, Option<KeyOf>>) -> Option<AnnouncedChanges> {
    let names = match payload {
        Value::Array(names) => names,
        Value::Nil => return Some(AnnouncedChanges::ALL),
        _ => return None,
    };
    let mut announced = AnnouncedChanges::default();
    for name in names {
        let Value::BulkString(name) = name else {
            continue;
        };
        match keys.get(name) {
            Some(Some(key)) => announced.note(*key),
            Some(None) => announced.accepts = true,
            None => {}
        }
    }
    (!announced.is_empty()).then_some(announced)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lists::ListName;

    #[test]
    fn no_prefix_begins_with_another() {
        for (keys, expected) in [
            (["gray", "pre", "prod"], &["gray", "pre", "prod"][..]),
            (["p", "pre", "prod"], &["p"]),
            (["list", "list:pre", "prod"], &["list", "prod"]),
            (["a:b:c", "a:b", "a"], &["a"]),
            (["a", "a-b", "a:b"], &["a"]),
            (["a:b", "a-b", "a:b"], &["a-b", "a:b"]),
        ] {
            let found = prefixes(keys.iter().map(|it| it.as_bytes()));
            let expected: Vec<&[u8]> = expected.iter().map(|it| it.as_bytes()).collect();
            assert_eq!(found, expected, "{keys:?}");
        }
    }

    #[test]
    fn the_prefixes_of_many_keys_are_few_and_cover_all_of_them() {
        for (keys, most, expected) in [
            (&["a", "b", "c"][..], 3, &["a", "b", "c"][..]),
            (&["a:x", "a:y", "b:x", "b:y"], 2, &["a:", "b:"]),
            (&["a:x", "a:y", "b:x", "b:y"], 3, &["a:", "b:"]),
            (&["a:x", "a:y", "b:x", "b:y"], 1, &[""]),
            (&["s1:pre", "s1:prod", "s2:x"], 2, &["s1:pr", "s2:x"]),
            (&["ab", "bb1", "bb2", "bc"], 3, &["ab", "bb", "bc"]),
        ] {
            let keys: Vec<&[u8]> = keys.iter().map(|it| it.as_bytes()).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|it| it.as_bytes()).collect();
            assert_eq!(common_beginnings(&keys, most), expected, "{keys:?} {most}");
        }
        let parts = ["gray", "pre", "prod", "salt"].into_iter();
        let keys = |service: usize| parts.clone().map(move |it| format!("shop-{service}:{it}"));
        let keys: Vec<String> = (0..1000).flat_map(keys).collect();
        let few = prefixes(keys.iter().map(|it| it.as_bytes()));
        assert!((50..=MOST_PREFIXES).contains(&few.len()), "{}", few.len());
        for key in &keys {
            let begins = few.iter().filter(|it| key.as_bytes().starts_with(it));
            assert_eq!(begins.count(), 1, "{key}");
        }
        for (at, one) in few.iter().enumerate() {
            let others = few.iter().enumerate().filter(|(it, _)| *it != at);
            assert_eq!(others.filter(|(_, it)| it.starts_with(one)).count(), 0);
        }
    }

    #[test]
    fn an_invalidation_is_about_the_services_whose_keys_it_names_or_about_all() {
        let keys = [
            ("p", Some(KeyOf::salt(0))),
            ("pre", Some(KeyOf::list(0, ListName::Pre))),
            ("shop:pre", Some(KeyOf::list(7, ListName::Pre))),
            ("tripped", Some(KeyOf::tripped(3))),
            ("release", Some(KeyOf::release(7))),
            ("accept", None),
        ];
        let keys = keys.map(|(key, service)| (key.as_bytes().to_vec(), service));
        let keys = HashMap::from(keys);
        let names = |names: &[&str]| {
            let names = names
                .iter()
                .map(|it| Value::BulkString(it.as_bytes().to_vec()));
            Value::Array(names.collect())
        };
        let of = |services: &[usize]| AnnouncedChanges {
            all: false,
            accepts: false,
            services: services.iter().copied().collect(),
            releases: BTreeSet::new(),
        };
        let releases = |of: AnnouncedChanges, releases: &[usize]| AnnouncedChanges {
            releases: releases.iter().copied().collect(),
            ..of
        };
        let both = named(&names(&["tripped", "release"]), &keys).unwrap();
        assert_eq!(both, releases(of(&[]), &[3, 7]));
        assert!(both.are_of_releases());
        let more = named(&names(&["release", "shop:pre"]), &keys).unwrap();
        assert_eq!(more, releases(of(&[7]), &[7]));
        assert!(!more.are_of_releases() && more.about().eq([7]));
        assert_eq!(named(&names(&["pre"]), &keys), Some(of(&[0])));
        assert_eq!(named(&names(&["prefix", "p"]), &keys), Some(of(&[0])));
        assert_eq!(named(&names(&["shop:pre", "p"]), &keys), Some(of(&[0, 7])));
        assert_eq!(named(&Value::Nil, &keys), Some(AnnouncedChanges::ALL));
        assert_eq!(
            named(&names(&["accept"]), &keys),
            Some(AnnouncedChanges::ACCEPTS)
        );
        for other in [names(&["prefix", "pr", "P"]), names(&[]), Value::Okay] {
            assert_eq!(named(&other, &keys), None, "{other:?}");
        }
    }
}
