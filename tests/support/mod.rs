//! What the end-to-end tests stand on: the real gateway as a child process, scripted origins, a
//! raw HTTP client and real Redis servers.
//!
//! Everything listens on a free port of a loopback address, so that tests run in parallel.
//! Everything waits on conditions with a deadline: there is no sleep but in [`wait_until`]. What
//! a test starts ends with it.
//!
//! HTTP is spoken here with code of its own (`wire.rs`), so that a fault in the gateway's parser
//! cannot hide behind the same fault in its tests.

// Each test file uses a part of this.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod access;
mod client;
mod cluster;
mod exposition;
mod gateway;
mod light;
mod lines;
mod origin;
mod panics;
mod pattern;
mod peers;
mod pipe;
mod ports;
mod process;
mod redis;
mod relay;
mod scripted;
mod sentinel;
mod setup;
mod site;
mod stacks;
mod steady;
mod strict;
mod tls;
mod wire;

use std::time::{Duration, Instant};

pub(crate) use access::AccessLine;
pub(crate) use client::{Client, Response};
pub(crate) use cluster::{Cluster, OWNER, SLOT};
pub(crate) use exposition::{Samples, read_metrics};
pub(crate) use gateway::Gateway;
pub(crate) use light::LightOrigin;
pub(crate) use lines::{Found, Lines};
pub(crate) use origin::{Conn, Origin, Request, ok};
pub(crate) use panics::PanicLog;
pub(crate) use pattern::Pattern;
pub(crate) use peers::{DeafPeer, RefusingPeer};
pub(crate) use pipe::pipe_at;
pub(crate) use ports::{
    ended_from, free_address, listening_ports, on_the_way_from, unread_at, unread_from,
};
pub(crate) use process::allow_descriptors;
pub(crate) use redis::{Redis, acl_in_the_readme};
pub(crate) use relay::Relay;
pub(crate) use scripted::{ScriptedRedis, texts};
pub(crate) use sentinel::Sentinel;
pub(crate) use setup::{Setup, lists_text, run_to_exit, spawn};
pub(crate) use site::Site;
pub(crate) use stacks::{LONGEST_WAY, Stacks};
pub(crate) use steady::Traffic;
pub(crate) use strict::{NoRequest, StrictReader, StrictRequest};
pub(crate) use tls::{Authority, Validity};
pub(crate) use wire::{Head, Wire};

/// How long a test waits for anything before it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until `cond` holds.
///
/// # Panics
/// When it does not within `deadline`; `what` says what was waited for.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, mut cond: impl FnMut() -> bool) {
    let start = Instant::now();
    while !cond() {
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `look` gives something, and returns it.
///
/// # Panics
/// When it does not within [`DEADLINE`]; `what` says what was waited for.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, DEADLINE, || {
        found = look();
        found.is_some()
    });
    found.unwrap()
}
