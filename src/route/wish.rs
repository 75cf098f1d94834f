//! Who says by which pool a request is served before the lists are asked: a tester, by a header field or a
//! cookie; and a trusted proxy, by its mark.
//!
//! What cannot be believed is as if it were not there.

use super::decide::{Decision, Reason};
use crate::config::GraySettings;
use crate::error::WrongForce;
use crate::http::subject::Subject;
use crate::lists::PoolName;

/// What is wished for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The pool, and who has said so.
    pub(crate) decision: Option<Decision>,
    /// What a tester has said that did not count.
    pub(crate) refused: Option<WrongForce>,
}

/// What `subject` wishes for by these settings; it comes `by_proxy` if that is a trusted one.
pub(crate) fn wish(subject: &Subject<'_>, settings: &GraySettings, by_proxy: bool) -> Wish {
    let mut wish = Wish::default();
    let header = settings.force_header.as_deref();
    let header = header.and_then(|it| subject.header(it));
    let cookie = settings.force_cookie.as_deref();
    let cookie = cookie.and_then(|it| subject.cookie(it.as_bytes()));
    // An empty one is what is left of one that was taken back.
    for said in [header, cookie].into_iter().flatten() {
        match forced(said, settings) {
            _ if said.is_empty() => {}
            Ok(pool) => {
                wish.decision = Some(Decision::without_entry(pool, Reason::Forced));
                return wish;
            }
            Err(wrong) => wish.refused = Some(wrong),
        }
    }
    if settings.follow_mark && by_proxy {
        let mark = subject.header(&settings.mark_header);
        let pool = mark.and_then(pool);
        wish.decision = pool.map(|pool| Decision::without_entry(pool, Reason::Marked));
    }
    wish
}

/// The pool that a tester may have, who has said this.
fn forced(said: &[u8], settings: &GraySettings) -> Result<PoolName, WrongForce> {
    let colon = memchr::memchr(b':', said);
    let (name, shown) = match colon {
        Some(colon) => (&said[..colon], Some(&said[colon + 1..])),
        None => (said, None),
    };
    let pool = pool(name).ok_or(WrongForce::NoPool)?;
    match (&settings.force_secret, shown) {
        // It was not read, which no gateway that serves can get into.
        (None, _) if settings.force_secret_file.is_some() => Err(WrongForce::WrongSecret),
        (None, None) => Ok(pool),
        // There is none to be shown: it is meant for another gateway.
        (None, Some(_)) => Err(WrongForce::NoPool),
        (Some(_), None) => Err(WrongForce::NoSecret),
        (Some(secret), Some(shown)) if secret.is(shown) => Ok(pool),
        (Some(_), Some(_)) => Err(WrongForce::WrongSecret),
    }
}

