//! Section `[verdict]`: how it is found out whether a release is worse than the old version, and what
//! follows.
//! `[service NAME verdict]` holds for one service, and goes before it key by key.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, ValueResult, wrong};
use super::file::{IniFile, Section};
use super::key::settings;
use super::webhook::{self, WebhookFormat, WebhookSettings, WebhookUrl};
use super::{gray, units};
use crate::http::bytes::is_token_byte;

settings! {
    [verdict]
    MODE: VerdictMode = mode, "observe", reload, |it, _| units::one_of(it, &VerdictMode::NAMES),
        "Compare the failures of the new version with the old one's: off, observe (tell), or enforce (take it back).";
    SLOW: VerdictMode = slow, "observe", reload, |it, _| units::one_of(it, &VerdictMode::NAMES),
        "The same for answers that are slower than 19 of 20 of the old version's: off, observe, or enforce.";
    MARGIN_LIST: f64 = margin_list, "2", reload, |it, _| margin(it),
        "Times the odds of failing that are no fault of the version where clients are listed, 1 to 100.";
    MARGIN_PERCENT: f64 = margin_percent, "1", reload, |it, _| margin(it),
        "The same where the gray list consists of shares of all clients (percent:N) alone.";
    ALPHA: f64 = alpha, "0.001", reload, |it, _| alpha(it),
        "Share of releases that are no worse, and may be found worse all the same: 0.000001 to 0.1.";
    TOLERATE: f64 = tolerate, "1%", reload, |it, _| tolerate(it),
        "Share of failures that a new version may have: without any, 3 divided by it are requests enough; 0.01% to 50%.";
    CLIENT: UnitKey = client, "address", reload, |it, _| client(it),
        "What tells one client from another: address, cookie:NAME or header:NAME; the address where that is missing.";
    WEBHOOK: Option<WebhookUrl> = webhook, "", secret, |it, _| WebhookUrl::read(it),
        "URL that is told of a version that is worse, taken back or good enough, for all services; empty: none.";
    WEBHOOK_FORMAT: WebhookFormat = webhook_format, "json", reload, |it, _| webhook::format(it),
        "Form of what is posted there: json, slack, dingtalk, feishu or wecom.";
    WEBHOOK_SECRET_FILE: Option<PathBuf> = webhook_secret_file, "", reload, |it, base| webhook::secret_file(it, base),
        "File with the secret that signs it, for json, dingtalk and feishu; empty: it is not signed.";
    WEBHOOK_CA: Option<PathBuf> = webhook_ca, "", reload, |it, base| units::path(it, base),
        "File with the authorities (PEM) that vouch for an https:// receiver; empty: those of the system.";
    WEBHOOK_TIMEOUT: Duration = webhook_timeout, "5s", reload, |it, _| webhook::timeout(it),
        "Time for one attempt.";
}

/// What follows from a comparison of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictMode {
    /// There is none.
    Off,
    /// It is told.
    Observe,
    /// The new version is taken back when it is worse.
    Enforce,
}

impl VerdictMode {
    /// Every one, with its name in the ini file.
    const NAMES: [(&'static str, Self); 3] = [
        ("off", Self::Off),
        ("observe", Self::Observe),
        ("enforce", Self::Enforce),
    ];

    /// The name in the ini file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// What tells one client from another where their requests are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitKey {
    /// The address.
    Address,
    /// The value of this cookie.
    Cookie(String),
    /// The value of this header field.
    Header(String),
}

/// How the new version of a service is compared with the old one.
#[derive(Clone, Debug, PartialEq)]
pub struct VerdictSettings {
    /// For failures.
    pub mode: VerdictMode,
    /// For slowness; it is off where `mode` is.
    pub slow: VerdictMode,
    /// By what factor the odds may differ where clients are listed, 1 to 100.
    pub margin_list: f64,
    /// By what factor they may where shares of everybody decide, 1 to 100.
    pub margin_percent: f64,
    /// How often a release that is no worse may be found worse.
    pub alpha: f64,
    /// The rate of failures that one would put up with, above 0 and at most 0.5.
    pub tolerate: f64,
    /// Who is a client.
    pub client: UnitKey,
}

impl VerdictSettings {
    /// Those of the default service, which hold for all others.
    pub(super) fn of(file: &IniFile<'_>) -> Result<Self, ConfigError> {
        Self::read(file.section("verdict"))
    }

