//! Requests that are gray, or not, by more than an address: by a header field, a cookie, a share; in a service
//! of their own, or because an entry has ended.

use std::io;

use crate::acts::{Stage, get};
use crate::client::Answer;
use crate::tally::Outcome;

/// What the gateways' ini files say of services: one by its host, and one by its path, which is released together
/// with the default one.
pub(crate) const SERVICES: &str = "\
[gray]\nexpose = all\n\
[service shop]\nhosts = shop.soak, *.shop.soak\n\
[service tunnels]\npaths = /tunnel\ngray = default\n";

/// On the default gray list beside a net: it has ended.
pub(crate) const ENDED: &str = "header:X-Ended until=2020-01-01T00:00Z";

/// The gray list of the shop.
pub(crate) const SHOP: [&str; 6] = [
    "header:X-Tester=soak",
    "header:X-Open until=2099-01-01T00:00Z note=\"for years\"",
    "cookie:beta~YES method:GET",
    "percent:30:cookie:uid",
    "percent:50:visitor",
    "!header:X-Old",
];

/// One request to the shop, or two of the same person.
pub(crate) fn act(stage: &mut Stage) -> io::Result<Outcome> {
    let person = stage.random.u32(..);
    let (own, expected) = match stage.random.u8(..8) {
        0 => ("X-Tester: soak\r\n".to_owned(), Some("pre")),
        1 => ("X-Open: 1\r\n".to_owned(), Some("pre")),
        2 => ("Cookie: a=b; beta=yes\r\n".to_owned(), Some("pre")),
        3 => ("X-Tester: soak\r\nX-Old: 1\r\n".to_owned(), Some("prod")),
        4 | 5 => (format!("Cookie: uid={person}\r\n"), None),
        6 => (String::new(), None),
        _ => return ended(stage),
    };
    let mut client = stage.plain()?;
    let first = client.ask(of_shop(stage, &own))?;
    let Some(pool) = pool(&first) else {
        return Ok(Outcome::Wrong(format!("{own:?}: {}", first.brief())));
    };
    if let Some(expected) = expected {
        return Ok(match pool == expected {
            true => Outcome::Right(1),
            false => Outcome::Wrong(format!("{own:?} is of {pool}")),
        });
    }
    // The same person, on another connection and with what the browser has got: nothing where the share by `uid`
    // has decided.
    let uid = own.trim_end().strip_prefix("Cookie: ");
    let cookies: Vec<&str> = uid.into_iter().chain(first.cookie.as_deref()).collect();
    if cookies.is_empty() {
        return Ok(Outcome::Wrong(format!("{own:?}: no cookie for a visitor")));
    }
    let own = format!("Cookie: {}\r\n", cookies.join("; "));
    let second = stage.plain()?.ask(of_shop(stage, &own))?;
    Ok(match self::pool(&second) == Some(pool) {
        true => Outcome::Right(2),
        false => Outcome::Wrong(format!("{own:?} is of {pool}, then: {}", second.brief())),
    })
}

fn of_shop(stage: &mut Stage, own: &str) -> String {
    let (target, _) = stage.target();
    let host = ["shop.soak", "www.shop.soak"][stage.random.usize(..2)];
    get(&target, own).replace("Host: soak", &format!("Host: {host}"))
}

/// The version that has served a request, if all is well.
fn pool(answer: &Answer) -> Option<&str> {
    let said = answer.disclosed.as_deref()?;
    let pool = said.split(';').next()?.strip_prefix("pool=")?;
    (answer.status == 200).then_some(pool)
}

/// Of somebody who was gray.
fn ended(stage: &mut Stage) -> io::Result<Outcome> {
    let (target, _) = stage.target();
    let answer = stage.plain()?.ask(get(&target, "X-Ended: 1\r\n"))?;
    Ok(match pool(&answer) {
        Some("prod") => Outcome::Right(1),
        _ => Outcome::Wrong(answer.brief()),
    })
}