fn pool(name: &[u8]) -> Option<PoolName> {
    let mut all = PoolName::ALL.into_iter();
    all.find(|it| it.name().as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    use crate::config::Config;
    use crate::http::h1::head::{RequestHead, Scanner};
    use crate::http::limits::Limits;
    use crate::process::secret::Secret;

    const SECRET: &str = "correct-horse-battery";

    fn settings(lines: &str) -> GraySettings {
        let text = format!("[redis]\nurl = redis://h\n[gray]\n{lines}");
        let config = Config::parse(Path::new("/g.ini"), &text, None).unwrap();
        let mut settings = config.gray;
        let has_secret = settings.force_secret_file.is_some();
        settings.force_secret = has_secret.then(|| Arc::new(Secret::of(SECRET)));
        settings
    }

    /// The pool and the reason, or why not.
    fn wished(settings: &GraySettings, fields: &str, by_proxy: bool) -> String {
        const LIMITS: Limits = Limits {
            line: 100,
            head: 1000,
            fields: 10,
        };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        let parsed = head.parse(text.as_bytes(), &mut Scanner::default(), &LIMITS);
        parsed.unwrap();
        let subject = Subject::new([10, 0, 0, 1].into(), &head, text.as_bytes());
        let Wish { decision, refused } = wish(&subject, settings, by_proxy);
        let decision = decision.map(|it| format!("{} {}", it.pool.name(), it.reason.name()));
        let refused = refused.map(|it| format!("({})", it.name()));
        let words: Vec<String> = decision.into_iter().chain(refused).collect();
        words.join(" ")
    }

    #[test]
    fn a_testers_word_counts_if_it_names_a_pool_and_shows_the_secret_where_there_is_one() {
        let open = settings("force_header = X-Force\nforce_cookie = force\n");
        let shut =
            settings("force_header = X-Force\nforce_cookie = force\nforce_secret_file = s\n");
        // Without a secret, and with one.
        for (fields, of_open, of_shut) in [
            ("", "", ""),
            ("x-force: pre\r\n", "pre forced", "(no-secret)"),
            ("X-Force: prod\r\n", "prod forced", "(no-secret)"),
            ("Cookie: a=1; force=pre\r\n", "pre forced", "(no-secret)"),
            (
                "Cookie: a=1\r\nCookie: force=prod\r\n",
                "prod forced",
                "(no-secret)",
            ),
            (
                "X-Force: pre:correct-horse-battery\r\n",
                "(no-pool)",
                "pre forced",
            ),
            (
                "Cookie: force=prod:correct-horse-battery\r\n",
                "(no-pool)",
                "prod forced",
            ),
            (
                "X-Force: pre:correct-horse-batterz\r\n",
                "(no-pool)",
                "(wrong-secret)",
            ),
            ("X-Force: pre:\r\n", "(no-pool)", "(wrong-secret)"),
            ("X-Force: Pre\r\n", "(no-pool)", "(no-pool)"),
            ("X-Force: on\r\n", "(no-pool)", "(no-pool)"),
            ("X-Force: pre, prod\r\n", "(no-pool)", "(no-pool)"),
            ("X-Force: \r\nCookie: force=\r\n", "", ""),
            // The header goes before the cookie, if it counts; the first of several is what was said.
            (
                "X-Force: pre\r\nCookie: force=prod\r\n",
                "pre forced",
                "(no-secret)",
            ),
            (
                "X-Force: x\r\nCookie: force=prod\r\n",
                "prod forced (no-pool)",
                "(no-secret)",
            ),
            ("X-Force: x\r\nX-Force: pre\r\n", "(no-pool)", "(no-pool)"),
            ("Cookie: force=x; force=pre\r\n", "(no-pool)", "(no-pool)"),
            // Names that some servers would read as this one are not it; nor are cookies of another case.
            ("X_Force: pre\r\n", "", ""),
            ("Cookie: Force=pre\r\n", "", ""),
        ] {
            for by_proxy in [false, true] {
                assert_eq!(wished(&open, fields, by_proxy), of_open, "{fields:?}");
                assert_eq!(wished(&shut, fields, by_proxy), of_shut, "{fields:?}");
            }
        }
    }

    #[test]
    fn a_secret_that_was_not_read_lets_nobody_through() {
        let mut settings = settings("force_header = X-Force\nforce_secret_file = s\n");
        settings.force_secret = None;
        for fields in ["X-Force: pre\r\n", "X-Force: pre:\r\n"] {
            assert_eq!(wished(&settings, fields, true), "(wrong-secret)");
        }
    }

    #[test]
    fn a_mark_counts_from_trusted_proxies_behind_what_a_tester_says() {
        let follows = settings("follow_mark = on\nforce_header = X-Force\n");
        for (fields, of_proxy, of_other) in [
            ("X-Graygate-Pool: pre\r\n", "pre marked", ""),
            ("x-graygate-pool: prod\r\n", "prod marked", ""),
            (
                "X-Graygate-Pool: pre\r\nX-Graygate-Pool: prod\r\n",
                "pre marked",
                "",
            ),
            ("X-Graygate-Pool: PRE\r\n", "", ""),
            ("X-Graygate-Pool: pre:x\r\n", "", ""),
            ("X-Graygate-Pool: pre, pre\r\n", "", ""),
            ("X-Graygate-Pool: x\r\nX-Graygate-Pool: pre\r\n", "", ""),
            ("X-Graygate_Pool: pre\r\n", "", ""),
            (
                "X-Graygate-Pool: pre\r\nX-Force: prod\r\n",
                "prod forced",
                "prod forced",
            ),
            (
                "X-Graygate-Pool: pre\r\nX-Force: x\r\n",
                "pre marked (no-pool)",
                "(no-pool)",
            ),
        ] {
            assert_eq!(wished(&follows, fields, true), of_proxy, "{fields:?}");
            assert_eq!(wished(&follows, fields, false), of_other, "{fields:?}");
        }
        let other = settings("follow_mark = on\nmark_header = X-Canary\n");
        assert_eq!(wished(&other, "X-Canary: pre\r\n", true), "pre marked");
        assert_eq!(wished(&other, "X-Graygate-Pool: pre\r\n", true), "");
        let marks = settings("mark = on\n");
        assert_eq!(wished(&marks, "X-Graygate-Pool: pre\r\n", true), "");
    }
}
