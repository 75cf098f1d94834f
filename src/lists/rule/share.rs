//! `percent:N`, and by what the share is told.

use super::part::{PartKind, name};
use super::words::Wrong;
use super::{Part, ShareKey, Term};

const PERCENT: Wrong = "percent: is followed by a number from 0 to 100 with at most two decimals, like percent:5 or percent:0.5";

const KEYS: Wrong = "a share is by cookie:NAME, header:NAME, query:NAME or visitor, and else by address, like percent:5:cookie:uid or percent:5";

/// What stands behind `percent:`.
pub(super) fn share(text: &str) -> Result<Term, Wrong> {
    let (number, key) = match text.split_once(':') {
        Some((number, key)) => (number, Some(key)),
        None => (text, None),
    };
    if let Some(number) = number.strip_suffix('%')
        && hundredths(number).is_some()
    {
        return Err("percent: is followed by a number without %, like percent:5");
    }
    let limit = hundredths(number).ok_or(PERCENT)?;
    let by = key.map_or(Ok(ShareKey::Client), share_key)?;
    Ok(Term::Share { limit, by })
}

fn share_key(text: &str) -> Result<ShareKey, Wrong> {
    if text == "visitor" {
        return Ok(ShareKey::Visitor);
    }
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let kind = PartKind::of(kind).ok_or(KEYS)?;
    if rest.is_empty() {
        return Err(
            "a share by a cookie, header or query parameter needs its name, like percent:5:cookie:uid",
        );
    }
    if rest.contains(['=', '~', '<', '>']) {
        return Err(
            "a share is by a name without a value, like percent:5:cookie:uid; a value is a term of its own",
        );
    }
    let part: Part = name(kind, rest)?;
    Ok(ShareKey::Part(part))
}

/// A number from 0 to 100 in hundredths.
fn hundredths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = whole.len() > 1 && whole.starts_with('0');
    if !are_digits(whole) || !are_digits(decimals) || is_padded {
        return None;
    }
    // Zeros say nothing.
    let decimals = decimals.trim_end_matches('0');
    if whole.len() > 3 || decimals.len() > 2 {
        return None;
    }
    let hundredths = format!("{whole}{decimals:0<2}").parse().ok();
    hundredths.filter(|it| *it <= 10_000)
}
