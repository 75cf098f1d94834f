//! Errors of Redis: what they mean, and how they are worded.

use std::io;
use std::net::SocketAddr;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The library has no kind for this, and uses this kind only with its own connections.
const TOO_LONG: ErrorKind = ErrorKind::Client;

/// What is wrong, if no server has said so.
pub(crate) fn io_error(what: impl Into<String>) -> RedisError {
    RedisError::from(io::Error::other(what.into()))
}

/// An error in the server's own words, if it came from the server.
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

/// An error with the address at which it occurred.
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
        None => reworded(error, format!("{} (at {peer})", describe(error))),
    }
}

/// An error in other words. A lost connection stays recognizable as one.
pub(crate) fn reworded(error: &RedisError, words: String) -> RedisError {
    let is_lost = error.is_connection_dropped() && !error.is_connection_refusal();
    let kind = match is_lost {
        true => io::ErrorKind::ConnectionReset,
        false => io::ErrorKind::Other,
    };
    io::Error::new(kind, words).into()
}

/// An unexpected end of the connection.
pub(crate) fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the server has closed the connection",
    )
}

/// What a server says that currently answers no command at all, or none from this client.
const AWAY: [&str; 7] = [
    "BUSY",
    "CLUSTERDOWN",
    "DENIED",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "TRYAGAIN",
];

/// True when the client is authenticated, but this command is refused, for good or for now: the right is
/// missing (NOPERM), the server cannot save (MISCONF), or a proxy says so in its own words. The lists
/// may be readable all the same.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    // Which is not about the command.
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

/// The reply with the lists is longer than `max_reply`, which is `whole`; it may be known where the
/// limit was passed.
pub(crate) fn lists_too_long(whole: usize, list: Option<&str>) -> RedisError {
    let mut detail = format!("the lists have more than the {whole} bytes of max_reply");
    if let Some(list) = list {
        detail.push_str(&format!(" (reading {list})"));
    }
    RedisError::from((TOO_LONG, "too long", detail))
}

/// True when a reply was longer than allowed: its connection cannot be used any more.
pub(crate) fn is_too_long(error: &RedisError) -> bool {
    error.kind() == TOO_LONG
}

/// For a reply that is too long, an error that says what it is about; any other error as it is.
pub(crate) fn bounded(error: RedisError, most: usize, list: Option<&str>) -> RedisError {
    match is_too_long(&error) {
        true => lists_too_long(most, list),
        false => error,
    }
}

/// An error in reply to a command about one key, with what is in it.
pub(crate) fn naming(error: &RedisError, list: &str) -> RedisError {
    let Some(code) = error.code() else {
        return error.clone();
    };
    let detail = error.detail().unwrap_or_default();
    let detail = format!("{detail} (reading {list})");
    redis::make_extension_error(code.to_owned(), Some(detail))
}

/// True for what only a cluster says.
pub(crate) fn is_of_cluster(error: &RedisError) -> bool {
    let codes = ["ASK", "CLUSTERDOWN", "CROSSSLOT", "MOVED", "TRYAGAIN"];
    error.code().is_some_and(|it| codes.contains(&it))
}

/// True when a transaction is refused because the slot is being migrated.
pub(crate) fn is_of_open_slot(error: &RedisError) -> bool {
    matches!(error.code(), Some("ASK" | "TRYAGAIN"))
}

/// The reason for what the server neither refuses with an error nor grants.
pub(crate) fn refusal(what: &str) -> RedisError {
    let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
    RedisError::from((kind, "refused", what.to_owned()))
}

/// The error of a SELECT, with advice if the server is in a cluster.
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
