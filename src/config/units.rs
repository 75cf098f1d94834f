//! Parsers of values: numbers, sizes, times, addresses, paths.
//!
//! Every parser takes the whole value, and says what is wrong with it and what is allowed. None of them
//! knows the key or the file.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::error::{ValueResult, WrongValue, shown, wrong};
use crate::lists::net_entry;

/// A whole number within `range`.
pub(super) fn count<N>(text: &str, range: RangeInclusive<N>) -> ValueResult<N>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let allowed = format!("a whole number from {} to {}", range.start(), range.end());
    match digits(text) {
        Some(Ok(number)) if range.contains(&number) => Ok(number),
        Some(_) => wrong("it is out of range", allowed),
        None => wrong("it is not a whole number", allowed),
    }
}

/// The number that `text` is, if it is digits only; the inner error is one that is too large.
pub(super) fn digits<N: std::str::FromStr>(text: &str) -> Option<Result<N, N::Err>> {
    // `parse` alone would accept a plus sign.
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse())
}

/// A number of threads, or `auto`: one for each CPU that this process may use.
pub(super) fn workers(text: &str) -> ValueResult<usize> {
    const MOST: usize = 256;
    if text == "auto" {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(cpus.min(MOST));
    }
    count(text, 1..=MOST).map_err(|error| WrongValue {
        allowed: format!("auto, or {}", error.allowed),
        ..error
    })
}

/// Statuses of failed requests, separated by commas.
pub(super) fn statuses(text: &str) -> ValueResult<Vec<u16>> {
    let each = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    each.map(|it| match digits(it) {
        Some(Ok(status)) if (400..600).contains(&status) => Ok(status),
        _ => wrong(
            "it is not a status of a failure",
            "statuses from 400 to 599, separated by commas",
        ),
    })
    .collect()
}

/// A port.
pub(super) fn port(text: &str) -> ValueResult<u16> {
    match digits(text) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ => wrong("it is not a port", "a whole number from 1 to 65535"),
    }
}

/// Splits a number from its unit.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|it: char| !it.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// A time: a whole number with its unit, never 0.
pub(super) fn duration(text: &str) -> ValueResult<Duration> {
    const ALLOWED: &str =
        "a whole number with its unit ms, s, m or h, such as 500ms or 10s, from 1ms to 24h";
    const LONGEST: u64 = 24 * 60 * 60 * 1000;
    let (number, unit) = split_unit(text);
    let Some(number) = digits::<u64>(number) else {
        return wrong("it is not a time", ALLOWED);
    };
    if number == Ok(0) {
        return wrong("it is 0, and every wait needs a deadline", ALLOWED);
    }
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "" => return wrong("it has no unit", ALLOWED),
        _ => return wrong("its unit is unknown", ALLOWED),
    };
    let millis = number.ok().and_then(|number| number.checked_mul(scale));
    match millis.filter(|millis| *millis <= LONGEST) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => wrong("it is longer than 24h", ALLOWED),
    }
}

/// A time, or none for `off`.
pub(super) fn duration_or_off(text: &str) -> ValueResult<Option<Duration>> {
    if text == "off" {
        return Ok(None);
    }
    duration(text).map(Some).map_err(|error| WrongValue {
        allowed: format!("off, or {}", error.allowed),
        ..error
    })
}

/// An age in whole seconds, up to years; none for `unlimited`.
pub(super) fn age(text: &str) -> ValueResult<Option<Duration>> {
    const ALLOWED: &str = "unlimited, or a whole number with its unit s, m, h or d, such as 12h or 30d, from 1s to 3650d";
    const DAY: u64 = 24 * 60 * 60;
    if text == "unlimited" {
        return Ok(None);
    }
    let (number, unit) = split_unit(text);
    let Some(number) = digits::<u64>(number) else {
        return wrong("it is not an age", ALLOWED);
    };
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => DAY,
        "" => return wrong("it has no unit", ALLOWED),
        _ => return wrong("its unit is unknown", ALLOWED),
    };
    let seconds = number.ok().and_then(|number| number.checked_mul(scale));
    match seconds.filter(|it| (1..=3650 * DAY).contains(it)) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => wrong("it is out of range", ALLOWED),
    }
}

