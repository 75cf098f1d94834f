//! The access log: one line per request, as the [`LogFormat`] in force says; `main` is logfmt.
//!
//! A worker renders its lines into a batch of its own and hands the batch to the writer when it
//! is large enough or a tick of the clock old (`AccessLog::tick`), so that a request pays for
//! neither a system call nor a shared queue.
//!
//! What a client sends takes a bounded part of a line, and lines of requests that needed no server are
//! limited in number (`OwnLines`): a client cannot fill a disk.

mod custom;
mod json;
mod own_lines;

use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::LogFormat;
use crate::http::h1::encode::put_ip;
use crate::http::span::Span;
use crate::logs::local_time::LocalTimeText;
use crate::logs::writer::{BATCH, Batch, LogQueue};

pub(crate) use own_lines::OwnLines;

/// What the access log says of one request.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// When the answer was complete.
    pub time: SystemTime,
    /// The client's address.
    pub client: IpAddr,
    /// `pre`, `prod` or `-`.
    pub pool: &'a str,
    /// Why that pool, or `-`.
    pub reason: &'a str,
    /// The peer of the last attempt.
    pub peer: Option<SocketAddr>,
    /// Attempts made.
    pub attempts: u32,
    /// The status that was answered; 0 when nothing was.
    pub status: u16,
    /// Bytes of the request, head and body.
    pub received: u64,
    /// Bytes of the response, head and body.
    pub sent: u64,
    /// Those of its body, with the framing of chunks.
    pub body_sent: u64,
    /// From the first byte of the request to the last of the response.
    pub request_time: Duration,
    /// From the first attempt to the last byte of the response.
    pub upstream_time: Option<Duration>,
    /// The generation of the lists that decided.
    pub generation: u64,
    /// The service that it was for, or `-`.
    pub service: &'a str,
    /// There are others than the default one, so that lines name it.
    pub has_services: bool,
    /// The entry of the gray list that has decided, shortened, if it is more than an address.
    pub entry: Option<&'a [u8]>,
    /// The request's bucket, if that entry is about a share.
    pub bucket: Option<u16>,
    /// The request line as received, as far as it was.
    pub line: &'a [u8],
    /// The method, if the head was parsed.
    pub method: &'a [u8],
    /// The target as received.
    pub target: &'a [u8],
    /// The host that the request was for.
    pub host: &'a [u8],
    /// The User-Agent field.
    pub user_agent: Option<&'a [u8]>,
    /// The [fields that the format shows](LogFormat::fields).
    pub fields: ShownFields<'a>,
    /// The request's id, if it has one.
    pub request_id: Option<&'a [u8]>,
    /// Name of the refusal or failure.
    pub error: Option<&'a str>,
    /// Why the connection is closed after this request, if it is.
    pub close: Option<&'a str>,
    /// What has kept the request from being tried again, if something has.
    pub denied: Option<&'a str>,
    /// How many requests the line stands for, by `[log] sample`.
    pub sample: u32,
}

/// Fields of a request, in the order of the [format's](LogFormat::fields).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownFields<'a> {
    /// What the values are in.
    pub bytes: &'a [u8],
    /// Their values.
    pub values: &'a [Option<Span>],
}

impl<'a> ShownFields<'a> {
    fn get(self, place: usize) -> Option<&'a [u8]> {
        let value = self.values.get(place).copied().flatten();
        value.map(|it| it.of(self.bytes))
    }
}

/// Most bytes of a line in `main` or `json` that a value from outside takes, escapes included.
const VALUE_LIMIT: usize = 512;

/// One worker's access to the access log.
pub(crate) struct AccessLog {
    queue: LogQueue,
    batch: RefCell<Batch>,
    clocks: RefCell<Clocks>,
}

/// Times as text.
#[derive(Default)]
struct Clocks {
    utc: TimeText,
    local: LocalTimeText,
}

impl AccessLog {
    /// A worker's access to the log behind `queue`.
    pub(crate) fn new(queue: LogQueue) -> Self {
        queue.provide();
        Self {
            batch: RefCell::new(queue.new_batch()),
            queue,
            clocks: RefCell::default(),
        }
    }

    /// True when no lines are wanted.
    pub(crate) fn is_off(&self) -> bool {
        self.queue.is_off()
    }

    /// Adds a line. Returns true when it is the first since the last flush, so that the caller has to
    /// make sure that there is a next one.
    pub(crate) fn write(&self, record: &Record<'_>, format: &LogFormat) -> bool {
        let mut batch = self.batch.borrow_mut();
        let first = batch.lines == 0;
        record.render(format, &mut self.clocks.borrow_mut(), &mut batch.bytes);
        batch.lines += 1;
        if batch.bytes.len() >= BATCH {
            self.hand_over(&mut batch);
        }
        first
    }