    /// Those of the service that has this section.
    pub(super) fn of_service(file: &IniFile<'_>, section: &str) -> Result<Self, ConfigError> {
        Self::read(file.section_before([&format!("{section} verdict"), "verdict"]))
    }

    fn read(section: Section<'_>) -> Result<Self, ConfigError> {
        let (mode, slow) = (section.get(&MODE)?, section.get(&SLOW)?);
        Ok(Self {
            mode,
            slow,
            margin_list: section.get(&MARGIN_LIST)?,
            margin_percent: section.get(&MARGIN_PERCENT)?,
            alpha: section.get(&ALPHA)?,
            tolerate: section.get(&TOLERATE)?,
            client: section.get(&CLIENT)?,
        })
    }

    /// Whether anything is counted.
    pub(crate) fn is_on(&self) -> bool {
        self.mode != VerdictMode::Off
    }
}

/// Where people are told, if anywhere.
pub(super) fn webhook(section: Section<'_>) -> Result<Option<WebhookSettings>, ConfigError> {
    let (format, secret_file) = (
        section.get(&WEBHOOK_FORMAT)?,
        section.get(&WEBHOOK_SECRET_FILE)?,
    );
    let useless = secret_file.as_ref().and_then(|_| webhook::unsigned(format));
    if let Some(useless) = useless {
        return Err(section.wrong(&WEBHOOK_SECRET_FILE.key, &useless));
    }
    let ca = section.get(&WEBHOOK_CA)?;
    let timeout = section.get(&WEBHOOK_TIMEOUT)?;
    let url = section.get(&WEBHOOK)?;
    Ok(url.map(|url| WebhookSettings {
        url,
        format,
        secret_file,
        secret: None,
        ca,
        timeout,
    }))
}

/// A number as people write it: digits, and perhaps a point with more of them.
fn decimal(text: &str, range: &RangeInclusive<f64>, allowed: &str) -> ValueResult<f64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(decimals) {
        return wrong("it is not a number", allowed);
    }
    match text.parse::<f64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => wrong("it is out of range", allowed),
    }
}

fn margin(text: &str) -> ValueResult<f64> {
    decimal(text, &(1.0..=100.0), "a number from 1 to 100, such as 1.5")
}

fn alpha(text: &str) -> ValueResult<f64> {
    let allowed = "a number from 0.000001 to 0.1, such as 0.001";
    decimal(text, &(0.000_001..=0.1), allowed)
}

fn tolerate(text: &str) -> ValueResult<f64> {
    const ALLOWED: &str = "a number from 0.01 to 50 with %, such as 1%";
    match text.strip_suffix('%') {
        Some(number) => Ok(decimal(number.trim_end(), &(0.01..=50.0), ALLOWED)? / 100.0),
        None => wrong("it has no %", ALLOWED),
    }
}

fn client(text: &str) -> ValueResult<UnitKey> {
    /// The longest name of a field.
    const LONGEST: usize = 100;
    let is_field = |it: &str| (1..=LONGEST).contains(&it.len()) && it.bytes().all(is_token_byte);
    match text.split_once(':') {
        None if text == "address" => Ok(UnitKey::Address),
        Some(("cookie", name)) => gray::cookie(name).map(UnitKey::Cookie),
        Some(("header", name)) if is_field(name) => Ok(UnitKey::Header(name.to_owned())),
        Some(("header", _)) => wrong(
            "it is not the name of a header field",
            "header: and a name, such as header:X-User",
        ),
        _ => wrong(
            "it is not one of the values of this key",
            "address, cookie:NAME, header:NAME",
        ),
    }
}
