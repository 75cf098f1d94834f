//! Section `[gray]`: what of a request, besides the lists, says by whom it is served, and what servers and
//! clients are told of that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ConfigError, ValueResult, WrongValue, wrong};
use super::file::Section;
use super::key::{Setting, settings};
use super::units;
use crate::http::bytes::is_token_byte;
use crate::http::fields::{FieldKind, reads_as};
use crate::process::secret::Secret;

settings! {
    [gray]
    SALT: String = salt, "", reload, |it, _| Ok(it.to_owned()),
        "Salt of the shares of clients (percent:N) where Redis has none: another one, and others are in the share.";
    VISITOR_COOKIE: String = visitor_cookie, "graygate_visitor", reload, |it, _| cookie(it),
        "Cookie that percent:N:visitor goes by; a client without it gets one with the answer.";
    VISITOR_MAX_AGE: Duration = visitor_max_age, "365d", reload, |it, _| max_age(it),
        "Age at which browsers forget that cookie, from 1s to 3650d.";
    VISITOR_PRIVATE: bool = visitor_private, "off", reload, |it, _| units::switch(it),
        "Cache-Control: private for answers that set that cookie, so that shared caches keep none of them: on or off.";
    FORCE_HEADER: Option<String> = force_header, "", reload, |it, _| optional(it, field),
        "Header field by which testers ask for a version, with pre or prod as its value; empty: none.";
    FORCE_COOKIE: Option<String> = force_cookie, "", reload, |it, _| optional(it, cookie),
        "Cookie for the same; empty: none.";
    FORCE_SECRET_FILE: Option<PathBuf> = force_secret_file, "", reload, |it, base| units::path(it, base),
        "File with a secret that either must show, as pre:SECRET; empty: anybody may ask.";
    MARK: bool = mark, "off", reload, |it, _| units::switch(it),
        "Tell servers in mark_header which version serves the request, pre or prod: on or off.";
    MARK_HEADER: String = mark_header, "X-Graygate-Pool", reload, |it, _| field(it),
        "Header field with that mark; clients' own never reach a server.";
    FOLLOW_MARK: bool = follow_mark, "off", reload, |it, _| units::switch(it),
        "Serve a request by the version that a trusted proxy has marked it with: on or off.";
    EXPOSE: Exposed = expose, "off", reload, |it, _| units::one_of(it, &Exposed::NAMES),
        "X-Graygate in answers, with version and reason: off, gray (those of the new version, or asked for), or all.";
}

/// Section `[gray]`, but for the salt, which is the default service's.
#[derive(Clone, Debug, PartialEq)]
pub struct GraySettings {
    /// The cookie by which the gateway knows its visitors.
    pub visitor_cookie: String,
    /// How long browsers keep it.
    pub visitor_max_age: Duration,
    /// No shared cache keeps an answer that sets it.
    pub visitor_private: bool,
    /// The field by which testers say who is to serve them.
    pub force_header: Option<String>,
    /// The cookie by which they do.
    pub force_cookie: Option<String>,
    /// Where the secret is that they need.
    pub force_secret_file: Option<PathBuf>,
    /// The secret, once it was read.
    pub(crate) force_secret: Option<Arc<Secret>>,
    /// Servers are told by which pool a request is served.
    pub mark: bool,
    /// By this field.
    pub mark_header: String,
    /// Trusted proxies say it by the same field.
    pub follow_mark: bool,
    /// Which answers say it.
    pub expose: Exposed,
    /// The names of fields, in lower case and separated by commas, that no server gets from a client, besides
    /// those that none ever gets.
    pub(crate) withheld: String,
}

/// Which clients are told by which pool they were served, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// None.
    Nobody,
    /// Those served by `pre`, and who has asked for a pool.
    Gray,
    /// All.
    Everybody,
}

impl Exposed {
    /// Every one, with its name in the ini file.
    const NAMES: [(&'static str, Self); 3] = [
        ("off", Self::Nobody),
        ("gray", Self::Gray),
        ("all", Self::Everybody),
    ];
}

impl GraySettings {
    pub(super) fn of(section: Section<'_>) -> Result<Self, ConfigError> {
        let mut settings = Self {
            visitor_cookie: section.get(&VISITOR_COOKIE)?,
            visitor_max_age: section.get(&VISITOR_MAX_AGE)?,
            visitor_private: section.get(&VISITOR_PRIVATE)?,
            force_header: section.get(&FORCE_HEADER)?,
            force_cookie: section.get(&FORCE_COOKIE)?,
            force_secret_file: section.get(&FORCE_SECRET_FILE)?,
            force_secret: None,
            mark: section.get(&MARK)?,
            mark_header: section.get(&MARK_HEADER)?,
            follow_mark: section.get(&FOLLOW_MARK)?,
            expose: section.get(&EXPOSE)?,
            withheld: String::new(),
        };
        settings.check(section)?;
        settings.withheld = settings.withheld();
        Ok(settings)
    }