    /// Hands over the lines, unless they would only wait for the writer there. Returns true while some
    /// are left.
    pub(crate) fn tick(&self) -> bool {
        let is_late = self.batch.borrow().lines > 0 && self.queue.is_behind();
        if !is_late {
            self.flush();
        }
        is_late
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.lines > 0 {
            self.hand_over(&mut batch);
        }
    }

    fn hand_over(&self, batch: &mut Batch) {
        let next = self.queue.new_batch();
        self.queue.send(std::mem::replace(batch, next));
    }
}

impl Record<'_> {
    fn render(&self, format: &LogFormat, clocks: &mut Clocks, out: &mut Vec<u8>) {
        match format {
            LogFormat::Main => self.render_main(&mut clocks.utc, out),
            LogFormat::Json(_) => self.render_json(&mut clocks.utc, out),
            LogFormat::Custom(format) => self.render_custom(format, &mut clocks.local, out),
        }
        out.push(b'\n');
    }

    fn render_main(&self, clock: &mut TimeText, out: &mut Vec<u8>) {
        out.extend_from_slice(b"time=");
        clock.write(self.time, out);
        out.extend_from_slice(b" client=");
        put_ip(out, self.client);
        plain(out, b" pool=", self.pool);
        plain(out, b" reason=", self.reason);
        match self.peer {
            Some(peer) => address(out, b" peer=", peer),
            None => plain(out, b" peer=", "-"),
        }
        number(out, b" attempts=", self.attempts);
        out.extend_from_slice(b" status=");
        digits(out, u32::from(self.status), 3);
        number(out, b" received=", self.received);
        number(out, b" sent=", self.sent);
        seconds(out, b" request_time=", self.request_time);
        match self.upstream_time {
            Some(time) => seconds(out, b" upstream_time=", time),
            None => plain(out, b" upstream_time=", "-"),
        }
        number(out, b" generation=", self.generation);
        // A method is a token, which needs no quotes; one that was refused is not shown.
        out.extend_from_slice(b" method=");
        out.extend_from_slice(match self.method {
            b"" => b"-",
            method => method,
        });
        quoted(out, b" target=", self.target);
        quoted(out, b" host=", self.host);
        quoted(out, b" user_agent=", self.user_agent.unwrap_or_default());
        plain(out, b" error=", self.error.unwrap_or("-"));
        plain(out, b" close=", self.close.unwrap_or("-"));
        if let Some(denied) = self.denied {
            plain(out, b" denied=", denied);
        }
        if self.sample > 1 {
            number(out, b" sample=", self.sample);
        }
        if let Some(id) = self.request_id {
            out.extend_from_slice(b" request_id=");
            out.extend_from_slice(id);
        }
        if self.has_services {
            plain(out, b" service=", self.service);
        }
        if let Some(entry) = self.entry {
            quoted(out, b" entry=", entry);
        }
        if let Some(bucket) = self.bucket {
            percent(out, b" bucket=", bucket);
        }
    }
}

fn address(out: &mut Vec<u8>, key: &[u8], value: SocketAddr) {
    match value {
        SocketAddr::V4(value) => {
            out.extend_from_slice(key);
            put_ip(out, (*value.ip()).into());
            number(out, b":", value.port());
        }
        value => text(out, key, format_args!("{value}")),
    }
}

fn plain(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    out.extend_from_slice(value.as_bytes());
}

fn text(out: &mut Vec<u8>, key: &[u8], value: std::fmt::Arguments<'_>) {
    out.extend_from_slice(key);
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(value);
}

fn number(out: &mut Vec<u8>, key: &[u8], value: impl itoa::Integer) {
    out.extend_from_slice(key);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn seconds(out: &mut Vec<u8>, key: &[u8], value: Duration) {
    number(out, key, value.as_secs());
    out.push(b'.');
    digits(out, value.subsec_micros(), 6);
}

/// A bucket, in percent.
fn percent(out: &mut Vec<u8>, key: &[u8], bucket: u16) {
    number(out, key, bucket / 100);
    out.push(b'.');
    digits(out, u32::from(bucket % 100), 2);
}

/// `value` in exactly `width` decimal digits, at most 9.
fn digits(out: &mut Vec<u8>, value: u32, width: usize) {
    let mut text = [b'0'; 9];
    let mut rest = value;
    for digit in text[..width].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[..width]);
}

