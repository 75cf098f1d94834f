//! The commands of an operator, with one ini file.

use std::path::Path;
use std::process::{Child, Output};

use serde_json::Value;

use super::{run_to_exit, spawn};

/// Where commands are said.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    ini: String,
}

impl Commands {
    /// With this ini file.
    pub(crate) fn of(ini: &Path) -> Self {
        let ini = ini.to_str().unwrap().to_owned();
        Self { ini }
    }

    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        run_to_exit(&[words, &["-c", &self.ini]].concat())
    }

    /// Begins one in its own folder for temporary files.
    pub(crate) fn spawn_in(&self, folder: &Path, words: &[&str]) -> Child {
        spawn(&[words, &["-c", &self.ini]].concat(), folder)
    }

    /// Must succeed; what is said on standard output.
    #[track_caller]
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let text = self.done(&[words, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Must be refused; why.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The records of the history, the newest first.
    #[track_caller]
    pub(crate) fn records(&self, more: &[&str]) -> Vec<Value> {
        let all = self.json(&[&["history", "--last", "1000"], more].concat());
        all["changes"].as_array().unwrap().clone()
    }
}
