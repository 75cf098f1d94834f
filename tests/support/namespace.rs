//! A network namespace for a test: its ports, routes and packets are its own.

use std::process::Command;

use nix::unistd::Uid;

/// Runs the ignored test `name` of the calling file in a namespace of its own, whose loopback is set up so
/// (ip-link(8)).
#[track_caller]
pub(crate) fn run_in_namespace(loopback: &str, name: &str) {
    let set_up = format!("ip link set lo {loopback} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    // Whoever is not root is one in there.
    if !Uid::effective().is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["--net", "sh", "-c", &set_up])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let has_run = said.contains("1 passed");
    assert!(output.status.success() && has_run, "{said}");
}
