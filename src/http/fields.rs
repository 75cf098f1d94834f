//! Header fields: where they stand in a head, and which of them mean something to a gateway.

use super::head::Span;

/// One header field, as offsets into the bytes of its head.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, as received.
    pub name: Span,
    /// The value, without surrounding white space.
    pub value: Span,
    /// What it means to the gateway.
    pub kind: Kind,
}

/// What a field means to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
    /// Of this connection only, never passed on: `Keep-Alive`, `Proxy-Connection`, `TE`,
    /// `Trailer`, `HTTP2-Settings` (RFC 9110 section 7.6.1).
    HopByHop,
    /// `X-Graygate…`, by which only the gateway itself speaks, and names with `_` that some
    /// servers read as one of the above (`Transfer_Encoding`): never passed on.
    Forbidden,
}

impl Kind {
    /// The kind of the field with this name.
    pub fn of(name: &[u8]) -> Self {
        // By length, so that a name is compared with a few of them at most.
        let known: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::HopByHop)],
            4 => &[("host", Self::Host)],
            6 => &[("expect", Self::Expect)],
            7 => &[("upgrade", Self::Upgrade), ("trailer", Self::HopByHop)],
            9 => &[("x-real-ip", Self::RealIp), ("forwarded", Self::Forwarded)],
            10 => &[
                ("connection", Self::Connection),
                ("user-agent", Self::UserAgent),
                ("keep-alive", Self::HopByHop),
            ],
            12 => &[("max-forwards", Self::MaxForwards)],
            14 => &[
                ("content-length", Self::ContentLength),
                ("http2-settings", Self::HopByHop),
            ],
            15 => &[("x-forwarded-for", Self::ForwardedFor)],
            16 => &[
                ("x-forwarded-host", Self::ForwardedHost),
                ("proxy-connection", Self::HopByHop),
            ],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::ForwardedProto),
            ],
            _ => &[],
        };
        for (known, kind) in known {
            if reads_as(name, known.as_bytes()) {
                return match mimics(name) {
                    true => Self::Forbidden,
                    false => *kind,
                };
            }
        }
        if !matches!(name, [b'x' | b'X', ..]) {
            return Self::Other;
        }
        let begins_as = |begin: &[u8]| {
            name.get(..begin.len())
                .is_some_and(|it| reads_as(it, begin))
        };
        match () {
            () if begins_as(b"x-graygate") => Self::Forbidden,
            () if !begins_as(b"x-forwarded-") => Self::Other,
            () if mimics(name) => Self::Forbidden,
            () => Self::Forwarded,
        }
    }
}

/// True when some server takes `name` for `known`, which is in lower case.
fn reads_as(name: &[u8], known: &[u8]) -> bool {
    let same = |(byte, known): (&u8, &u8)| match byte {
        b'_' => *known == b'-',
        byte => byte.to_ascii_lowercase() == *known,
    };
    name.len() == known.len() && name.iter().zip(known).all(same)
}

/// True when `name` is written as no field is that means something.
fn mimics(name: &[u8]) -> bool {
    // Without a call and a branch: names are short.
    name.iter()
        .fold(false, |found, byte| found | (*byte == b'_'))
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
    /// Names of further fields that are of this connection only, with commas between: kept beyond
    /// the head, since they hold for its trailer, too.
    nominated: Vec<u8>,
}

/// More options than this in one head are refused.
const MAX_OPTIONS: usize = 100;

impl ConnectionOptions {
    /// Reads all `Connection` fields into `self`, whose memory is reused.
    ///
    /// Returns false when they are no list of tokens, or too many.
    #[must_use]
    pub fn read(&mut self, bytes: &[u8], fields: &[Field]) -> bool {
        (self.close, self.keep_alive, self.upgrade) = (false, false, false);
        self.nominated.clear();
        let mut count = 0;
        for field in fields.iter().filter(|it| it.kind == Kind::Connection) {
            for option in list(field.value, bytes) {
                count += 1;
                let name = option.of(bytes);
                if count > MAX_OPTIONS || !name.iter().all(|byte| is_token_byte(*byte)) {
                    return false;
                }
                match name {
                    name if name.eq_ignore_ascii_case(b"close") => self.close = true,
                    name if name.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                    name if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                    name => {
                        self.nominated.extend_from_slice(name);
                        self.nominated.push(b',');
                    }
                }
            }
        }
        true
    }

    /// True when the field was named in `Connection`, so that it must not be passed on.
    pub fn nominates(&self, name: &[u8]) -> bool {
        let mut nominated = self.nominated.split(|byte| *byte == b',');
        !self.nominated.is_empty() && nominated.any(|it| it.eq_ignore_ascii_case(name))
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

/// RFC 9110 section 5.6.2: the bytes of a token.
pub fn is_token_byte(byte: u8) -> bool {
    const TOKEN: ByteSet = ByteSet::alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN.has(byte)
}

/// A set of bytes, in which one is looked up at once.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// ASCII letters, digits, and these.
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < set.len() {
            set[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            set[others[at] as usize] = true;
            at += 1;
        }
        Self(set)
    }

    pub(super) const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_in_any_case_and_mimicry_is_seen_through() {
        let table: &[(&str, Kind)] = &[
            ("HOST", Kind::Host),
            ("Te", Kind::HopByHop),
            ("content-LENGTH", Kind::ContentLength),
            ("Content_Length", Kind::Forbidden),
            ("X_Forwarded_For", Kind::Forbidden),
            ("X-Forwarded_For", Kind::Forbidden),
            ("X-Graygate-Pool", Kind::Forbidden),
            ("x_graygate", Kind::Forbidden),
            ("my_field", Kind::Other),
            ("X-Gray", Kind::Other),
            ("x-forwarded-Port", Kind::Forwarded),
            ("X_Forwarded-Port", Kind::Forbidden),
            ("X-Forwarded", Kind::Other),
            ("Accept", Kind::Other),
        ];
        for (name, kind) in table {
            assert_eq!(Kind::of(name.as_bytes()), *kind, "{name}");
        }
    }

    #[test]
    fn connection_options_are_read_over_several_fields() {
        let bytes = b"close, X-One ,,Upgrade;x-two";
        let field = |start, end| Field {
            name: Span::default(),
            value: Span::new(start, end),
            kind: Kind::Connection,
        };
        let mut options = ConnectionOptions::default();
        assert!(options.read(bytes, &[field(0, 22), field(23, 28)]));
        assert!(options.close && options.upgrade && !options.keep_alive);
        assert!(options.nominates(b"x-ONE") && options.nominates(b"x-two"));
        assert!(!options.nominates(b"close") && !options.nominates(b"x-"));
        assert!(!options.read(bytes, &[field(0, 28)]), "`;` is in no token");
    }
}
