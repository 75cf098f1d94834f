//! From the text of a value to what it means: numbers, sizes, times, addresses, paths.
//!
//! Every reader takes the whole value and says what is wrong with it and what is allowed. None
//! knows the key or the file.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::{Listen, LogTarget, Notify};
use crate::lists::gray_entry;

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) what: String,
    /// What would be right.
    pub(super) allowed: String,
}

/// What reading a value gives.
pub(super) type Reading<T> = Result<T, Wrong>;

/// A [`Wrong`] as a result.
pub(super) fn wrong<T>(what: impl Into<String>, allowed: impl Into<String>) -> Reading<T> {
    Err(Wrong {
        what: what.into(),
        allowed: allowed.into(),
    })
}

/// A value as an error may show it: on one line, of bounded length, and without a password.
pub(super) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    // A URL under the wrong key is still a secret.
    if value.contains("://") || value.contains('@') {
        return "(hidden)".to_owned();
    }
    let mut text: String = value.chars().take(LONGEST).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}

/// A whole number within `range`.
pub(super) fn count(range: RangeInclusive<usize>) -> impl Fn(&str) -> Reading<usize> {
    move |text| {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        match digits(text) {
            Some(Ok(number)) if range.contains(&number) => Ok(number),
            Some(_) => wrong("it is out of range", allowed),
            None => wrong("it is not a whole number", allowed),
        }
    }
}

/// The number that `text` is, if it is digits only; the inner error is one that is too large.
fn digits<N: std::str::FromStr>(text: &str) -> Option<Result<N, N::Err>> {
    // `parse` alone would admit a plus sign.
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse())
}

/// `auto`, which is one for each CPU that this process may use, or a number of threads.
pub(super) fn workers(text: &str) -> Reading<usize> {
    const MOST: usize = 256;
    if text == "auto" {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(cpus.min(MOST));
    }
    count(1..=MOST)(text).map_err(|error| Wrong {
        allowed: format!("auto, or {}", error.allowed),
        ..error
    })
}

