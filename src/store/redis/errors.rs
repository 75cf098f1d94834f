//! Errors of Redis: what they mean, and how they are told.

use std::io;
use std::net::SocketAddr;

use redis::{ErrorKind, RedisError};

use crate::lists::ListName;

/// The library has no such kind of its own, and this one only where its connections are used.
const TOO_LONG: ErrorKind = ErrorKind::Client;

/// What is wrong, where no server has said it.
pub(crate) fn io_error(what: impl Into<String>) -> RedisError {
    RedisError::from(io::Error::other(what.into()))
}

/// An error in the server's own words, if they are its words.
pub(crate) fn describe(error: &RedisError) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let detail = error.detail().unwrap_or_default();
    match error.code() {
        Some(code) => format!("{code} {detail}").trim_end().to_owned(),
        None if error.kind() == ErrorKind::AuthenticationFailed => {
            format!("authentication failed: {detail}")
        }
        None if is_too_long(error) => format!("too long: {detail}"),
        None => error.to_string(),
    }
}

/// An error, with the address at which it has come about.
pub(crate) fn at(error: &RedisError, peer: SocketAddr) -> RedisError {
    let detail = error.detail().unwrap_or_default();
    match error.code() {
        Some(code) => {
            let detail = format!("{detail} (at {peer})");
            redis::make_extension_error(code.to_owned(), Some(detail))
        }
        None if error.kind() == ErrorKind::AuthenticationFailed => {
            let detail = format!("{detail} (at {peer})");
            RedisError::from((error.kind(), "authentication failed", detail))
        }
        None => told(error, format!("{} (at {peer})", describe(error))),
    }
}

/// An error in other words. One that is a lost connection stays one.
pub(crate) fn told(error: &RedisError, words: String) -> RedisError {
    let is_lost = error.is_connection_dropped() && !error.is_connection_refusal();
    let kind = match is_lost {
        true => io::ErrorKind::ConnectionReset,
        false => io::ErrorKind::Other,
    };
    io::Error::new(kind, words).into()
}

/// An end where more was to come.
pub(crate) fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the server has closed the connection",
    )
}

/// What a server says that answers nothing at all at present, or nothing to who asks.
const AWAY: [&str; 7] = [
    "BUSY",
    "CLUSTERDOWN",
    "DENIED",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "TRYAGAIN",
];

/// True when the server knows who asks, and does not allow this command, or not now: for want of the
/// right (NOPERM), or of a place for what is written (MISCONF), or in words of a proxy. The lists may
/// be read all the same.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    // Which has nothing to do with the command.
    let is_full = error
        .detail()
        .is_some_and(|it| it.contains("max number of clients"));
    error.code().is_some_and(|it| !AWAY.contains(&it)) && !is_full
}

/// The reply is longer than allowed.
pub(crate) fn too_long(whole: usize) -> RedisError {
    let detail = format!("a reply has more than {whole} bytes");
    RedisError::from((TOO_LONG, "too long", detail))
}

/// The reply with the lists is longer than `max_reply`, which is `whole`; what has passed that is
/// known, or not.
pub(crate) fn lists_too_long(whole: usize, list: Option<&str>) -> RedisError {
    let mut detail = format!("the lists have more than the {whole} bytes of max_reply");
    if let Some(list) = list {
        detail.push_str(&format!(" (reading {list})"));
    }
    RedisError::from((TOO_LONG, "too long", detail))
}

/// True when a reply was longer than allowed: nothing more can be understood on its connection.
pub(crate) fn is_too_long(error: &RedisError) -> bool {
    error.kind() == TOO_LONG
}

/// A reply that is too long, with what that is about; another error as it is.
pub(crate) fn bounded(error: RedisError, most: usize, list: Option<ListName>) -> RedisError {
    match is_too_long(&error) {
        true => lists_too_long(most, list.map(ListName::name)),
        false => error,
    }
}

/// An error that was the reply to a command about one list, with its name.
pub(crate) fn naming(error: &RedisError, list: ListName) -> RedisError {
    let Some(code) = error.code() else {
        return error.clone();
    };
    let detail = error.detail().unwrap_or_default();
    let detail = format!("{detail} (reading {})", list.name());
    redis::make_extension_error(code.to_owned(), Some(detail))
}

/// True for what only a cluster says.
pub(crate) fn is_of_cluster(error: &RedisError) -> bool {
    let codes = ["ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED", "TRYAGAIN"];
    error.code().is_some_and(|it| codes.contains(&it))
}

/// True when a transaction is refused since the slot is open.
pub(crate) fn is_of_open_slot(error: &RedisError) -> bool {
    matches!(error.code(), Some("ASK" | "TRYAGAIN"))
}

/// The error of a SELECT, with what to do in a cluster.
pub(crate) fn of_select(error: RedisError) -> RedisError {
    match error.detail().is_some_and(|it| it.contains("cluster mode")) {
        true => {
            let words = describe(&error);
            io_error(format!(
                "{words}: it has database 0 alone, so url of [redis] ends with /0"
            ))
        }
        false => error,
    }
}
