//! A log that goes to a syslog server, in nginx's syntax:
//! `syslog:server=ADDRESS,facility=local7,tag=graygate,severity=info,nohostname`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::error::{ValueResult, shown, wrong};

/// Where the local syslog server listens.
const LOCAL: &str = "/dev/log";

/// The port of syslog over UDP (RFC 5426).
const PORT: u16 = 514;

/// The longest tag, in bytes: that of RFC 3164 and of nginx.
const LONGEST_TAG: usize = 32;

/// As in nginx; their numbers are those of RFC 5424.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// Their numbers are those of RFC 5424.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
];

/// A syslog server, and how it is told a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogTarget {
    pub(crate) server: SyslogServer,
    /// By its number.
    pub(crate) facility: u8,
    /// By its number; the events of the error log have their own.
    pub(crate) severity: u8,
    pub(crate) tag: String,
    pub(crate) form: SyslogForm,
    /// The host's name stands in each message.
    pub(crate) names_host: bool,
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SyslogServer {
    Unix(PathBuf),
    Udp(SocketAddr),
}

/// What a message looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyslogForm {
    Rfc3164,
    Rfc5424,
}

const ALLOWED: &str = "syslog: for /dev/log, or after it, separated by commas: server=unix:PATH or server=IP[:PORT], \
                       facility (as local7), severity (emerg, alert, crit, error, warn, notice, info, debug), tag, \
                       nohostname, rfc=3164 or rfc=5424";

/// Parses what is behind `syslog:`.
pub(super) fn syslog(text: &str, base: &Path) -> ValueResult<SyslogTarget> {
    let mut target = SyslogTarget {
        server: SyslogServer::Unix(LOCAL.into()),
        facility: 23,
        severity: 6,
        tag: "graygate".to_owned(),
        form: SyslogForm::Rfc3164,
        names_host: true,
    };
    let mut given: Vec<&str> = Vec::new();
    for item in text.split(',').filter(|_| !text.is_empty()).map(str::trim) {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        if given.contains(&name) {
            return wrong(format!("{} is given twice", shown(name)), ALLOWED);
        }
        given.push(name);
        let is_known = match name {
            "server" => server(value, base).map(|it| target.server = it),
            "facility" => place(&FACILITIES, value).map(|it| target.facility = it),
            "severity" => place(&SEVERITIES, value).map(|it| target.severity = it),
            "tag" => is_tag(value).then(|| value.clone_into(&mut target.tag)),
            "rfc" => form(value).map(|it| target.form = it),
            "nohostname" if item == name => {
                target.names_host = false;
                continue;
            }
            _ => {
                let what = format!("`{}` is not a parameter of syslog", shown(item));
                return wrong(what, ALLOWED);
            }
        };
        if is_known.is_none() {
            return wrong(
                format!("`{}` is no {name} of syslog", shown(value)),
                ALLOWED,
            );
        }
    }
    Ok(target)
}

fn place(names: &[&str], name: &str) -> Option<u8> {
    let place = names.iter().position(|it| *it == name)?;
    u8::try_from(place).ok()
}

fn form(text: &str) -> Option<SyslogForm> {
    match text {
        "3164" => Some(SyslogForm::Rfc3164),
        "5424" => Some(SyslogForm::Rfc5424),
        _ => None,
    }
}

fn is_tag(text: &str) -> bool {
    let is_part = |it: u8| it.is_ascii_alphanumeric() || b"_-.".contains(&it);
    (1..=LONGEST_TAG).contains(&text.len()) && text.bytes().all(is_part)
}

fn server(text: &str, base: &Path) -> Option<SyslogServer> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| SyslogServer::Unix(base.join(path)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(SyslogServer::Udp(address));
    }
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(SyslogServer::Udp(SocketAddr::new(ip, PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> SyslogTarget {
        syslog(text, Path::new("/etc/gray")).unwrap()
    }

    #[test]
    fn a_target_is_a_server_and_what_messages_look_like() {
        let local = parsed("");
        let expected = SyslogTarget {
            server: SyslogServer::Unix("/dev/log".into()),
            facility: 23,
            severity: 6,
            tag: "graygate".to_owned(),
            form: SyslogForm::Rfc3164,
            names_host: true,
        };
        assert_eq!(local, expected);
        let all =
            parsed("server=unix:x/log,facility=daemon,severity=warn,tag=g-1,nohostname,rfc=5424");
        let expected = SyslogTarget {
            server: SyslogServer::Unix("/etc/gray/x/log".into()),
            facility: 3,
            severity: 4,
            tag: "g-1".to_owned(),
            form: SyslogForm::Rfc5424,
            names_host: false,
        };
        assert_eq!(all, expected);
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1:514"),
            ("10.0.0.1:5514", "10.0.0.1:5514"),
            ("::1", "[::1]:514"),
            ("[::1]", "[::1]:514"),
            ("[::1]:5", "[::1]:5"),
        ] {
            let server = parsed(&format!("server={text}")).server;
            assert_eq!(server, SyslogServer::Udp(address.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_target_is_refused_by_its_part() {
        for (text, what) in [
            ("server=", "`` is no server of syslog"),
            (
                "server=logs.example",
                "`logs.example` is no server of syslog",
            ),
            ("server=unix:", "`unix:` is no server"),
            ("server=10.0.0.1:0", "`10.0.0.1:0` is no server"),
            ("facility=local8", "`local8` is no facility of syslog"),
            ("severity=warning", "`warning` is no severity"),
            ("tag=a b", "`a b` is no tag"),
            ("rfc=1", "`1` is no rfc"),
            ("nohostname=1", "`nohostname=1` is not a parameter"),
            ("port=1", "`port=1` is not a parameter of syslog"),
            (",", "`` is not a parameter of syslog"),
            ("tag=a,tag=b", "tag is given twice"),
        ] {
            let error = syslog(text, Path::new("/")).unwrap_err();
            assert!(error.what.starts_with(what), "{text}: {}", error.what);
            assert!(error.allowed.contains("server=unix:PATH"));
        }
    }
}
