//! An emptied list is believed only once it is known to have stood empty, however slow the server is
//! and whatever has become of the connection meanwhile.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{DEADLINE, Gateway, ScriptedRedis, Setup, texts, wait_until};

/// How long `pre` must have been empty to count as empty.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How long other lists are kept back for one that may settle.
const MOST_WITHHELD: Duration = Duration::from_millis(1500);

const LOADING: &str = "-LOADING Redis is loading the dataset in memory";

/// What a server has at one moment.
#[derive(Clone, Copy)]
struct Lists {
    gray: &'static str,
    pre: &'static [&'static str],
}

const PRE: &[&str] = &["127.0.1.1:9"];

const NEW_PRE: &[&str] = &["127.0.1.2:9"];

/// A server whose keys nobody touches while they are WATCHed. A reading is a transaction.
#[derive(Default)]
struct Server {
    /// Readings so far.
    readings: usize,
    /// When the last one was answered.
    read: Option<Instant>,
    /// When WATCH was last answered.
    watched: Option<Instant>,
    /// A reading came so late that what was found empty may have settled.
    is_late: bool,
    in_transaction: bool,
}

impl Server {
    /// The reply to a command, where a reading finds these lists.
    fn reply(&mut self, command: &str, lists: Lists) -> String {
        match command {
            "MULTI" => {
                self.in_transaction = true;
                let late = |since: Instant| since.elapsed() > SETTLE_TIME * 9 / 10;
                self.is_late |= self.watched.take().is_some_and(late);
                "+OK".to_owned()
            }
            "EXEC" => {
                self.in_transaction = false;
                self.readings += 1;
                self.read = Some(Instant::now());
                let lists = [&[lists.gray][..], lists.pre, &["127.0.2.1:9"]];
                let both = lists.map(|it| format!("\r\n{}\r\n-WRONGTYPE no set", texts(it)));
                format!("*6{}", both.concat())
            }
            _ if self.in_transaction => "+QUEUED".to_owned(),
            "WATCH" => {
                self.watched = Some(Instant::now());
                "+OK".to_owned()
            }
            "PING" => "+OK".to_owned(),
            _ => "-ERR unknown command".to_owned(),
        }
    }

    /// The time since the last reading.
    fn since_reading(&self) -> Duration {
        self.read.map_or(Duration::ZERO, |it| it.elapsed())
    }
}

/// A server with this script, and a gateway that polls it.
#[track_caller]
fn polled(
    mut script: impl FnMut(&mut Server, &str) -> String + Send + 'static,
) -> (Arc<Mutex<Server>>, Gateway) {
    let server = Arc::new(Mutex::new(Server::default()));
    let scripted = Arc::clone(&server);
    let redis = ScriptedRedis::start(move |command| {
        let mut server = scripted.lock().unwrap();
        script(&mut server, command[0])
    });
    let gateway = Setup::new()
        .redis(redis.url())
        .set("redis.notify", "poll")
        .set("redis.poll_interval", "50ms")
        .set("redis.timeout", "5s")
        .set("redis.heartbeat", "off")
        .set("verdict.mode", "off")
        .start();
    (server, gateway)
}

#[test]
fn a_list_is_empty_only_after_it_was_watched_for_long_enough_however_long_the_server_takes() {
    // Meanwhile others may have filled the list and emptied it again: before it was WATCHed, or after
    // it was read.
    for slow in ["WATCH", "EXEC"] {
        let (server, gateway) = polled(move |server, command| {
            if command == slow && server.readings == 2 {
                wait_until("the server has time", DEADLINE, || {
                    server.since_reading() > SETTLE_TIME * 11 / 10
                });
            }
            // Found empty twice in a row.
            let pre = match server.readings {
                1 | 2 => &[],
                _ => PRE,
            };
            let gray = "127.0.0.5";
            server.reply(command, Lists { gray, pre })
        });
        wait_until("it was found empty, and full again", DEADLINE, || {
            server.lock().unwrap().readings >= 5
        });
        let page = gateway.lists();
        let is_late = server.lock().unwrap().is_late;
        assert!(page["generation"] == 1 || is_late, "{slow}: {page}");
        assert_eq!(page["pre"], json!(PRE), "{slow}");
    }
}

#[test]
fn lists_wait_for_an_emptied_one_anew_after_the_connection_was_lost() {
    let (_server, gateway) = polled(|server, command| {
        let lists = |gray, pre| Lists { gray, pre };
        let lists = match server.readings {
            0 => lists("127.0.0.5", PRE),
            1 => lists("127.0.0.5", &[]),
            2 if server.since_reading() < MOST_WITHHELD * 11 / 10 => return LOADING.to_owned(),
            // What is written at once, found by halves.
            2 => lists("127.0.0.6", &[]),
            _ => lists("127.0.0.6", NEW_PRE),
        };
        server.reply(command, lists)
    });
    let page = gateway.wait_for_lists("the new lists", |it| it["pre"] == json!(NEW_PRE));
    assert_eq!(page["gray"], json!(["127.0.0.6"]));
    assert_eq!(page["generation"], 2, "both came at once: {page}");
    gateway.wait_for_log("lists-unreadable");
}
