//! Older and newer programs hand over to each other, also backwards: the real one on one side of the channel,
//! and on the other one a test that knows fewer messages, or more.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Client, DEADLINE, HandoverEnd, HandoverPlace, Origin, Setup, ok, wait_until};

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const KEPT: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a program of the first version sends, as it stands in the copy that nobody changes.
fn released(name: &str) -> String {
    let lines = include_str!("released/handover-1.jsonl").lines();
    let mut of_name =
        lines.filter(|line| serde_json::from_str::<Value>(line).unwrap()["message"] == name);
    of_name.next().unwrap().to_owned()
}

/// The real one in the place of the new process.
struct Started {
    child: Child,
    setup: Setup,
}

impl Started {
    fn against(setup: Setup) -> (Self, HandoverEnd) {
        let path = setup.write_ini();
        let old = HandoverPlace::of(&path);
        let child = Command::new(env!("CARGO_BIN_EXE_graygate"))
            .args(["run", "-c", path.to_str().unwrap()])
            .env("GRAYGATE_UPGRADE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = old.accept();
        end.hear_until("take");
        (Self { child, setup }, end)
    }

    /// Waits until it says that it has taken over.
    #[track_caller]
    fn wait_taken_over(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "taken over");
    }

    fn end(mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        drop(self.setup);
    }
}

