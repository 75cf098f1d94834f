//! Moments of `until`: RFC 3339 with a time of day and an offset; seconds may be left out.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::words::Wrong;

const MOMENT: Wrong = "until is a moment like 2026-12-01T18:00Z or 2026-12-01T18:00:30+08:00";

/// Reads a moment.
pub(super) fn moment(text: &str) -> Result<SystemTime, Wrong> {
    if text.starts_with('+') || is_length(text) {
        return Err(
            "a list cannot know when it was pushed: until is a moment like 2026-12-01T18:00Z",
        );
    }
    let Some((date, rest)) = text.split_once(['T', 't']) else {
        let is_date = text.len() == 10 && text.bytes().all(|it| it.is_ascii_digit() || it == b'-');
        return Err(match is_date {
            true => "a date without a time: until is a moment like 2026-12-01T18:00Z",
            false => MOMENT,
        });
    };
    let Some(at) = rest.find(['Z', 'z', '+', '-']) else {
        return Err("a time without Z or an offset: until is a moment like 2026-12-01T18:00Z");
    };
    let (time, zone) = rest.split_at(at);
    let offset = offset(zone).ok_or(MOMENT)?;
    let seconds = match time.len() {
        5 => ":00",
        8 => "",
        _ if time.contains('.') => return Err("until is a moment in whole seconds"),
        _ => return Err(MOMENT),
    };
    // It takes a leap second for the one before.
    if time.len() == 8 && time.ends_with(":60") {
        return Err(MOMENT);
    }
    let utc = [date, "T", time, seconds, "Z"].concat();
    let utc = humantime::parse_rfc3339(&utc).map_err(|_| MOMENT)?;
    let seconds = utc
        .duration_since(UNIX_EPOCH)
        .map_err(|_| MOMENT)?
        .as_secs();
    let seconds = seconds.checked_add_signed(-offset).filter(|it| *it <= LAST);
    seconds
        .map(|it| UNIX_EPOCH + Duration::from_secs(it))
        .ok_or(MOMENT)
}

/// The last second of the year 9999; no more digits are there for a year.
const LAST: u64 = 253_402_300_799;

/// `2h`, `90min`: a length of time.
fn is_length(text: &str) -> bool {
    let unit = text.trim_start_matches(|it: char| it.is_ascii_digit());
    !unit.is_empty() && unit.len() < text.len() && unit.bytes().all(|it| it.is_ascii_lowercase())
}

/// `Z`, `+08:00`, in seconds.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("Z") {
        return Some(0);
    }
    let two = |text: &str, most: i64| {
        let is_number = text.len() == 2 && text.bytes().all(|it| it.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.filter(|it: &i64| *it <= most)
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let seconds = (two(hours, 23)? * 60 + two(minutes, 59)?) * 60;
    match zone.as_bytes().first()? {
        b'-' => Some(-seconds),
        _ => Some(seconds),
    }
}

/// Writes a moment: in UTC, and without seconds where they are none.
pub(super) fn write_moment(f: &mut fmt::Formatter<'_>, time: SystemTime) -> fmt::Result {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    match text.strip_suffix(":00Z") {
        Some(minute) => write!(f, "{minute}Z"),
        None => f.write_str(&text),
    }
}