    /// What must not be one must differ.
    fn check(&self, section: Section<'_>) -> Result<(), ConfigError> {
        let is_same = |it: &String| it.eq_ignore_ascii_case(&self.mark_header);
        if self.force_header.as_ref().is_some_and(is_same) {
            return Err(in_use(section, &FORCE_HEADER, MARK_HEADER.key.name));
        }
        if self.force_cookie.as_ref() == Some(&self.visitor_cookie) {
            return Err(in_use(section, &FORCE_COOKIE, VISITOR_COOKIE.key.name));
        }
        if self.force_secret_file.is_some() && !self.has_force() {
            let what = "neither force_header nor force_cookie is set".to_owned();
            let allowed = "a secret for one of them".to_owned();
            return Err(section.wrong(&FORCE_SECRET_FILE.key, &WrongValue { what, allowed }));
        }
        Ok(())
    }

    /// Testers may say by whom they are served.
    pub(crate) fn has_force(&self) -> bool {
        self.force_header.is_some() || self.force_cookie.is_some()
    }

    /// Why a secret could not be shown where it has to be.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn takes_secret(&self, secret: &str) -> Result<(), &'static str> {
        match self.force_cookie.is_some() && secret.contains(';') {
            true => Err("it has a ;, which no cookie can hold"),
            false => Ok(()),
        }
    }

    fn withheld(&self) -> String {
        let mark = (self.mark || self.follow_mark).then_some(&self.mark_header);
        let names = mark.into_iter().chain(&self.force_header);
        // The others are dropped in any case.
        let names = names.filter(|it| FieldKind::of(it.as_bytes()) == FieldKind::Other);
        let names: Vec<_> = names.map(|it| it.to_ascii_lowercase()).collect();
        names.join(",")
    }
}

/// What is wrong with a key that has the value of another one.
fn in_use<T>(section: Section<'_>, setting: &Setting<T>, other: &str) -> ConfigError {
    let what = format!("{other} is the same");
    let allowed = "different names for the two".to_owned();
    section.wrong(&setting.key, &WrongValue { what, allowed })
}

/// The salt of the default service.
pub(super) fn salt(section: Section<'_>) -> Result<String, ConfigError> {
    section.get(&SALT)
}

fn optional(text: &str, read: fn(&str) -> ValueResult<String>) -> ValueResult<Option<String>> {
    match text {
        "" => Ok(None),
        text => read(text).map(Some),
    }
}

/// The longest name.
const LONGEST: usize = 100;

fn is_token(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_token_byte)
}

/// The name of a header field that nobody else has a use for.
fn field(text: &str) -> ValueResult<String> {
    const ALLOWED: &str =
        "the name of a header field of your own, such as X-Canary, of letters, digits and -";
    /// Besides those that mean something to the gateway.
    const TAKEN: &[&str] = &[
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "date",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "origin",
        "pragma",
        "range",
        "referer",
        "set-cookie",
        "via",
    ];
    if !is_token(text) {
        return wrong("it is not the name of a header field", ALLOWED);
    }
    // What some servers read as another name could be anything there.
    if !text
        .bytes()
        .all(|it| it.is_ascii_alphanumeric() || it == b'-')
    {
        return wrong("servers may read it as another name", ALLOWED);
    }
    let name = text.as_bytes();
    let is_own = |own: &[u8]| name.get(..own.len()).is_some_and(|it| reads_as(it, own));
    let is_taken = match FieldKind::of(name) {
        FieldKind::Other => TAKEN.iter().any(|it| text.eq_ignore_ascii_case(it)),
        FieldKind::Forbidden => !is_own(b"x-graygate"),
        _ => true,
    };
    match is_taken {
        true => wrong("it means something else", ALLOWED),
        false => Ok(text.to_owned()),
    }
}

/// The name of a cookie (RFC 6265 section 4.1.1).
pub(super) fn cookie(text: &str) -> ValueResult<String> {
    match is_token(text) {
        true => Ok(text.to_owned()),
        false => wrong(
            "it is not the name of a cookie",
            "1 to 100 letters, digits and any of !#$%&'*+-.^_`|~",
        ),
    }
}

