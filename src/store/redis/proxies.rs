//! Proxies in front of Redis that know no transactions: they are named, since nothing that they say
//! names them.
//!
//! Twemproxy closes the connection on each command that it does not know, without a word: MULTI,
//! WATCH, CONFIG, SUBSCRIBE, CLIENT, ROLE and SELECT among them; PING and AUTH it knows. Others answer with
//! an error. A connection that was cut before anything was read on it is thus looked into, with one command
//! on each of some connections; only a server that takes a PING before and after, and cuts each time on the
//! same command, is called a proxy.

use redis::{Cmd, RedisError, RedisResult};

use super::errors::{describe, io_error, is_refusal};
use super::link::Link;
use super::place::Finder;
use crate::config::{self, Address, Login, Notify};

/// What to do instead, where there are no transactions.
const REMEDY: &str = "the lists cannot be read at one moment by a proxy without transactions, as \
     twemproxy is; in url of [redis], name the Redis server itself, or its master for the Sentinels";

/// The error of a MULTI that was refused, in words that say what refuses it.
pub(crate) fn without_multi(error: RedisError) -> RedisError {
    // A right that is wanting is told as that.
    match error.code() {
        Some("NOPERM") => error,
        _ if is_refusal(&error) => {
            let error = describe(&error);
            io_error(format!("MULTI is refused ({error}): {REMEDY}"))
        }
        _ => error,
    }
}

/// What is to be said of an `error` that ended a connection on which nothing had been read: the
/// same, unless it can be found out that a proxy has cut it.
pub(crate) fn explained(
    error: RedisError,
    finder: &Finder,
    settings: &config::Redis,
) -> RedisError {
    if !is_cut(&error) {
        return error;
    }
    match finder.place(settings).map(|it| look(it, settings)) {
        Some(Ok(Some(found))) => io_error(found),
        // Nothing new, or it is away altogether.
        _ => error,
    }
}

/// On which command a proxy cuts the connection, and what to do; `None` where none does.
fn look(address: &Address, settings: &config::Redis) -> RedisResult<Option<String>> {
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
fn cuts_on(command: Cmd, address: &Address, settings: &config::Redis) -> RedisResult<bool> {
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
