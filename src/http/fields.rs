//! Header fields: where they are in a head, and which of them mean something to a gateway.

use std::ops::{Deref, Range};
use std::slice;

use crate::http::bytes::is_token_byte;
use crate::http::span::Span;

/// One header field, as offsets into the bytes of its head.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, as received.
    pub name: Span,
    /// The value, without surrounding white space.
    pub value: Span,
    /// What it means to the gateway.
    pub kind: FieldKind,
    /// Its line was exactly what would be written for it: name, `: `, value, CR LF.
    pub is_as_written: bool,
}

impl Field {
    /// The range of the field's line with its CR LF, if it is what would be written for the field.
    pub(crate) fn line_as_written(&self) -> Option<Range<usize>> {
        self.is_as_written
            .then(|| self.name.range().start..self.value.range().end + 2)
    }
}

/// The fields of a head in their order, and which kinds are among them: it is asked for many that few heads
/// have. The memory is reused.
#[derive(Debug, Default)]
pub struct Fields {
    all: Vec<Field>,
    /// A bit for each kind.
    kinds: u32,
}

impl Fields {
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.kinds = 0;
    }

    pub(crate) fn push(&mut self, field: Field) {
        self.all.push(field);
        self.kinds |= field.kind.bit();
    }

    /// True when one is of this kind.
    pub(crate) fn has(&self, kind: FieldKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Those of this kind.
    pub(crate) fn of_kind(&self, kind: FieldKind) -> impl DoubleEndedIterator<Item = &Field> {
        let searched = match self.has(kind) {
            true => self.all.as_slice(),
            false => &[],
        };
        searched.iter().filter(move |it| it.kind == kind)
    }
}

impl Deref for Fields {
    type Target = [Field];

