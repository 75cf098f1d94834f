//! Section `[log]`.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, ValueResult, wrong};
use super::file::Section;
use super::key::settings;
use super::log_format::{LogFormat, log_format};
use super::sampling::{Sampling, sampling};
use super::syslog::{SyslogTarget, syslog};
use super::units::{self, digits, one_of};

settings! {
    [log]
    ACCESS: LogTarget = access, "/var/log/graygate/access.log", reload, |it, base| log_target(it, base),
        "Access log: a file, stdout (or -), stderr, syslog:server=unix:PATH or IP:PORT, or off.";
    ERROR: LogTarget = error, "/var/log/graygate/error.log", reload, |it, base| log_target(it, base),
        "Error log: a file, stdout (or -), stderr, syslog:server=unix:PATH or IP:PORT, or off.";
    FORMAT: LogFormat = format, "main", reload, |it, _| log_format(it),
        "Lines of the access log: main, combined (nginx's), json, or text with variables such as $remote_addr.";
    SAMPLE: Sampling = sample, "", reload, |it, _| sampling(it),
        "One of how many lines is written, by status below 400, as 2xx:100, 304:1000; empty: all.";
    OWN_LINES: Option<u32> = own_lines, "1000", reload, |it, _| lines(it),
        "Access log lines a second and listener for requests that need no server, 1 to 1000000, or unlimited.";
    LEVEL: log::LevelFilter = level, "info", reload, |it, _| level(it),
        "Least severe events in the error log: error, warn, info or debug.";
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// The access log.
    pub access: LogTarget,
    /// The error log.
    pub error: LogTarget,
    /// How a line of the access log is written.
    pub format: LogFormat,
    /// Which lines are left out.
    pub sample: Sampling,
    /// Lines a second of the access log, for requests of a listener that need no server.
    pub own_lines: Option<u32>,
    /// What the error log leaves out.
    pub level: log::LevelFilter,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, by its absolute path.
    File(PathBuf),
    /// A syslog server.
    Syslog(SyslogTarget),
}

impl LogSettings {
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            access: section.get(&ACCESS)?,
            error: section.get(&ERROR)?,
            format: section.get(&FORMAT)?,
            sample: section.get(&SAMPLE)?,
            own_lines: section.get(&OWN_LINES)?,
            level: section.get(&LEVEL)?,
        })
    }
}

/// Where a log goes.
fn log_target(text: &str, base: &Path) -> ValueResult<LogTarget> {
    const ALLOWED: &str =
        "off, stdout (or -), stderr, syslog:…, or the path of a file, with a / or ending in .log";
    if let Some(rest) = text.strip_prefix("syslog:") {
        return syslog(rest, base).map(LogTarget::Syslog);
    }
    match text {
        "off" => Ok(LogTarget::Off),
        "-" | "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        // `Off`, `"off"` or `syslog` was hardly meant as the name of a file.
        _ if !(text.is_empty() || text.contains('/') || text.ends_with(".log")) => wrong(
            "it is neither one of the values of this key nor the path of a log",
            ALLOWED,
        ),
        _ => match units::path(text, base) {
            Ok(Some(path)) => Ok(LogTarget::File(path)),
            Ok(None) => wrong("it is empty", ALLOWED),
            Err(error) => wrong(error.what, ALLOWED),
        },
    }
}

/// A number of lines, or none for `unlimited`.
fn lines(text: &str) -> ValueResult<Option<u32>> {
    const ALLOWED: &str = "unlimited, or a whole number from 1 to 1000000";
    if text == "unlimited" {
        return Ok(None);
    }
    let Some(lines) = digits::<u32>(text) else {
        return wrong("it is not a number", ALLOWED);
    };
    match lines.ok().filter(|it| (1..=1_000_000).contains(it)) {
        Some(lines) => Ok(Some(lines)),
        None => wrong("it is out of range", ALLOWED),
    }
}

/// The level of the error log.
fn level(text: &str) -> ValueResult<log::LevelFilter> {
    one_of(
        text,
        &[
            ("error", log::LevelFilter::Error),
            ("warn", log::LevelFilter::Warn),
            ("info", log::LevelFilter::Info),
            ("debug", log::LevelFilter::Debug),
        ],
    )
}
