//! The local time, in the forms in which logs have it.

// The offset from UTC is only known to the C library.
#![allow(unsafe_code)]

use std::io::Write;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;

/// Offsets from UTC change at full quarters of an hour only, in seconds.
const QUARTER: u64 = 900;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The text of a time; it is made once a second, and the offset is asked for once a quarter of an hour.
#[derive(Default)]
pub(crate) struct LocalTimeText {
    second: Option<u64>,
    quarter: Option<u64>,
    /// In seconds.
    offset: i64,
    /// `29/Nov/2026:16:19:43 +0000`
    common: Vec<u8>,
    /// `2026-11-29T16:19:43+00:00`
    iso8601: Vec<u8>,
}

impl LocalTimeText {
    /// As in nginx's `$time_local`.
    pub(super) fn common(&mut self, time: SystemTime) -> &[u8] {
        self.follow(time);
        &self.common
    }

    /// As in nginx's `$time_iso8601`.
    pub(crate) fn iso8601(&mut self, time: SystemTime) -> &[u8] {
        self.follow(time);
        &self.iso8601
    }

    /// Appends `Nov 29 16:19:43`, as in RFC 3164.
    pub(super) fn put_bsd(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        self.follow(time);
        if let [tens, ones, b'/', month @ .., b'/', _, _, _, _, b':'] = &self.common[..12] {
            out.extend_from_slice(month);
            out.push(b' ');
            out.push(if *tens == b'0' { b' ' } else { *tens });
            out.push(*ones);
            out.push(b' ');
            out.extend_from_slice(&self.common[12..20]);
        }
    }

    fn follow(&mut self, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs();
        if self.second == Some(second) {
            return;
        }
        if self.quarter != Some(second / QUARTER) {
            self.quarter = Some(second / QUARTER);
            self.offset = offset(second);
        }
        self.second = Some(second);
        self.write(second);
    }

    fn write(&mut self, second: u64) {
        let local = second.saturating_add_signed(self.offset);
        let local = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(local));
        let (sign, minutes) = match self.offset {
            offset @ 0.. => ('+', offset / 60),
            offset => ('-', -offset / 60),
        };
        let (hours, minutes) = (minutes / 60, minutes % 60);
        self.iso8601.clear();
        // Writing to a Vec cannot fail; the last letter is that of UTC.
        let _ = write!(self.iso8601, "{local}");
        self.iso8601.pop();
        self.common.clear();
        if let Some((date, time)) = self.iso8601.split_at_checked("2026-11-29".len())
            && let [year @ .., b'-', tens, ones, b'-', _, _] = date
        {
            let month = usize::from(tens - b'0') * 10 + usize::from(ones - b'0');
            let month = MONTHS[month.clamp(1, 12) - 1];
            self.common.extend_from_slice(&date[date.len() - 2..]);
            let _ = write!(self.common, "/{month}/");
            self.common.extend_from_slice(year);
            self.common.push(b':');
            self.common.extend_from_slice(&time[1..]);
        }
        let _ = write!(self.common, " {sign}{hours:02}{minutes:02}");
        let _ = write!(self.iso8601, "{sign}{hours:02}:{minutes:02}");
    }
}

/// By how many seconds the local time is ahead of UTC at this second since 1970.
fn offset(second: u64) -> i64 {
    let time = second.cast_signed();
    let mut local = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both point to values that are ours; the second one is filled where the result is not null.
    let known = unsafe { libc::localtime_r(&raw const time, local.as_mut_ptr()) };
    if known.is_null() {
        return 0;
    }
    // SAFETY: it has been filled.
    let local = unsafe { local.assume_init() };
    local.tm_gmtoff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_are_as_nginx_writes_them_on_both_sides_of_utc() {
        for (offset, common, iso8601) in [
            (0, "14/Jul/2017:02:40:09 +0000", "2017-07-14T02:40:09+00:00"),
            (
                8 * 3600,
                "14/Jul/2017:10:40:09 +0800",
                "2017-07-14T10:40:09+08:00",
            ),
            (
                -9000,
                "14/Jul/2017:00:10:09 -0230",
                "2017-07-14T00:10:09-02:30",
            ),
            (
                -5 * 3600,
                "13/Jul/2017:21:40:09 -0500",
                "2017-07-13T21:40:09-05:00",
            ),
        ] {
            let second = 1_500_000_009;
            let mut text = LocalTimeText {
                quarter: Some(second / QUARTER),
                offset,
                ..LocalTimeText::default()
            };
            let time = UNIX_EPOCH + Duration::from_secs(second);
            assert_eq!(text.common(time), common.as_bytes());
            assert_eq!(text.iso8601(time), iso8601.as_bytes());
        }
        let mut text = LocalTimeText {
            quarter: Some(1_499_000_009 / QUARTER),
            ..LocalTimeText::default()
        };
        let mut out = Vec::new();
        text.put_bsd(UNIX_EPOCH + Duration::from_secs(1_499_000_009), &mut out);
        assert_eq!(out, b"Jul  2 12:53:29");
    }
}
