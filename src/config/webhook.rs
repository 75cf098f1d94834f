//! The webhook of `[verdict]`: where people are told what becomes of a release. It is the process's, for all
//! services.
//!
//! The URL is a secret as a whole: with Slack and Feishu its path is what lets one write, with `DingTalk` and
//! `WeCom` its query. So nothing of it but the host is ever shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::Uri;

use super::error::{ValueResult, WrongValue, wrong};
use super::units;
use crate::process::secret::SigningSecret;

/// Where people are told, and in which form.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookSettings {
    /// Where messages are posted.
    pub url: WebhookUrl,
    /// What they look like.
    pub format: WebhookFormat,
    /// Where the secret is that signs them.
    pub secret_file: Option<PathBuf>,
    /// The secret, once it was read.
    pub(crate) secret: Option<Arc<SigningSecret>>,
    /// The authorities that vouch for the receiver, if not those of the system.
    pub ca: Option<PathBuf>,
    /// The time for one attempt.
    pub timeout: Duration,
}

/// Where messages are posted. Neither [`Debug`](fmt::Debug) nor [`Display`](fmt::Display) shows more than the
/// host.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    text: String,
    shown: String,
}

/// What a message looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The gateway's own.
    Json,
    /// An incoming webhook of Slack, and of those that take the same.
    Slack,
    /// A custom robot of `DingTalk`.
    Dingtalk,
    /// A custom bot of Feishu or Lark.
    Feishu,
    /// A group robot of `WeCom`.
    Wecom,
}

