//! Proxies in front of Redis without transactions: an error should name them, since they do not name
//! themselves.
//!
//! Twemproxy silently closes the connection on each command that it does not know, such as MULTI, WATCH,
//! CONFIG, SUBSCRIBE, CLIENT, ROLE and SELECT; it knows PING and AUTH. Other proxies answer with an
//! error. So when a connection was cut before anything was read on it, this is investigated with one
//! command on each of some connections. Only a server that accepts a PING before and after, and cuts the
//! connection on the same command each time, is called a proxy.

use redis::{Cmd, RedisError, RedisResult};

use super::errors::{describe, io_error, is_refusal};
use super::link::Link;
use super::place::Finder;
use crate::config::{self, Address, Login, Notify};

/// What to do if there are no transactions.
const REMEDY: &str = "the lists are read in one transaction, which a proxy such as twemproxy does not \
     support; in url of [redis], name the Redis server itself, or its master for the Sentinels";

/// The error of a refused MULTI, saying what has refused it.
pub(crate) fn without_multi(error: RedisError) -> RedisError {
    // A missing right is reported as such.
    match error.code() {
        Some("NOPERM") => error,
        _ if is_refusal(&error) => {
            let error = describe(&error);
            io_error(format!("MULTI is refused ({error}): {REMEDY}"))
        }
        _ => error,
    }
}

/// A better error for one that ended a connection on which nothing had been read: the same, unless a
/// proxy turns out to have cut it.
pub(crate) fn explained(
    error: RedisError,
    finder: &Finder,
    settings: &config::RedisSettings,
) -> RedisError {
    if !is_cut(&error) {
        return error;
    }
    match finder.place(settings).map(|it| look(it, settings)) {
        Some(Ok(Some(found))) => io_error(found),
        // Nothing new was learned, or the server is away altogether.
        _ => error,
    }
}

/// On which command a proxy cuts the connection, and what to do; `None` if there is no proxy.
fn look(address: &Address, settings: &config::RedisSettings) -> RedisResult<Option<String>> {
    if cuts_on(redis::cmd("MULTI"), address, settings)? {
        let what = format!("the connection is cut on MULTI: {REMEDY}");
        return Ok(Some(what));
    }
    let db = settings.url.login().db;
    if db != 0 && cuts_on(redis::cmd("SELECT").arg(db).clone(), address, settings)? {
        let what = "the connection is cut on SELECT: what answers is a proxy that knows only \
                    database 0; write /0 in url of [redis], or name the Redis server itself";
        return Ok(Some(what.to_owned()));
    }
    let config = redis::cmd("CONFIG").arg("GET").arg("maxmemory").clone();
    if settings.notify != Notify::Poll && cuts_on(config, address, settings)? {
        let what = "the connection is cut on CONFIG: what answers is a proxy that tells of no \
                    changes; write notify = poll in [redis], or name the Redis server itself in url";
        return Ok(Some(what.to_owned()));
    }
    Ok(None)
}

/// True when the connection is cut on this command, and a new one is accepted at once.
fn cuts_on(command: Cmd, address: &Address, settings: &config::RedisSettings) -> RedisResult<bool> {
    let login = Login {
        db: 0,
        ..settings.url.login().clone()
    };
    let open = || Link::open(address, &login, &settings.tls, settings.timeout);
    match open()?.ask(&command) {
        Err(error) if is_cut(&error) => open().map(|_| true),
        _ => Ok(false),
    }
}

/// True when the other side has ended the connection.
fn is_cut(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}
