//! Upgrades of a gateway: by the command, whoever is the gateway then.

use std::fs;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::gateway::Gateway;
use super::{DEADLINE, wait_for, wait_until};

/// `graygate upgrade` for this gateway, with these arguments besides; it has a pid file `pid`, which says
/// when it can be asked.
#[track_caller]
pub(crate) fn upgrade_command(gateway: &Gateway, more: &[&str]) -> Command {
    wait_until("it can be asked", DEADLINE, || {
        fs::read_to_string(gateway.path("pid")).is_ok_and(|it| !it.is_empty())
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_graygate"));
    command.arg("upgrade").args(more).arg("-c");
    command.arg(gateway.path("graygate.ini"));
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Upgrades it, and expects that to succeed.
#[track_caller]
pub(crate) fn upgrade_well(gateway: &Gateway) {
    let output = upgrade_command(gateway, &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Tries to upgrade it, and expects that to fail for this reason; then it serves on.
#[track_caller]
pub(crate) fn upgrade_in_vain(gateway: &mut Gateway, more: &[&str], why: &str) {
    let output = upgrade_command(gateway, more).output().unwrap();
    expect_refused(gateway, &output, why);
}

/// What the command says of an upgrade that has come to nothing, after which the gateway serves on.
#[track_caller]
pub(crate) fn expect_refused(gateway: &mut Gateway, output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(why), "{why:?} is not in {said:?}");
    assert!(said.contains("the running gateway serves on"), "{said}");
    expect_unchanged(gateway);
}

/// It serves, it is the one that was started, and it can be upgraded.
#[track_caller]
pub(crate) fn expect_unchanged(gateway: &mut Gateway) {
    assert!(gateway.is_running());
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for _ in 0..4 {
        assert_eq!(gateway.connect().ask(request).status(), 200);
    }
    assert_eq!(pid_in_file(gateway), gateway.pid().cast_signed());
}

/// What the pid file says.
#[track_caller]
pub(crate) fn pid_in_file(gateway: &Gateway) -> i32 {
    // It is there, and empty, before it says anything.
    wait_for("the pid file says who it is", || {
        let text = fs::read_to_string(gateway.path("pid")).ok()?;
        text.trim().parse().ok()
    })
}

/// Also when nobody has asked how it has ended.
pub(crate) fn has_ended(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_none_or(|it| it.trim_start().starts_with(['Z', 'X']))
}

/// Whoever is the gateway at last ends with the test: it has a pid file `pid`.
pub(crate) struct LastProcess<'a>(pub(crate) &'a Gateway);

impl Drop for LastProcess<'_> {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(self.0.path("pid")) else {
            return;
        };
        let Ok(pid) = text.trim().parse() else {
            return;
        };
        // The first one ends by itself.
        if pid != self.0.pid().cast_signed() && !has_ended(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            // What is under way need not end.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            wait_until("it ends", DEADLINE, || has_ended(pid));
        }
    }
}