impl WebhookFormat {
    /// Every one, with its name in the ini file.
    const NAMES: [(&'static str, Self); 5] = [
        ("json", Self::Json),
        ("slack", Self::Slack),
        ("dingtalk", Self::Dingtalk),
        ("feishu", Self::Feishu),
        ("wecom", Self::Wecom),
    ];

    /// The name in the ini file.
    pub(crate) fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names
            .find(|(_, it)| *it == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether it knows a signature.
    fn is_signed(self) -> bool {
        match self {
            Self::Json | Self::Dingtalk | Self::Feishu => true,
            Self::Slack | Self::Wecom => false,
        }
    }
}

/// Why a secret file has no use, if it has none.
pub(super) fn unsigned(format: WebhookFormat) -> Option<WrongValue> {
    let name = format.name();
    (!format.is_signed()).then(|| WrongValue {
        what: format!("webhook_format = {name} has its secret in the URL"),
        allowed: "a secret for json, dingtalk or feishu".to_owned(),
    })
}

pub(super) fn format(text: &str) -> ValueResult<WebhookFormat> {
    units::one_of(text, &WebhookFormat::NAMES)
}

pub(super) fn secret_file(text: &str, base: &Path) -> ValueResult<Option<PathBuf>> {
    units::path(text, base)
}

pub(super) fn timeout(text: &str) -> ValueResult<Duration> {
    units::duration(text)
}

impl WebhookUrl {
    /// Parses it; none when empty. An error has no part of it.
    pub(super) fn read(text: &str) -> ValueResult<Option<Self>> {
        const ALLOWED: &str = "https://host[:port]/path[?query], or the same with http://";
        /// In bytes.
        const LONGEST: usize = 2048;
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > LONGEST {
            return wrong("it has more than 2048 bytes", ALLOWED);
        }
        if !text.bytes().all(|it| it.is_ascii_graphic()) {
            return wrong("it has what no URL has, such as a blank", ALLOWED);
        }
        // It would not be sent.
        if text.contains('#') {
            return wrong("it has a #", ALLOWED);
        }
        let Ok(uri) = text.parse::<Uri>() else {
            return wrong("it is malformed", ALLOWED);
        };
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            return wrong("it does not begin with https:// or http://", ALLOWED);
        };
        let is_port = |it: &str| it.is_empty() || it.bytes().all(|it| it.is_ascii_digit());
        let behind = authority.as_str().strip_prefix(authority.host());
        let port = behind.map(|it| it.strip_prefix(':').unwrap_or(it));
        if authority.as_str().contains('@') {
            return wrong("it has a user or a password", ALLOWED);
        }
        if authority.host().is_empty() || !port.is_some_and(is_port) {
            return wrong("it is malformed", ALLOWED);
        }
        let rest = match uri.path_and_query().map_or("/", |it| it.as_str()) {
            "" | "/" => "/",
            _ => "/(hidden)",
        };
        Ok(Some(Self {
            text: text.to_owned(),
            shown: format!("{scheme}://{authority}{rest}"),
        }))
    }

    /// All of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_tls(&self) -> bool {
        self.shown.starts_with("https:")
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({:?})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    fn parse(lines: &str) -> Result<Config, ConfigError> {
        let text = format!("[redis]\nurl = redis://h\n[verdict]\n{lines}");
        Config::parse(Path::new("/etc/gray/g.ini"), &text, None)
    }

    #[test]
    fn of_a_url_nothing_is_shown_but_the_host() {
        for (url, shown) in [
            ("https://h", "https://h/"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
            ("http://[::1]:8080/hunter2", "http://[::1]:8080/(hidden)"),
            (
                "https://hooks.slack.com/services/T0/B0/hunter2",
                "https://hooks.slack.com/(hidden)",
            ),
            (
                "https://oapi.dingtalk.com/robot/send?access_token=hunter2",
                "https://oapi.dingtalk.com/(hidden)",
            ),
            ("https://h?key=hunter2", "https://h/(hidden)"),
        ] {
            let config = parse(&format!("webhook = {url}\n")).unwrap();
            assert!(!format!("{config:?}").contains("hunter2"), "{url}");
            let webhook = config.webhook.as_ref().unwrap();
            assert_eq!(webhook.url.to_string(), shown);
            assert_eq!(webhook.url.as_str(), url);
            let all = config.written();
            let written = all.iter().find(|it| it.key.full_name == "verdict.webhook");
            assert_eq!(written.unwrap().in_force.text, shown);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_repeated() {
        for (url, what) in [
            ("hunter2", "it does not begin with https://"),
            ("ftp://h/hunter2", "it does not begin with https://"),
            ("https:///hunter2", "it is malformed"),
            ("https://h:x/hunter2", "it is malformed"),
            ("https://hunter2@h/", "it has a user or a password"),
            ("https://h/hunter2 x", "it has what no URL has"),
            ("\"https://h/hunter2#x\"", "it has a #"),
            ("https://h/hunter2;x", "within the value"),
            ("https://h/hunt\u{e9}hunter2", "it has what no URL has"),
        ] {
            let error = parse(&format!("webhook = {url}\n"));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(what), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_for_the_formats_that_know_a_signature() {
        for (name, format) in WebhookFormat::NAMES {
            let lines = format!("webhook = https://h/x\nwebhook_format = {name}\n");
            let settings = parse(&lines).unwrap().webhook.unwrap();
            assert_eq!((settings.format, format.name()), (format, name));
            assert_eq!(settings.timeout, Duration::from_secs(5));
            let with_secret = parse(&format!("{lines}webhook_secret_file = s\n"));
            match format.is_signed() {
                true => {
                    let settings = with_secret.unwrap().webhook.unwrap();
                    assert_eq!(settings.secret_file, Some("/etc/gray/s".into()));
                }
                false => {
                    let error = with_secret.unwrap_err().to_string();
                    assert!(error.contains("has its secret in the URL"), "{error}");
                }
            }
        }
        // Who has no webhook for a while keeps the rest.
        let lines = "webhook_format = feishu\nwebhook_secret_file = s\n";
        assert_eq!(parse(lines).unwrap().webhook, None);
    }

    #[test]
    fn it_is_the_processes_and_no_services() {
        let text = "[redis]\nurl = redis://h\n[service a]\npaths = /a\n[service a verdict]\n";
        let parse = |line| {
            let text = format!("{text}{line}\n");
            Config::parse(Path::new("/etc/gray/g.ini"), &text, None)
        };
        assert!(parse("mode = off").is_ok());
        for line in [
            "webhook = https://h/",
            "webhook_format = json",
            "webhook_secret_file = x",
            "webhook_ca = x",
            "webhook_timeout = 1s",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