/// How long a cookie lasts.
fn max_age(text: &str) -> ValueResult<Duration> {
    const ALLOWED: &str =
        "a whole number with its unit s, m, h or d, such as 12h or 365d, from 1s to 3650d";
    let age = units::age(text).map_err(|error| WrongValue {
        allowed: ALLOWED.to_owned(),
        ..error
    })?;
    age.map_or_else(|| wrong("a cookie has an age", ALLOWED), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(lines: &str) -> Result<Config, ConfigError> {
        let text = format!("[redis]\nurl = redis://h\n[gray]\n{lines}");
        Config::parse(std::path::Path::new("/etc/gray/g.ini"), &text, None)
    }

    #[test]
    fn names_are_those_of_fields_and_cookies_that_mean_nothing_else() {
        for (key, value, what) in [
            ("force_header", "X-Force", ""),
            ("force_header", "x-graygate-force", ""),
            ("force_header", "Host", "it means something else"),
            ("force_header", "content-LENGTH", "it means something else"),
            ("force_header", "Connection", "it means something else"),
            (
                "force_header",
                "Transfer-Encoding",
                "it means something else",
            ),
            ("force_header", "X-Forwarded-For", "it means something else"),
            (
                "force_header",
                "X-Forwarded-Port",
                "it means something else",
            ),
            ("force_header", "X-Request-Id", "it means something else"),
            ("force_header", "Authorization", "it means something else"),
            ("force_header", "Proxy", "it means something else"),
            ("force_header", "Cookie", "it means something else"),
            ("force_header", "Cache-Control", "it means something else"),
            (
                "force_header",
                "X_Force",
                "servers may read it as another name",
            ),
            (
                "force_header",
                "X Force",
                "it is not the name of a header field",
            ),
            (
                "force_header",
                "X-Forc\u{e9}",
                "it is not the name of a header field",
            ),
            ("force_header", "X:", "it is not the name of a header field"),
            ("mark_header", "X-Canary", ""),
            ("mark_header", "", "it is not the name of a header field"),
            ("mark_header", "Upgrade", "it means something else"),
            ("force_cookie", "force", ""),
            ("force_cookie", "for_ce!", ""),
            ("force_cookie", "for=ce", "it is not the name of a cookie"),
            ("visitor_cookie", "__Host-v", ""),
            ("visitor_cookie", "", "it is not the name of a cookie"),
            ("visitor_cookie", "a,b", "it is not the name of a cookie"),
            (
                "visitor_cookie",
                &"x".repeat(101),
                "it is not the name of a cookie",
            ),
            ("visitor_max_age", "0s", "it is out of range"),
            ("visitor_max_age", "unlimited", "a cookie has an age"),
            ("visitor_max_age", "12h", ""),
            ("expose", "on", "it is not one of the values of this key"),
        ] {
            let parsed = parse(&format!("{key} = {value}\n"));
            match what {
                "" => assert!(parsed.is_ok(), "{key} = {value}: {parsed:?}"),
                _ => {
                    let error = parsed.unwrap_err().to_string();
                    assert!(error.contains(what), "{key} = {value}: {error}");
                }
            }
        }
    }

    #[test]
    fn two_keys_do_not_share_a_name_and_a_secret_is_for_something() {
        for (lines, what) in [
            (
                "force_header = X-A\nmark_header = x-a\n",
                "mark_header is the same",
            ),
            (
                "force_cookie = a\nvisitor_cookie = a\n",
                "visitor_cookie is the same",
            ),
            (
                "force_secret_file = a\n",
                "neither force_header nor force_cookie",
            ),
        ] {
            let error = parse(lines).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        // The case of a cookie's name counts.
        assert!(parse("force_cookie = a\nvisitor_cookie = A\n").is_ok());
    }

    #[test]
    fn what_is_withheld_from_servers_is_what_is_read_here() {
        for (lines, withheld) in [
            ("", ""),
            ("mark_header = X-Canary\n", ""),
            ("mark_header = X-Canary\nmark = on\n", "x-canary"),
            ("mark_header = X-Canary\nfollow_mark = on\n", "x-canary"),
            ("mark = on\n", ""),
            ("force_header = X-Force\n", "x-force"),
            (
                "force_header = X-Force\nmark_header = X-M\nmark = on\n",
                "x-m,x-force",
            ),
            ("force_header = X-Graygate-Force\n", ""),
        ] {
            assert_eq!(parse(lines).unwrap().gray.withheld, withheld, "{lines}");
        }
    }

    #[test]
    fn the_salt_is_the_default_services() {
        let config = parse("salt = \"spring 2027\"\n").unwrap();
        assert_eq!(config.services[0].salt, "spring 2027");
    }

    #[test]
    fn a_secret_that_no_cookie_can_hold_does_for_a_header_only() {
        let takes = |lines| parse(lines).unwrap().gray.takes_secret("0123456789abcde;");
        assert!(takes("force_header = X-F\n").is_ok());
        assert!(takes("force_cookie = f\n").is_err());
    }
}
