//! What the end-to-end tests stand on: the real gateway as a child process, scripted origins, a
//! raw HTTP client and real Redis servers.
//!
//! Everything listens on a free port of a loopback address, so that tests run in parallel. A loop that makes
//! connection after connection does so by [`Client::from_another`]: 127.0.0.1 runs out of ports.
//! Everything waits on conditions with a deadline: there is no sleep but in [`poll`]. What
//! a test starts ends with it.
//!
//! HTTP is spoken here with code of its own (`wire.rs`), so that a fault in the gateway's parser
//! cannot hide behind the same fault in its tests.

// Each test file uses a part of this.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod access;
mod client;
mod cluster;
mod commands;
mod copies;
mod exposition;
mod gateway;
mod ground;
mod handover;
mod inside;
mod light;
mod lines;
mod namespace;
mod origin;
mod panics;
mod pattern;
mod peers;
mod pipe;
mod ports;
mod process;
mod redis;
mod relay;
mod resolver;
mod scripted;
mod sentinel;
mod setup;
mod site;
mod stacks;
mod steady;
mod strict;
mod tls;
mod upgrading;
mod wire;

use std::time::{Duration, Instant};

pub(crate) use access::AccessLine;
pub(crate) use client::{Client, Response};
pub(crate) use cluster::{Cluster, OWNER, SLOT};
pub(crate) use commands::Commands;
pub(crate) use copies::CopyFolder;
pub(crate) use exposition::{Samples, read_metrics};
pub(crate) use gateway::Gateway;
pub(crate) use ground::{Ground, wait_for_within};
pub(crate) use handover::{HandoverEnd, HandoverPlace};
pub(crate) use inside::GatewayInside;
pub(crate) use light::LightOrigin;
pub(crate) use lines::{Found, Lines};
pub(crate) use namespace::run_in_namespace;
pub(crate) use origin::{Conn, Origin, Request, Seen, ok};
pub(crate) use panics::PanicLog;
pub(crate) use pattern::Pattern;
pub(crate) use peers::{DeafPeer, RefusingPeer, peer_on, pool_on};
pub(crate) use pipe::pipe_at;
pub(crate) use ports::{
    ended_from, free_address, listening_ports, on_the_way_from, unread_at, unread_from,
};
pub(crate) use process::allow_descriptors;
pub(crate) use redis::Redis;
pub(crate) use relay::Relay;
pub(crate) use resolver::Resolver;
pub(crate) use scripted::{ScriptedRedis, texts};
pub(crate) use sentinel::Sentinel;
pub(crate) use setup::{Setup, lists_text, run_to_exit, spawn};
pub(crate) use site::{FileSite, Site};
pub(crate) use stacks::{LONGEST_WAY, Stacks};
pub(crate) use steady::{CLIENT, RELEASE, Traffic};
pub(crate) use strict::{NoRequest, StrictReader, StrictRequest};
pub(crate) use tls::{Authority, Validity};
pub(crate) use upgrading::{
    LastProcess, expect_refused, expect_unchanged, has_ended, pid_in_file, upgrade_command,
    upgrade_in_vain, upgrade_well,
};
pub(crate) use wire::{Head, Wire};

/// How long a test waits for anything before it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// What `look` gives as soon as it gives something; nothing when it does not before the deadline.
pub(crate) fn poll<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `cond` holds.
///
/// # Panics
/// When it does not within `deadline`; `what` says what was waited for.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, mut cond: impl FnMut() -> bool) {
    let holds = poll(deadline, || cond().then_some(()));
    assert!(holds.is_some(), "not within {deadline:?}: {what}");
}

/// Waits until `look` gives something, and returns it.
///
/// # Panics
/// When it does not within [`DEADLINE`]; `what` says what was waited for.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let found = poll(DEADLINE, look);
    found.unwrap_or_else(|| panic!("not within {DEADLINE:?}: {what}"))
}