    fn deref(&self) -> &[Field] {
        &self.all
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

/// What a field means to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Nothing: it is passed on as it is.
    Other,
    /// `Host`
    Host,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Expect`
    Expect,
    /// `Upgrade`
    Upgrade,
    /// `User-Agent`; passed on, and logged.
    UserAgent,
    /// `Cookie`; passed on, and read where entries ask for cookies.
    Cookie,
    /// `Authorization`, `WWW-Authenticate` and their counterparts for proxies; passed on, and inspected:
    /// see `super::authentication`.
    Authentication,
    /// `Forwarded`, and any `X-Forwarded-…` that the gateway does not write itself.
    Forwarded,
    /// `X-Forwarded-For`
    ForwardedFor,
    /// `X-Forwarded-Proto`
    ForwardedProto,
    /// `X-Forwarded-Host`
    ForwardedHost,
    /// `X-Real-IP`
    RealIp,
    /// `Max-Forwards`
    MaxForwards,
    /// `X-Request-Id`, and names that some servers read as that one; see `super::request_id`.
    RequestId,
    /// `TE`, of which only `trailers` is passed on, written anew (RFC 9110 section 10.1.4).
    Te,
    /// `Trailer`; passed on where trailers are (RFC 9110 section 6.6.2).
    Trailer,
    /// Of this connection only, never passed on: `Keep-Alive`, `Proxy-Connection`,
    /// `HTTP2-Settings` (RFC 9110 section 7.6.1).
    HopByHop,
    /// Never passed on: `X-Graygate…`, which is reserved for the gateway itself; names that some servers
    /// read as one of the above (`Transfer_Encoding`, `X.Real.IP`), see `reads_as`; and `Proxy`, which
    /// is of use to attackers only: a CGI program gets it as `HTTP_PROXY`, and many send all their own
    /// requests through the proxy named there (CVE-2016-5385 and its kin).
    Forbidden,
}

impl FieldKind {
    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The kind of the field with this name.
    pub(crate) fn of(name: &[u8]) -> Self {
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        // No two of these share both length and first letter, so a name is compared with one of them at
        // most.
        let (known, kind): (&[u8], Self) = match (name.len(), first) {
            (2, b't') => (b"te", Self::Te),
            (4, b'h') => (b"host", Self::Host),
            (5, b'p') => (b"proxy", Self::Forbidden),
            (6, b'c') => (b"cookie", Self::Cookie),
            (6, b'e') => (b"expect", Self::Expect),
            (7, b'u') => (b"upgrade", Self::Upgrade),
            (7, b't') => (b"trailer", Self::Trailer),
            (9, b'x') => (b"x-real-ip", Self::RealIp),
            (9, b'f') => (b"forwarded", Self::Forwarded),
            (10, b'c') => (b"connection", Self::Connection),
            (10, b'u') => (b"user-agent", Self::UserAgent),
            (10, b'k') => (b"keep-alive", Self::HopByHop),
            (12, b'm') => (b"max-forwards", Self::MaxForwards),
            (12, b'x') => (b"x-request-id", Self::RequestId),
            (13, b'a') => (b"authorization", Self::Authentication),
            (14, b'c') => (b"content-length", Self::ContentLength),
            (14, b'h') => (b"http2-settings", Self::HopByHop),
            (15, b'x') => (b"x-forwarded-for", Self::ForwardedFor),
            (16, b'x') => (b"x-forwarded-host", Self::ForwardedHost),
            (16, b'p') => (b"proxy-connection", Self::HopByHop),
            (16, b'w') => (b"www-authenticate", Self::Authentication),
            (17, b't') => (b"transfer-encoding", Self::TransferEncoding),
            (17, b'x') => (b"x-forwarded-proto", Self::ForwardedProto),
            (18, b'p') => (b"proxy-authenticate", Self::Authentication),
            (19, b'p') => (b"proxy-authorization", Self::Authentication),
            _ => return Self::of_family(name),
        };
        match () {
            () if is_in_any_case(name, known) => kind,
            () if !reads_as(name, known) => Self::of_family(name),
            // Passed on, or replaced, together with what it is taken for.
            () if kind == Self::RequestId => kind,
            // No server derives framing or the client's identity from these.
            () if kind.is_harmless() => Self::Other,
            () => Self::Forbidden,
        }
    }

    /// True when names that only some servers read as this one may pass.
    fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::UserAgent | Self::Cookie | Self::MaxForwards | Self::Authentication
        )
    }

    /// The kind of a field by the beginning of its name.
    fn of_family(name: &[u8]) -> Self {
        // The third letter rules out nearly all that begin with `X-`.
        let may_be_known = match name {
            [b'x' | b'X', dash, b'f' | b'F' | b'g' | b'G', ..] => !dash.is_ascii_alphanumeric(),
            _ => false,
        };
        if !may_be_known {
            return Self::Other;
        }
        let begins_as = |begin: &[u8]| {
            name.get(..begin.len())
                .is_some_and(|it| reads_as(it, begin))
        };
        match () {
            () if begins_as(b"x-graygate") => Self::Forbidden,
            () if !begins_as(b"x-forwarded-") => Self::Other,
            () if name.iter().any(|byte| is_disguise(*byte)) => Self::Forbidden,
            () => Self::Forwarded,
        }
    }
}

/// True when `name` is `known`, which is in lower case and of the same length, whatever the case of its
/// letters.
fn is_in_any_case(name: &[u8], known: &[u8]) -> bool {
    // Eight bytes at a time. Of the bytes in a known name, letters have the bit 0x40, digits and `-` do
    // not; and the two cases of a letter differ in 0x20, half of that.
    const CASE: u64 = 0x2020_2020_2020_2020;
    let is_same = |name: &[u8; 8], known: &[u8; 8]| {
        let (name, known) = (u64::from_le_bytes(*name), u64::from_le_bytes(*known));
        (name ^ known) & !(known >> 1 & CASE) == 0
    };
    match (name.last_chunk(), known.last_chunk()) {
        // The last eight bytes may overlap with those before.
        (Some(name_end), Some(known_end)) => {
            let mut words = name.as_chunks().0.iter().zip(known.as_chunks().0);
            is_same(name_end, known_end) && words.all(|(name, known)| is_same(name, known))
        }
        _ => name.eq_ignore_ascii_case(known),
    }
}

/// True when some server takes `name` for `known`, which is in lower case.
///
/// CGI programs and their kind get a field as a variable in whose name a dash becomes `_` (RFC 3875
/// section 4.1.18). In one server or another, so does every byte that is neither a letter nor a digit:
/// `.` in PHP, all of them in lighttpd. So all of them are taken for a dash.
pub(crate) fn reads_as(name: &[u8], known: &[u8]) -> bool {
    let same = |(byte, known): (&u8, &u8)| match is_disguise(*byte) {
        true => *known == b'-',
        false => byte.to_ascii_lowercase() == *known,
    };
    name.len() == known.len() && name.iter().zip(known).all(same)
}

/// A byte of a name that some servers take for a dash, although it is not one.
fn is_disguise(byte: u8) -> bool {
    byte != b'-' && !byte.is_ascii_alphanumeric()
}

/// What the `Connection` fields of a head ask for (RFC 9110 section 7.6.1).
#[derive(Debug, Default)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// Names of further fields that are for this connection only, separated by commas. Kept longer than
    /// the head, since they apply to its trailer, too.
    nominated: Vec<u8>,
    /// Where in them the names begin that this gateway withholds, whatever the head says.
    withheld_from: usize,
}

/// More options than this in one head are refused.
const MAX_OPTIONS: usize = 100;

impl ConnectionOptions {
    /// Reads all `Connection` fields into `self`, whose memory is reused.
    ///
    /// Returns false when they are not a list of tokens, or too many.
    #[must_use]
    pub fn read(&mut self, bytes: &[u8], fields: &Fields) -> bool {
        (self.close, self.keep_alive, self.upgrade) = (false, false, false);
        self.nominated.clear();
        let mut count = 0;
        for field in fields.of_kind(FieldKind::Connection) {
            match field.value.of(bytes) {
                // Nearly all fields are one of these, and need no splitting.
                b"keep-alive" | b"Keep-Alive" => {
                    self.keep_alive = true;
                    count += 1;
                }
                b"close" => {
                    self.close = true;
                    count += 1;
                }
                _ => {
                    for option in list(field.value, bytes) {
                        count += 1;
                        if count > MAX_OPTIONS || !self.note(option.of(bytes)) {
                            return false;
                        }
                    }
                }
            }
        }
        self.withheld_from = self.nominated.len();
        count <= MAX_OPTIONS
    }

    /// Has these `names`, in lower case and separated by commas, not be passed on either, nor what some
    /// servers take for them. Until the next head.
    pub(crate) fn withhold(&mut self, names: &str) {
        self.nominated.extend_from_slice(names.as_bytes());
    }

    /// Notes one option; false when it is not a token.
    fn note(&mut self, name: &[u8]) -> bool {
        match name {
            name if !name.iter().all(|byte| is_token_byte(*byte)) => return false,
            name if name.eq_ignore_ascii_case(b"close") => self.close = true,
            name if name.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
            name if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            name => {
                self.nominated.extend_from_slice(name);
                self.nominated.push(b',');
            }
        }
        true
    }

    /// True when the field was named in `Connection` or is withheld, and so must not be passed on.
    #[inline]
    pub fn nominates(&self, name: &[u8]) -> bool {
        !self.nominated.is_empty() && self.names(name)
    }

    /// Separate from the check above, which runs for every field and must be inlined.
    fn names(&self, name: &[u8]) -> bool {
        let (nominated, withheld) = self.nominated.split_at(self.withheld_from);
        let mut nominated = nominated.split(|byte| *byte == b',');
        let mut withheld = withheld.split(|byte| *byte == b',');
        nominated.any(|it| it.eq_ignore_ascii_case(name)) || withheld.any(|it| reads_as(name, it))
    }
}

/// The elements of a comma-separated list, without white space and empty elements.
pub fn list(value: Span, bytes: &[u8]) -> impl DoubleEndedIterator<Item = Span> {
    let text = value.of(bytes);
    text.split(|byte| *byte == b',').filter_map(move |element| {
        let element = element.trim_ascii();
        let start = element.as_ptr() as usize - text.as_ptr() as usize;
        (!element.is_empty()).then(|| value.part(start, element.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_in_any_case_and_mimicry_is_seen_through() {
        let table: &[(&str, FieldKind)] = &[
            ("HOST", FieldKind::Host),
            ("Te", FieldKind::Te),
            ("content-LENGTH", FieldKind::ContentLength),
            ("Content_Length", FieldKind::Forbidden),
            ("X_Forwarded_For", FieldKind::Forbidden),
            ("X-Forwarded_For", FieldKind::Forbidden),
            ("X-Graygate-Pool", FieldKind::Forbidden),
            ("x_graygate", FieldKind::Forbidden),
            ("my_field", FieldKind::Other),
            ("X-Gray", FieldKind::Other),
            ("x-forwarded-Port", FieldKind::Forwarded),
            ("X_Forwarded-Port", FieldKind::Forbidden),
            ("X-Forwarded-Po.rt", FieldKind::Forbidden),
            ("X-Forwarded", FieldKind::Other),
            ("X!Forwarded-Proto", FieldKind::Forbidden),
            ("x.real.ip", FieldKind::Forbidden),
            ("Transfer~Encoding", FieldKind::Forbidden),
            ("Content|Length", FieldKind::Forbidden),
            ("X'Graygate.Pool", FieldKind::Forbidden),
            ("X*Forwarded*Port", FieldKind::Forbidden),
            ("Keep.Alive", FieldKind::Forbidden),
            ("User_Agent", FieldKind::Other),
            ("User.Agent", FieldKind::Other),
            ("Max_Forwards", FieldKind::Other),
            ("X.Frame.Options", FieldKind::Other),
            ("X.Gray", FieldKind::Other),
            ("Accept", FieldKind::Other),
        ];
        for (name, kind) in table {
            assert_eq!(FieldKind::of(name.as_bytes()), *kind, "{name}");
        }
    }

    /// What a name means, in the plainest form: all that is known, compared byte by byte.
    fn plainly(name: &[u8]) -> FieldKind {
        const KNOWN: &[(&str, FieldKind)] = &[
            ("te", FieldKind::Te),
            ("host", FieldKind::Host),
            ("proxy", FieldKind::Forbidden),
            ("expect", FieldKind::Expect),
            ("upgrade", FieldKind::Upgrade),
            ("trailer", FieldKind::Trailer),
            ("x-real-ip", FieldKind::RealIp),
            ("forwarded", FieldKind::Forwarded),
            ("connection", FieldKind::Connection),
            ("user-agent", FieldKind::UserAgent),
            ("keep-alive", FieldKind::HopByHop),
            ("max-forwards", FieldKind::MaxForwards),
            ("x-request-id", FieldKind::RequestId),
            ("content-length", FieldKind::ContentLength),
            ("http2-settings", FieldKind::HopByHop),
            ("x-forwarded-for", FieldKind::ForwardedFor),
            ("x-forwarded-host", FieldKind::ForwardedHost),
            ("proxy-connection", FieldKind::HopByHop),
            ("transfer-encoding", FieldKind::TransferEncoding),
            ("x-forwarded-proto", FieldKind::ForwardedProto),
            ("authorization", FieldKind::Authentication),
            ("www-authenticate", FieldKind::Authentication),
            ("proxy-authenticate", FieldKind::Authentication),
            ("proxy-authorization", FieldKind::Authentication),
        ];
        let read: Vec<u8> = name
            .iter()
            .map(|byte| match byte {
                byte if !byte.is_ascii_alphanumeric() => b'-',
                byte => byte.to_ascii_lowercase(),
            })
            .collect();
        let is_disguised = name
            .iter()
            .any(|byte| *byte != b'-' && !byte.is_ascii_alphanumeric());
        let known = KNOWN.iter().find(|(known, _)| read == known.as_bytes());
        let kind = match known {
            Some((_, kind)) => *kind,
            None if read.starts_with(b"x-graygate") => FieldKind::Forbidden,
            None if read.starts_with(b"x-forwarded-") => FieldKind::Forwarded,
            None => FieldKind::Other,
        };
        match kind {
            FieldKind::Other => FieldKind::Other,
            FieldKind::RequestId => FieldKind::RequestId,
            FieldKind::UserAgent | FieldKind::MaxForwards | FieldKind::Authentication
                if is_disguised =>
            {
                FieldKind::Other
            }
            _ if is_disguised => FieldKind::Forbidden,
            kind => kind,
        }
    }

    #[test]
    fn a_name_means_the_same_as_where_it_is_compared_with_all_byte_by_byte() {
        let names = [
            "te",
            "host",
            "proxy",
            "expect",
            "upgrade",
            "trailer",
            "x-real-ip",
            "forwarded",
            "connection",
            "user-agent",
            "keep-alive",
            "max-forwards",
            "x-request-id",
            "content-length",
            "http2-settings",
            "x-forwarded-for",
            "x-forwarded-host",
            "proxy-connection",
            "transfer-encoding",
            "x-forwarded-proto",
            "authorization",
            "www-authenticate",
            "proxy-authenticate",
            "proxy-authorization",
            "x-forwarded-port",
            "x-forwarded-",
            "x-forwarded",
            "x-graygate",
            "x-graygate-pool",
            "x-frame-options",
            "x-gray",
            "accept",
            "",
            "x",
            "x-",
            "content-type",
        ];
        let same = |name: &[u8]| {
            assert_eq!(
                FieldKind::of(name),
                plainly(name),
                "{}",
                name.escape_ascii()
            );
        };
        for name in names {
            same(name.as_bytes());
            // Every case, where there are not too many letters, and every second one elsewhere.
            let variants: u32 = 1 << name.len().min(12);
            for capitals in 0..variants {
                let varied = |(at, byte): (usize, u8)| match capitals >> (at % 12) & 1 {
                    1 => byte.to_ascii_uppercase(),
                    _ => byte,
                };
                same(&name.bytes().enumerate().map(varied).collect::<Vec<_>>());
            }
            // Every dash that is or is not another byte that a name may have.
            let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
            for disguise in *b"!#$%&'*+.^_`|~" {
                for disguised in 0..1_u32 << dashes.len() {
                    let mut written = name.as_bytes().to_vec();
                    for (bit, at) in dashes.iter().enumerate() {
                        if disguised >> bit & 1 == 1 {
                            written[*at] = disguise;
                        }
                    }
                    same(&written);
                    same(&written.to_ascii_uppercase());
                    written.push(disguise);
                    same(&written);
                }
            }
            // Every other byte in each place, one more, one less.
            for at in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut written = name.as_bytes().to_vec();
                    written[at] = byte;
                    same(&written);
                    written.insert(at, byte);
                    same(&written);
                }
                same(&name.as_bytes()[..at]);
                same(&name.as_bytes()[at..]);
            }
        }
    }

    /// `Connection` fields, by where their values are.
    fn connection(values: impl IntoIterator<Item = (usize, usize)>) -> Fields {
        let mut fields = Fields::default();
        for (start, end) in values {
            fields.push(Field {
                name: Span::default(),
                value: Span::new(start, end),
                kind: FieldKind::Connection,
                is_as_written: true,
            });
        }
        fields
    }

    #[test]
    fn fields_of_a_kind_are_found_in_their_order_and_no_others() {
        let mut fields = connection([(0, 1), (2, 3)]);
        let starts = |fields: &Fields, kind| {
            let found = fields.of_kind(kind).map(|it| it.value.range().start);
            found.collect::<Vec<_>>()
        };
        assert_eq!(starts(&fields, FieldKind::Connection), [0, 2]);
        assert!(starts(&fields, FieldKind::Host).is_empty());
        // The last one of all.
        let last = Field {
            kind: FieldKind::Forbidden,
            ..fields[1]
        };
        fields.push(last);
        assert_eq!(starts(&fields, FieldKind::Forbidden), [2]);
        assert_eq!(starts(&fields, FieldKind::Connection), [0, 2]);
        fields.clear();
        assert!(!fields.has(FieldKind::Connection) && fields.is_empty());
    }

    #[test]
    fn more_options_than_a_hundred_are_refused_however_they_are_written() {
        for option in ["close", "keep-alive", "Keep-Alive", "upgrade", "x"] {
            let mut options = ConnectionOptions::default();
            let mut read = |count| {
                let fields = connection(std::iter::repeat_n((0, option.len()), count));
                options.read(option.as_bytes(), &fields)
            };
            assert!(read(100) && !read(101), "{option}");
        }
    }

    #[test]
    fn an_option_means_the_same_in_any_case_and_alone_or_not() {
        for (text, expected) in [
            ("close", (true, false, false)),
            ("Close", (true, false, false)),
            ("keep-alive", (false, true, false)),
            ("Keep-Alive", (false, true, false)),
            ("KEEP-ALIVE", (false, true, false)),
            ("close,", (true, false, false)),
            ("keep-alive, Upgrade", (false, true, true)),
            ("", (false, false, false)),
            ("closed", (false, false, false)),
        ] {
            let mut options = ConnectionOptions::default();
            assert!(options.read(text.as_bytes(), &connection([(0, text.len())])));
            let read = (options.close, options.keep_alive, options.upgrade);
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn connection_options_are_read_over_several_fields() {
        let bytes = b"close, X-One ,,Upgrade;x-two";
        let mut options = ConnectionOptions::default();
        assert!(options.read(bytes, &connection([(0, 22), (23, 28)])));
        assert!(options.close && options.upgrade && !options.keep_alive);
        assert!(options.nominates(b"x-ONE") && options.nominates(b"x-two"));
        assert!(!options.nominates(b"close") && !options.nominates(b"x-"));
        assert!(
            !options.read(bytes, &connection([(0, 28)])),
            "`;` is in no token"
        );
    }
}
