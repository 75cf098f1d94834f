//! A resolver that hangs: a name server, or a module of nsswitch.conf(5), that does not come to an end.

#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::Signal;
use support::{DEADLINE, Gateway, Setup, pipe_at, wait_until};

/// Resolutions under way at most.
const AT_ONCE: usize = 16;

/// The resolver's threads that there are.
fn resolvers(gateway: &Gateway) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let names = tasks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names.filter(|it| it.starts_with("lists-resolver")).count()
}

#[test]
fn a_resolver_that_hangs_holds_up_neither_start_nor_end_nor_takes_ever_more_threads() {
    // Where it looks for other names of a name without a dot (hostname(7)), until somebody writes there.
    let setup = Setup::new().redis("redis://redis-nowhere:6379");
    let aliases = setup.path("aliases");
    pipe_at(&aliases);
    let setup = setup.environment("HOSTALIASES", aliases.display());
    let setup = setup.set("redis.timeout", "50ms");
    let setup = setup.set("redis.check_interval", "100ms");
    let mut gateway = setup.set("redis.heartbeat", "100ms").start();
    gateway.wait_for_log("error=\"redis-nowhere was not resolved in time\"");
    assert_eq!(gateway.get("127.0.0.1", "/").status(), 503);
    wait_until("as many hang as may", 2 * DEADLINE, || {
        resolvers(&gateway) >= AT_ONCE
    });
    let failures = || gateway.metric("graygate_lists_failures_total");
    let more = failures() + 4.0;
    wait_until("more attempts", 2 * DEADLINE, || failures() >= more);
    assert_eq!(resolvers(&gateway), AT_ONCE);
    gateway.wait_for_log("redis-nowhere was not asked for: the system's resolver hangs");
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.wait_exit().success());
}
