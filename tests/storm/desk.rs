//! The operator, who has a way of his own to Redis.

use std::io::Read;
use std::time::{Duration, Instant};

use super::model::Model;
use crate::support::{Setup, spawn};

/// No command takes longer.
const LONGEST: Duration = Duration::from_secs(40);

pub(crate) struct Desk {
    setup: Setup,
    ini: String,
}

/// How a command has ended.
pub(crate) struct Said {
    pub(crate) is_done: bool,
    pub(crate) text: String,
}

impl Desk {
    pub(crate) fn at(url: String) -> Self {
        let setup = Setup::new().redis(url).set("redis.timeout", "1s");
        let ini = setup.write_ini().display().to_string();
        Self { setup, ini }
    }

    pub(crate) fn run(&self, model: &Model, words: &[&str]) -> Said {
        let all = [words, &["-c", &self.ini]].concat();
        let mut child = spawn(&all, &self.setup.path("."));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > LONGEST {
                let _ = child.kill();
                model.violation(&format!("{words:?} does not end"));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        let _ = child.stdout.take().unwrap().read_to_string(&mut text);
        let mut error = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut error);
        let shown = format!("{text}{error}").replace('\n', " | ");
        let shown: String = shown.chars().take(200).collect();
        model.note(&format!("desk: {} -> {status}: {shown}", words.join(" ")));
        Said {
            is_done: status.success(),
            text,
        }
    }
}
