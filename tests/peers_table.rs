//! The tables of docs/peers.md: each line of who answers is tried, and each test that it names is there.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{DEADLINE, Gateway, Origin, Setup, ok, wait_for, wait_until};

const LISTED: &str = "127.0.0.5";
const NOT_LISTED: &str = "127.0.0.1";

fn here(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The cells of each line of a table of docs/peers.md.
fn rows(table: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(here("docs/peers.md")).unwrap();
    let (_, from) = text
        .split_once(&format!("<!-- begin: {table} -->"))
        .unwrap();
    let (table, _) = from.split_once("<!-- end: ").unwrap();
    let lines = table.lines().filter(|it| it.starts_with("| ")).skip(1);
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|it| it.trim().replace('`', "")).collect()
    };
    lines.map(cells).collect()
}

/// A pool of two servers, or none.
struct Pool {
    name: &'static str,
    state: String,
    peers: Vec<Origin>,
    /// Of each, whether it closes without an answer.
    fail: Vec<Arc<AtomicBool>>,
}

impl Pool {
    fn new(name: &'static str, state: &str) -> Self {
        let failing = match state {
            "empty" => &[][..],
            "healthy" => &[false, false],
            "partly out" => &[true, false],
            "all out" => &[true, true],
            other => panic!("no state of a pool: {other}"),
        };
        let fail: Vec<_> = failing
            .iter()
            .map(|it| Arc::new(AtomicBool::new(*it)))
            .collect();
        let origin = |fails: &Arc<AtomicBool>| {
            let fails = Arc::clone(fails);
            Origin::scripted(move |conn| {
                while conn.request()?.is_some() {
                    if fails.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                    conn.send(ok(name))?;
                }
                Ok(())
            })
        };
        Self {
            name,
            state: state.to_owned(),
            peers: fail.iter().map(origin).collect(),
            fail,
        }
    }

    fn entries(&self) -> Vec<&dyn Display> {
        self.peers.iter().map(|it| it as &dyn Display).collect()
    }

    /// Asks, as a `client` of this pool, until those that fail are out.
    #[track_caller]
    fn bring_out(&self, gateway: &Gateway, client: &str) {
        let failing: Vec<_> = self.peers.iter().zip(&self.fail).collect();
        let failing = failing.iter().filter(|it| it.1.load(Ordering::SeqCst));
        let lines: Vec<String> = failing
            .map(|(peer, _)| format!(" peer-out pool={} peer={peer} ", self.name))
            .collect();
        let are_out = || lines.iter().all(|it| gateway.stderr.count(it) > 0);
        wait_until(
            &format!("{} is {}", self.name, self.state),
            DEADLINE,
            || {
                are_out() || {
                    gateway.get(client, "/");
                    are_out()
                }
            },
        );
        self.fail
            .iter()
            .for_each(|it| it.store(false, Ordering::SeqCst));
    }

    /// How often those that are out were asked.
    fn asked_in_vain(&self) -> usize {
        match &*self.state {
            "partly out" => self.peers[0].requests().len(),
            _ => 0,
        }
    }
}

#[test]
fn each_line_of_who_answers_is_what_happens() {
    let rows = rows("combinations");
    let mut seen: Vec<_> = rows.iter().map(|it| it[..4].to_vec()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(
        (rows.len(), seen.len()),
        (64, 64),
        "each combination has one line"
    );
    // Both clients have the same gateway.
    let mut settings: Vec<_> = rows.iter().map(|it| it[1..4].to_vec()).collect();
    settings.sort();
    settings.dedup();
    assert_eq!(settings.len(), 32);
    for setting in settings {
        let (pre, prod) = (
            Pool::new("pre", &setting[0]),
            Pool::new("prod", &setting[1]),
        );
        let gateway = Setup::new()
            .set("upstream.fallback", &setting[2])
            .set("upstream.max_fails", 1)
            .set("upstream.fail_timeout", "1h")
            .lists(&[LISTED], &pre.entries(), &prod.entries())
            .start();
        prod.bring_out(&gateway, NOT_LISTED);
        pre.bring_out(&gateway, LISTED);
        let before = (pre.asked_in_vain(), prod.asked_in_vain());
        for row in rows.iter().filter(|it| it[1..4] == setting) {
            let client = match &*row[0] {
                "listed" => LISTED,
                "not listed" => NOT_LISTED,
                other => panic!("no client: {other}"),
            };
            // By which its lines are told from those before, which may come late.
            let target = format!("/{}", row[0].replace(' ', "-"));
            for _ in 0..3 {
                let answer = gateway.get(client, &target);
                let text = answer.text();
                let answered = match (answer.status(), text.trim_end().rsplit_once(": ")) {
                    (200, _) => text,
                    (status, Some((_, name))) => format!("{status} {name}"),
                    (status, None) => format!("{status} {text}"),
                };
                assert_eq!(answered, row[4], "{row:?}");
            }
            let is_its = |raw: &str| raw.contains(&format!("target=\"{target}\""));
            let lines = wait_for("its lines", || {
                let lines = gateway.access_lines().into_iter();
                let lines: Vec<_> = lines.filter(|it| is_its(&it.raw)).collect();
                Some(lines).filter(|it| it.len() == 3)
            });
            let last = lines.last().unwrap();
            let expected = format!("client={client} reason={}", row[5]);
            assert!(last.has(&expected), "{row:?}: {}", last.raw);
        }
        let after = (pre.asked_in_vain(), prod.asked_in_vain());
        assert_eq!(after, before, "{setting:?}: what is out is left alone");
    }
}

#[test]
fn each_test_that_is_named_is_there() {
    let rows = rows("tests");
    assert!(rows.len() > 20);
    for row in rows {
        for name in row[2].split(", ") {
            let (file, test) = name.split_once("::").unwrap();
            let code = fs::read_to_string(here(&format!("tests/{file}.rs"))).unwrap();
            assert!(code.contains(&format!("fn {test}()")), "{name}");
        }
    }
}