/// A number of bytes; `Err` says what is wrong.
pub(super) fn bytes(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split_unit(text);
    let number = digits::<u64>(number).ok_or("it is not a size")?;
    let scale = match unit {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err("its unit is unknown"),
    };
    let bytes = number.ok().and_then(|number| number.checked_mul(scale));
    bytes.ok_or("it is out of range")
}

/// The size of a head or of a line in it: 1 KiB to 1 MiB.
pub(super) fn head_size(text: &str) -> ValueResult<usize> {
    let range = 1 << 10..=1 << 20;
    let fits = |bytes: u64| usize::try_from(bytes).ok().filter(|it| range.contains(it));
    bytes(text)
        .and_then(|bytes| fits(bytes).ok_or("it is out of range"))
        .or_else(|what| wrong(what, "bytes, or a number with k or m, from 1k to 1m"))
}

/// The size of a body, or none for `unlimited`.
pub(super) fn body_size(text: &str) -> ValueResult<Option<u64>> {
    const ALLOWED: &str = "unlimited, or bytes, or a number with k, m or g, from 1 on";
    match bytes(text) {
        _ if text == "unlimited" => Ok(None),
        // Elsewhere 0 means unlimited, so it is not safe to take it literally.
        Ok(0) => wrong("it is 0, which is ambiguous", ALLOWED),
        Ok(bytes) => Ok(Some(bytes)),
        Err(what) => wrong(what, ALLOWED),
    }
}

/// A pace in bytes a second, or none for `off`.
pub(super) fn rate(text: &str) -> ValueResult<Option<NonZeroU64>> {
    const ALLOWED: &str = "off, or bytes a second, or a number with k, m or g, from 1 on";
    match bytes(text) {
        _ if text == "off" => Ok(None),
        Ok(bytes) => match NonZeroU64::new(bytes) {
            None => wrong("it is 0, which is ambiguous", ALLOWED),
            rate => Ok(rate),
        },
        Err(what) => wrong(what, ALLOWED),
    }
}

/// Whether two listeners on these addresses would conflict. An unspecified address stands for every
/// address of its family. Any number of listeners can ask for a free port.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (any || one == other)
}

/// One address with its port; `Err` says what is wrong.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    Err(if text.is_empty() {
        "an address is missing".to_owned()
    } else if digits::<u64>(text).is_some() {
        format!("{} is a port without an address", shown(text))
    } else if text.parse::<IpAddr>().is_ok() {
        format!("{} is an address without a port", shown(text))
    } else {
        format!("{} is not an IP address with a port", shown(text))
    })
}

/// Addresses or CIDRs; none when empty.
pub(super) fn networks(text: &str) -> ValueResult<Vec<IpNet>> {
    const ALLOWED: &str =
        "IP addresses or CIDRs, separated by commas, such as 10.0.0.1, 10.0.0.0/8 or fd00::/8";
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let read = |item: &str| {
        // As strict as in the gray list, and in the same form.
        net_entry(item.trim()).or_else(|_| {
            let item = shown(item.trim());
            wrong(format!("`{item}` is not an address or CIDR"), ALLOWED)
        })
    };
    text.split(',').map(read).collect()
}

/// A path, relative to the folder `base`; `None` if empty.
pub(super) fn path(text: &str, base: &Path) -> ValueResult<Option<PathBuf>> {
    if text.contains("://") {
        return wrong("it is a URL", "the path of a file");
    }
    Ok((!text.is_empty()).then(|| base.join(text)))
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> ValueResult<bool> {
    one_of(text, &[("on", true), ("off", false)])
}

pub(super) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> ValueResult<T> {
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            wrong("it is not one of the values of this key", words.join(", "))
        }
    }
}

/// A name that is required.
pub(super) fn name(text: &str) -> ValueResult<String> {
    if text.is_empty() {
        return wrong("it is empty", "a name");
    }
    Ok(text.to_owned())
}

/// A name, or none when empty.
pub(super) fn optional_name(text: &str) -> ValueResult<Option<String>> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