/// A door for the listener of these setups.
fn door(listener: &TcpListener, end: &HandoverEnd, more: &str) {
    let text =
        format!(r#"{{"message":"door","kind":"gateway.listen","asked":"127.0.0.1:0"{more}}}"#);
    end.say_with(&text, &[listener]);
}

#[test]
fn the_new_one_takes_over_from_one_that_knows_less() {
    let origin = Origin::saying(ok("fine"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut new, end) = Started::against(Setup::serving(&origin));
    door(&listener, &end, "");
    // It has nothing else, and asks nothing.
    end.say(r#"{"message":"offered"}"#);
    end.hear_until("ready");
    end.say(r#"{"message":"yours"}"#);
    end.hear_until("taken");
    new.wait_taken_over();
    let addr = listener.local_addr().unwrap();
    assert_eq!(Client::connect(addr).ask(CLOSE).status(), 200);
    drop(end);
    new.end();
}

#[test]
fn the_new_one_takes_over_from_one_that_knows_more() {
    let origin = Origin::saying(ok("fine"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut new, end) = Started::against(Setup::serving(&origin));
    let file = tempfile::tempfile().unwrap();
    door(&listener, &end, r#","weight":3"#);
    end.say_with(
        r#"{"message":"door","kind":"quic.listen","asked":"x"}"#,
        &[&listener],
    );
    end.say_with(r#"{"message":"certificates","of":["a"]}"#, &[&file, &file]);
    end.say("no json at all");
    end.say(r#"{"message":"gate","list":"violet","waiting":{"reason":"later"},"baseline":true}"#);
    end.say(
        r#"{"message":"peers","peers":[{"peer":"x"},{"peer":"127.0.0.1:9","state":"asleep"}]}"#,
    );
    end.say(r#"{"message":"history","upgrades":41,"program":"9.9.9","started_ms":1,"by":"x"}"#);
    end.say(r#"{"message":"lists","generation":9,"later":{}}"#);
    end.say(r#"{"message":"offered","has_lists":true,"has_more":true}"#);
    end.hear_until("ready");
    end.say(r#"{"message":"ping","later":1}"#);
    end.hear_until("pong");
    end.say(r#"{"message":"are you there"}"#);
    end.say(r#"{"message":"yours","and":"more"}"#);
    end.hear_until("taken");
    new.wait_taken_over();
    // A connection that it has served is among what it sends.
    let mut client = Client::connect(listener.local_addr().unwrap());
    assert_eq!(client.ask(KEPT).status(), 200);
    end.say(r#"{"message":"farewell"}"#);
    end.say(&released("draining"));
    assert_eq!(client.ask(KEPT).status(), 200);
    drop(end);
    new.end();
}

#[test]
fn what_the_first_version_sends_is_taken_over() {
    let origin = Origin::saying(ok("fine"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut new, end) = Started::against(Setup::serving(&origin));
    door(&listener, &end, "");
    end.say(&released("peers"));
    end.say(&released("history"));
    end.say(&released("offered"));
    end.hear_until("ready");
    for name in ["ping", "accepted", "reload", "yours"] {
        end.say(&released(name));
    }
    end.hear_until("taken");
    new.wait_taken_over();
    // A connection between two requests.
    let idle = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Client::connect(idle.local_addr().unwrap());
    let (socket, _) = idle.accept().unwrap();
    let moved = released("connections").replace("127.0.0.1:80", "127.0.0.1:0");
    let moved = moved.replace("\"header_due\":true", "\"header_due\":false");
    let moved = moved.replace("\"line\":1", "\"line\":0");
    end.say_with(&moved, &[&socket]);
    drop(socket);
    assert_eq!(client.ask(CLOSE).status(), 200);
    drop(end);
    new.end();
}

/// The real one in the place of the old process.
fn hands_over(take: &str, more: &[&str]) {
    let origin = Origin::saying(ok("fine"));
    let mut gateway = Setup::serving(&origin).start();
    let mut idle = gateway.connect();
    assert_eq!(idle.ask(KEPT).status(), 200);
    let end = HandoverEnd::to(&gateway.path("graygate.ini"));
    end.say(take);
    let offered = end.hear_until("offered");
    let doors = offered.iter().filter(|(said, _)| said["message"] == "door");
    // What is listened to, and two of the admin's.
    assert_eq!(doors.count(), 3);
    for text in more {
        end.say(text);
    }
    end.say(r#"{"message":"ready","by":"way"}"#);
    loop {
        match end.hear().unwrap().0["message"].as_str().unwrap() {
            "ping" => end.say(r#"{"message":"pong"}"#),
            "yours" => break,
            // Others are not known.
            _ => {}
        }
    }
    for text in more {
        end.say(text);
    }
    end.say(r#"{"message":"taken"}"#);
    let mut moved: Vec<OwnedFd> = Vec::new();
    while let Some((said, files)) = end.hear() {
        if said["message"] == "connections" {
            moved.extend(files);
        }
    }
    assert_eq!(moved.len(), 1);
    assert!(gateway.wait_exit().success());
    drop(idle);
}

#[test]
fn the_old_one_hands_over_to_one_that_knows_less() {
    hands_over(r#"{"message":"take"}"#, &[]);
}

#[test]
fn the_old_one_hands_over_to_one_that_knows_more() {
    let more = [
        r#"{"message":"wishes","for":["certificates"]}"#,
        "no json at all",
    ];
    let take = r#"{"message":"take","version":9,"program":"9.9.9","speaks":["later"]}"#;
    hands_over(take, &more);
    hands_over(
        &released("take"),
        &[
            &released("accepted"),
            &released("pong").replace("pong", "x"),
        ],
    );
}

#[test]
fn what_the_old_one_offers_has_all_that_the_first_version_knows_of() {
    let origin = Origin::saying(ok("fine"));
    let gateway = Setup::serving(&origin).start();
    wait_until("it serves", DEADLINE, || {
        gateway.connect().ask(CLOSE).status() == 200
    });
    let end = HandoverEnd::to(&gateway.path("graygate.ini"));
    let offered = end.take();
    for name in [
        "door", "streams", "lists", "gate", "peers", "history", "offered",
    ] {
        let (said, _) = offered
            .iter()
            .find(|(said, _)| said["message"] == name)
            .unwrap_or_else(|| panic!("no {name}"));
        let known: Value = serde_json::from_str(&released(name)).unwrap();
        for member in known.as_object().unwrap().keys() {
            assert!(said.get(member).is_some(), "{name} has no {member}: {said}");
        }
    }
}