/// A port.
pub(super) fn port(text: &str) -> Reading<u16> {
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
pub(super) fn duration(text: &str) -> Reading<Duration> {
    const ALLOWED: &str =
        "a whole number with its unit ms, s, m or h, as 500ms or 10s, from 1ms to 24h";
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
pub(super) fn duration_or_off(text: &str) -> Reading<Option<Duration>> {
    if text == "off" {
        return Ok(None);
    }
    duration(text).map(Some).map_err(|error| Wrong {
        allowed: format!("off, or {}", error.allowed),
        ..error
    })
}

/// An age in whole seconds, up to years; none for `unlimited`.
pub(super) fn age(text: &str) -> Reading<Option<Duration>> {
    const ALLOWED: &str =
        "unlimited, or a whole number with its unit s, m, h or d, as 12h or 30d, from 1s to 3650d";
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
fn bytes(text: &str) -> Result<u64, &'static str> {
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
pub(super) fn head_size(text: &str) -> Reading<usize> {
    let range = 1 << 10..=1 << 20;
    let fits = |bytes: u64| usize::try_from(bytes).ok().filter(|it| range.contains(it));
    bytes(text)
        .and_then(|bytes| fits(bytes).ok_or("it is out of range"))
        .or_else(|what| wrong(what, "bytes, or a number with k or m, from 1k to 1m"))
}

/// The size of an answer of Redis: 64 KiB to 4 GiB.
pub(super) fn reply_size(text: &str) -> Reading<usize> {
    let range = 64 << 10..=4 << 30;
    let fits = |bytes: u64| {
        usize::try_from(bytes)
            .ok()
            .filter(|_| range.contains(&bytes))
    };
    bytes(text)
        .and_then(|bytes| fits(bytes).ok_or("it is out of range"))
        .or_else(|what| wrong(what, "bytes, or a number with k, m or g, from 64k to 4g"))
}

/// The size of a body, or none for `unlimited`.
pub(super) fn body_size(text: &str) -> Reading<Option<u64>> {
    const ALLOWED: &str = "unlimited, or bytes, or a number with k, m or g, from 1 on";
    match bytes(text) {
        _ if text == "unlimited" => Ok(None),
        // Elsewhere 0 means without limit, so that it is not safe to take it at its word.
        Ok(0) => wrong("it is 0, which could be meant in two ways", ALLOWED),
        Ok(bytes) => Ok(Some(bytes)),
        Err(what) => wrong(what, ALLOWED),
    }
}

/// A pace in bytes a second, or none for `off`.
pub(super) fn rate(text: &str) -> Reading<Option<NonZeroU64>> {
    const ALLOWED: &str = "off, or bytes a second, or a number with k, m or g, from 1 on";
    match bytes(text) {
        _ if text == "off" => Ok(None),
        Ok(bytes) => match NonZeroU64::new(bytes) {
            None => wrong("it is 0, which could be meant in two ways", ALLOWED),
            rate => Ok(rate),
        },
        Err(what) => wrong(what, ALLOWED),
    }
}

/// Addresses with ports, at least one and each one once.
/// `proxy` behind an address: connections begin with a PROXY protocol header.
pub(super) fn listen(text: &str) -> Reading<Vec<Listen>> {
    const ALLOWED: &str = "IP addresses with a port, separated by commas, as 0.0.0.0:80 or [::]:80; \
                           behind each, `proxy` or nothing";
    let mut all: Vec<Listen> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let bare = item
            .strip_suffix("proxy")
            .filter(|bare| bare.ends_with([' ', '\t']));
        let addr = address(bare.unwrap_or(item).trim()).or_else(|what| wrong(what, ALLOWED))?;
        match all.iter().find(|it| overlap(it.addr, addr)) {
            Some(it) if it.addr == addr => {
                return wrong(format!("{addr} stands there twice"), ALLOWED);
            }
            Some(Listen { addr: other, .. }) => {
                return wrong(
                    format!("{other} and {addr} are in each other's way"),
                    ALLOWED,
                );
            }
            None => {}
        }
        let proxy = bare.is_some();
        all.push(Listen { addr, proxy });
    }
    Ok(all)
}

/// Whether two listeners on these addresses would be in each other's way. An unspecified address is
/// every address of its family. Any number of listeners can ask for a free port.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (any || one == other)
}

/// An address with a port, or `off`.
pub(super) fn address_or_off(text: &str) -> Reading<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    let allowed = "off, or an IP address with a port, as 127.0.0.1:9180 or [::1]:9180";
    address(text).map(Some).or_else(|what| wrong(what, allowed))
}

/// One address with its port; `Err` says what is wrong.
fn address(text: &str) -> Result<SocketAddr, String> {
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

/// Names of hosts, in lower case; none when empty.
pub(super) fn hosts(text: &str) -> Reading<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let read = |item: &str| {
        let name = item.trim().trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(plain) {
            let what = format!("`{}` is no name of a host", shown(item.trim()));
            return wrong(
                what,
                "names without a port, separated by commas, as gw-1.example.net",
            );
        }
        Ok(name)
    };
    text.split(',').map(read).collect()
}

/// Addresses or CIDRs; none when empty.
pub(super) fn networks(text: &str) -> Reading<Vec<IpNet>> {
    const ALLOWED: &str =
        "IP addresses or CIDRs, separated by commas, as 10.0.0.1, 10.0.0.0/8 or fd00::/8";
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let read = |item: &str| {
        // As strictly as those of the gray list, and in the same form.
        gray_entry(item.trim()).or_else(|_| {
            let item = shown(item.trim());
            wrong(format!("`{item}` is not an address or CIDR"), ALLOWED)
        })
    };
    text.split(',').map(read).collect()
}

/// A path, taken from the folder `base` on; none when empty.
pub(super) fn path(base: &Path) -> impl Fn(&str) -> Reading<Option<PathBuf>> {
    move |text| {
        if text.contains("://") {
            return wrong("it is a URL", "the path of a file");
        }
        Ok((!text.is_empty()).then(|| base.join(text)))
    }
}

