//! What a command has to say: to a person as text, to a program as JSON, to its caller by an exit code.
//!
//! With `--json`, standard output has exactly one JSON value, unless the command line was not understood;
//! what is wrong is one line on standard error in either form.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::cli::exit::Exit;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// An answer.
pub(crate) struct Report {
    /// For people; each line ends with a line feed.
    text: String,
    /// For programs.
    json: Value,
    /// Lines for standard error that change nothing: warnings.
    notes: Vec<String>,
    exit: Exit,
    /// Why the answer is no, if it is.
    complaint: Option<String>,
    /// What is still under way when all of this has been said; what is to be noted of it.
    afterwards: Option<Afterwards>,
}

/// What is waited for once the answer was given: nobody has to wait for the answer because of it.
pub(crate) type Afterwards = Box<dyn FnOnce() -> Option<String>>;

impl Report {
    /// That all is well.
    pub(crate) fn new(text: String, json: Value) -> Self {
        Self {
            text,
            json,
            notes: Vec::new(),
            exit: Exit::Done,
            complaint: None,
            afterwards: None,
        }
    }

    /// That the answer is no, and why.
    pub(crate) fn but(self, complaint: String) -> Self {
        Self {
            exit: Exit::Failed,
            complaint: Some(complaint),
            ..self
        }
    }

    /// With these warnings.
    pub(crate) fn noting(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// With something that is waited for when all of it has been said.
    pub(crate) fn then(self, afterwards: Option<Afterwards>) -> Self {
        Self { afterwards, ..self }
    }

    /// The same, with another exit code.
    pub(crate) fn ending(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// Says how a command has ended, in this form.
pub(super) fn tell(form: Form, outcome: Result<Report, String>) -> Exit {
    let report = outcome.unwrap_or_else(|error| {
        let json = json!({ "error": error });
        Report::new(String::new(), json).but(error)
    });
    for note in &report.notes {
        complain(note);
    }
    match form {
        Form::Text => say(&report.text),
        Form::Json => say(&format!("{:#}\n", report.json)),
    }
    if let Some(complaint) = &report.complaint {
        complain(complaint);
    }
    if let Some(note) = report.afterwards.and_then(|wait| wait()) {
        complain(&note);
    }
    report.exit
}

/// What is wrong, on standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "graygate: {text}");
}

/// What the user has asked for, on standard output.
pub(super) fn say(text: &str) {
    // A reader that has gone needs no word.
    let _ = io::stdout().write_all(text.as_bytes());
}
