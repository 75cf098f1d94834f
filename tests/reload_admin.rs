//! A reload takes on where the gateway may be asked about itself, and the token.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod support;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use support::{Client, DEADLINE, Gateway, Origin, Setup, free_address, wait_until};

/// A reload of the file as it is, and its outcome.
#[track_caller]
fn reload(gateway: &Gateway, outcome: &str) {
    let count = |word: &str| gateway.stderr.count(word);
    let word = match outcome {
        "ok" => " reloaded file=",
        _ => " reload-failed ",
    };
    let before = count(word);
    gateway.signal(Signal::SIGHUP);
    wait_until(&format!("a reload that is {outcome}"), DEADLINE, || {
        count(word) > before
    });
}

/// The status and the text of a page over TCP.
fn ask(addr: SocketAddr, head: &str, token: &str) -> u16 {
    let request =
        format!("{head} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\r\n");
    Client::connect(addr).ask(request).status()
}

fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn the_admin_addresses_change_and_swap() {
    let origin = Origin::named("prod");
    let [one, two, three] = [(); 3].map(|()| free_address());
    let setup = Setup::serving(&origin).set("admin.listen", one);
    let mut gateway = setup.set("admin.metrics", two).start();
    assert_eq!(
        [ask(one, "GET /config", ""), ask(two, "GET /config", "")],
        [200, 404]
    );
    gateway.edit_ini(|it| it.set("admin.listen", two).set("admin.metrics", one));
    reload(&gateway, "ok");
    wait_until("they have swapped", DEADLINE, || {
        [ask(one, "GET /config", ""), ask(two, "GET /config", "")] == [404, 200]
    });
    gateway.edit_ini(|it| it.set("admin.listen", three).set("admin.metrics", "off"));
    reload(&gateway, "ok");
    assert_eq!(ask(three, "GET /config", ""), 200);
    wait_until("the others are gone", DEADLINE, || {
        is_refused(one) && is_refused(two)
    });
    // With a section that is not possible, nothing is.
    gateway.edit_ini(|it| {
        it.set("admin.listen", one)
            .set("admin.metrics", origin.address())
    });
    reload(&gateway, "failed");
    assert_eq!(ask(three, "GET /config", ""), 200);
    assert!(is_refused(one));
}

#[test]
fn the_socket_moves_with_its_rights() {
    let origin = Origin::named("prod");
    let mut gateway = Setup::serving(&origin).start();
    let rights = |name: &str| {
        let found = fs::symlink_metadata(gateway.path(name)).unwrap();
        (found.mode(), found.uid(), found.gid())
    };
    let before = rights("admin.sock");
    assert_eq!(before.0 & 0o777, 0o660);
    gateway.edit_ini(|it| it.set("admin.socket", "folder/moved.sock"));
    reload(&gateway, "ok");
    let rights = |name: &str| {
        let found = fs::symlink_metadata(gateway.path(name)).unwrap();
        (found.mode(), found.uid(), found.gid())
    };
    assert_eq!(rights("folder/moved.sock"), before);
    UnixStream::connect(gateway.path("folder/moved.sock")).unwrap();
    wait_until("the old file is gone", DEADLINE, || {
        !gateway.path("admin.sock").exists()
    });
    gateway.edit_ini(|it| it.set("admin.socket", "off"));
    reload(&gateway, "ok");
    wait_until("the file is gone", DEADLINE, || {
        !gateway.path("folder/moved.sock").exists()
    });
}

#[test]
fn the_token_is_read_anew_and_a_bad_one_changes_nothing() {
    let origin = Origin::named("prod");
    let one = free_address();
    let setup = Setup::serving(&origin).file("token", "a-token-that-nobody-guesses\n");
    let setup = setup.set("admin.listen", one);
    let mut gateway = setup.set("admin.token_file", "token").start();
    let asks = |token: &str| ask(one, "GET /config", token);
    assert_eq!(asks("a-token-that-nobody-guesses"), 200);
    fs::write(gateway.path("token"), "another-token-that-nobody-guesses\n").unwrap();
    reload(&gateway, "ok");
    assert_eq!(asks("a-token-that-nobody-guesses"), 401);
    assert_eq!(asks("another-token-that-nobody-guesses"), 200);
    fs::write(gateway.path("token"), "short\n").unwrap();
    gateway.edit_ini(|it| it.set("gateway.max_connections", 7));
    reload(&gateway, "failed");
    let line = gateway.wait_for_log(" reload-failed ");
    assert!(line.contains("[admin] token_file: "), "{line}");
    assert_eq!(asks("another-token-that-nobody-guesses"), 200);
    assert!(gateway.metric("graygate_max_connections") > 7.0);
}

#[test]
fn a_token_that_only_root_may_read_stays_and_a_new_one_is_pending() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let origin = Origin::named("prod");
    let one = free_address();
    let setup = Setup::serving(&origin).file("token", "a-token-that-nobody-guesses\n");
    let setup = setup.set("admin.listen", one).set("gateway.user", "nobody");
    let setup = setup.set("admin.token_file", "token").open_to_all();
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(setup.path("token"), mode).unwrap();
    let gateway = setup.start();
    reload(&gateway, "ok");
    assert_eq!(gateway.stderr.count("reload-ignored"), 0);
    assert_eq!(ask(one, "GET /config", "a-token-that-nobody-guesses"), 200);
    fs::write(gateway.path("token"), "another-token-that-nobody-guesses\n").unwrap();
    reload(&gateway, "ok");
    gateway.wait_for_log("reload-ignored key=admin.token_file ");
    let ini = gateway.path("graygate.ini");
    let tested = support::run_to_exit(&["-t", "--json", "-c", ini.to_str().unwrap()]);
    let tested: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
    let waiting = serde_json::json!(["admin.token_file"]);
    assert_eq!(tested["after_restart"], waiting);
    assert_eq!(ask(one, "GET /config", "a-token-that-nobody-guesses"), 200);
}