/// Writes a quoted value, with everything escaped that could end the quotes or the line, or confuse a
/// terminal.
fn quoted(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    let (mut rest, mut room) = (value, VALUE_LIMIT);
    loop {
        let run = rest.iter().take(room).take_while(|byte| is_plain(**byte));
        let (plain, behind) = rest.split_at(run.count());
        out.extend_from_slice(plain);
        room -= plain.len();
        let Some((byte, behind)) = behind.split_first().filter(|_| room >= ESCAPE) else {
            break;
        };
        out.extend_from_slice(&escape(*byte));
        room -= ESCAPE;
        rest = behind;
    }
    out.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// The length of an escape.
const ESCAPE: usize = 4;

/// `\x1B` and the like.
fn escape(byte: u8) -> [u8; ESCAPE] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS[usize::from(value)];
    [b'\\', b'x', digit(byte >> 4), digit(byte & 15)]
}

/// The text of a time; most of the time only the milliseconds change.
#[derive(Default)]
struct TimeText {
    second: Option<u64>,
    text: Vec<u8>,
}

impl TimeText {
    /// Appends `time` as in RFC 3339, in UTC with milliseconds.
    fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text.clear();
            let whole = UNIX_EPOCH + Duration::from_secs(since.as_secs());
            text(
                &mut self.text,
                b"",
                format_args!("{}", humantime::format_rfc3339_seconds(whole)),
            );
            // The millisecond digits go before this letter.
            self.text.pop();
        }
        out.extend_from_slice(&self.text);
        out.push(b'.');
        digits(out, since.subsec_millis(), 3);
        out.push(b'Z');
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, LogTarget};
    use crate::logs::writer::{Links, Log, open_file};

    pub(super) fn record() -> Record<'static> {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_500_000_000_007),
            client: [127, 0, 0, 5].into(),
            pool: "pre",
            reason: "listed",
            peer: Some(([127, 0, 0, 1], 9001).into()),
            attempts: 1,
            status: 200,
            received: 100,
            sent: 200,
            body_sent: 150,
            request_time: Duration::from_micros(1234),
            upstream_time: Some(Duration::from_micros(2_000_001)),
            generation: 3,
            service: "default",
            has_services: false,
            entry: None,
            bucket: None,
            line: b"GET /x?y HTTP/1.1",
            method: b"GET",
            target: b"/x?y",
            host: b"h",
            user_agent: Some(b"curl"),
            fields: ShownFields {
                bytes: b"",
                values: &[],
            },
            request_id: None,
            error: None,
            close: None,
            denied: None,
            sample: 1,
        }
    }

    fn line(record: &Record<'_>) -> String {
        String::from_utf8(rendered(record, "main")).unwrap()
    }

    /// The format that `[log] format` means.
    pub(super) fn format(text: &str) -> LogFormat {
        let ini = format!("[lists]\nfile = l\n[log]\nformat = {text}\n");
        let config = Config::parse(Path::new("/x.ini"), &ini, None);
        config.unwrap().log.format
    }

    /// The line of a record in this format.
    pub(super) fn rendered(record: &Record<'_>, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        record.render(&format(text), &mut Clocks::default(), &mut out);
        out
    }

    #[test]
    fn a_line_has_every_field_in_its_place() {
        assert_eq!(
            line(&record()),
            "time=2017-07-14T02:40:00.007Z client=127.0.0.5 pool=pre reason=listed \
             peer=127.0.0.1:9001 attempts=1 status=200 received=100 sent=200 \
             request_time=0.001234 upstream_time=2.000001 generation=3 method=GET \
             target=\"/x?y\" host=\"h\" user_agent=\"curl\" error=- close=-\n"
        );
    }

    #[test]
    fn the_service_is_named_where_there_are_others_than_the_default_one() {
        let of = |service| Record {
            service,
            has_services: true,
            ..record()
        };
        let json = |record: &Record<'_>| -> serde_json::Value {
            serde_json::from_slice(&rendered(record, "json")).unwrap()
        };
        let usual = line(&record());
        let start = usual.trim_end();
        for (service, in_json) in [("shop", "shop".into()), ("-", serde_json::Value::Null)] {
            assert_eq!(line(&of(service)), format!("{start} service={service}\n"));
            let custom = rendered(&of(service), "$status $service");
            assert_eq!(custom, format!("200 {service}\n").as_bytes());
            assert_eq!(json(&of(service))["service"], in_json);
        }
        assert!(json(&record()).get("service").is_none());
        assert_eq!(rendered(&record(), "$service"), b"default\n");
    }

    #[test]
    fn the_entry_that_has_decided_is_at_the_end_of_its_lines_only() {
        let decided = |entry: &'static [u8], bucket| Record {
            entry: Some(entry),
            bucket,
            ..record()
        };
        let plain = line(&record());
        let start = plain.trim_end();
        for (bucket, shown) in [(0, "0.00"), (7, "0.07"), (3742, "37.42"), (9999, "99.99")] {
            let decided = decided(b"percent:50 cookie:\"a\"", Some(bucket));
            let expected =
                format!("{start} entry=\"percent:50 cookie:\\x22a\\x22\" bucket={shown}\n");
            assert_eq!(line(&decided), expected);
            let custom = rendered(&decided, "escape=none $entry|$bucket");
            let expected = format!("percent:50 cookie:\"a\"|{shown}\n");
            assert_eq!(String::from_utf8(custom).unwrap(), expected);
            let json: serde_json::Value =
                serde_json::from_slice(&rendered(&decided, "json")).unwrap();
            assert_eq!(json["entry"], "percent:50 cookie:\"a\"");
            assert_eq!(json["bucket"], f64::from(bucket) / 100.0);
        }
        assert_eq!(line(&decided(b"*", None)), format!("{start} entry=\"*\"\n"));
        let json: serde_json::Value = serde_json::from_slice(&rendered(&record(), "json")).unwrap();
        assert!(json.get("entry").is_none() && json.get("bucket").is_none());
        assert_eq!(rendered(&record(), "$entry $bucket"), b"- -\n");
    }

    #[test]
    fn what_a_client_sends_cannot_break_the_line() {
        let mut hostile = record();
        hostile.user_agent = Some(b"a\"b\\c\r\n\x1b[31m\xff");
        hostile.target = &[b'x'; 600];
        hostile.status = 0;
        let line = line(&hostile);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#"user_agent="a\x22b\x5Cc\x0D\x0A\x1B[31m\xFF""#));
        assert!(line.contains(&format!("\"{}\"", "x".repeat(512))));
        assert!(line.contains(" status=000 "));
    }

    #[test]
    fn what_a_client_sends_takes_so_much_room_whatever_it_is() {
        let quoted = |value: &[u8]| {
            let mut out = Vec::new();
            quoted(&mut out, b"", value);
            String::from_utf8(out).unwrap()
        };
        let (escapes, plain) = (|count| "\\xFF".repeat(count), |count| "a".repeat(count));
        for (value, shown) in [
            (vec![0xff; 128], escapes(128)),
            (vec![0xff; 129], escapes(128)),
            (vec![0xff; 8192], escapes(128)),
            (vec![b'a'; 512], plain(512)),
            (vec![b'a'; 513], plain(512)),
            // An escape stands whole or not at all.
            (
                [&[b'a'; 508][..], &[0xff; 9]].concat(),
                plain(508) + &escapes(1),
            ),
            ([&[b'a'; 509][..], &[0xff; 9]].concat(), plain(509)),
            ([&[b'a'; 511][..], b"\xffa"].concat(), plain(511)),
            (
                b"\xffa\xff".repeat(200),
                "\\xFFa\\xFF".repeat(56) + "\\xFFa",
            ),
        ] {
            assert_eq!(quoted(&value), format!("\"{shown}\""));
        }
    }

    #[test]
    fn a_lone_line_is_handed_over_at_a_tick_although_no_memory_of_old_batches_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let target = LogTarget::File(path.clone());
        let log = Log::open("access", &target, |it| {
            open_file(it, Links::Follow, Duration::ZERO)
        })
        .unwrap();
        let queue = log.queue();
        let access_log = AccessLog::new(queue.clone());
        // More than were made ahead, and none of them is given back.
        drop((0..100).map(|_| queue.new_batch()).collect::<Vec<_>>());
        for count in 1..=3 {
            assert!(access_log.write(&record(), &LogFormat::Main));
            assert!(!access_log.tick(), "line {count} is left");
            queue.flush();
            let written = std::fs::read_to_string(&path).unwrap();
            assert_eq!(written, line(&record()).repeat(count));
        }
    }

    #[test]
    fn the_time_follows_the_clock_in_both_directions() {
        let mut text = TimeText::default();
        let mut out = Vec::new();
        for millis in [999, 1_000, 500] {
            text.write(UNIX_EPOCH + Duration::from_millis(millis), &mut out);
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.999Z1970-01-01T00:00:01.000Z1970-01-01T00:00:00.500Z"
        );
    }
}