/// Where a log goes.
pub(super) fn log_target(base: &Path) -> impl Fn(&str) -> Reading<LogTarget> {
    const ALLOWED: &str =
        "off, stdout (or -), stderr, or the path of a file, with a / or ending in .log";
    move |text| match text {
        "off" => Ok(LogTarget::Off),
        "-" | "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        // `Off`, `"off"` or `syslog` was hardly meant to be a file.
        _ if !(text.is_empty() || text.contains('/') || text.ends_with(".log")) => wrong(
            "it is neither a word for this key nor the path of a log",
            ALLOWED,
        ),
        _ => match path(base)(text) {
            Ok(Some(path)) => Ok(LogTarget::File(path)),
            Ok(None) => wrong("it is empty", ALLOWED),
            Err(error) => wrong(error.what, ALLOWED),
        },
    }
}

/// A number of lines, or none for `unlimited`.
pub(super) fn lines(text: &str) -> Reading<Option<u32>> {
    const ALLOWED: &str = "unlimited, or a whole number from 1 to 1000000";
    if text == "unlimited" {
        return Ok(None);
    }
    let Some(lines) = digits::<u32>(text) else {
        return wrong("it is not a number", ALLOWED);
    };
    match lines.ok().filter(|it| (1..=1_000_000).contains(it)) {
        Some(lines) => Ok(Some(lines)),
        None => wrong("it is out of range", ALLOWED),
    }
}

/// The level of the error log.
pub(super) fn level(text: &str) -> Reading<log::LevelFilter> {
    one_of(
        text,
        &[
            ("error", log::LevelFilter::Error),
            ("warn", log::LevelFilter::Warn),
            ("info", log::LevelFilter::Info),
            ("debug", log::LevelFilter::Debug),
        ],
    )
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Reading<bool> {
    one_of(text, &[("on", true), ("off", false)])
}

/// Whether something that is out of the ordinary passes.
pub(super) fn raw_target(text: &str) -> Reading<bool> {
    one_of(text, &[("pass", true), ("refuse", false)])
}

/// How changes of the lists are learned of.
pub(super) fn notify(text: &str) -> Reading<Notify> {
    one_of(
        text,
        &[
            ("auto", Notify::Auto),
            ("events", Notify::Events),
            ("tracking", Notify::Tracking),
            ("poll", Notify::Poll),
        ],
    )
}

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Reading<T> {
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            wrong("it is none of the words for this key", words.join(", "))
        }
    }
}

/// A time between two heartbeats, or none for `off`.
pub(super) fn heartbeat(text: &str) -> Reading<Option<Duration>> {
    const LEAST: Duration = Duration::from_millis(100);
    match duration_or_off(text)? {
        Some(time) if time < LEAST => wrong(
            "it is less than 100ms",
            "off, or a time from 100ms on, as 2s",
        ),
        time => Ok(time),
    }
}

/// The name of a gateway; the host's when empty.
pub(super) fn node(text: &str) -> Reading<String> {
    const LONGEST: usize = 128;
    if text.is_empty() {
        let host = nix::unistd::gethostname().unwrap_or_default();
        return Ok(node_of_host(&host.to_string_lossy()));
    }
    if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let allowed = "1 to 128 printable ASCII characters, no spaces; or nothing: the host's name";
        return wrong("it is no name of a gateway", allowed);
    }
    Ok(text.to_owned())
}

/// Whatever the host is called, it does not keep a gateway from starting.
fn node_of_host(host: &str) -> String {
    let fits = |it: char| if it.is_ascii_graphic() { it } else { '_' };
    let name: String = host.chars().map(fits).collect();
    if name.is_empty() {
        return "localhost".to_owned();
    }
    name
}

/// The name of a server as a certificate holds it; none when empty.
pub(super) fn server_name(text: &str) -> Reading<Option<String>> {
    if rustls::pki_types::ServerName::try_from(text).is_err() && !text.is_empty() {
        return wrong(
            "it is no name of a host",
            "a host's name or an IP address, as redis.example, without a port",
        );
    }
    optional_name(text)
}

/// A name that must be there.
pub(super) fn name(text: &str) -> Reading<String> {
    if text.is_empty() {
        return wrong("it is empty", "a name");
    }
    Ok(text.to_owned())
}

/// A name, or none when empty.
pub(super) fn optional_name(text: &str) -> Reading<Option<String>> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
