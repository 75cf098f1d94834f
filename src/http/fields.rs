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
        const KNOWN: &[(&str, Kind)] = &[
            ("te", Kind::HopByHop),
            ("host", Kind::Host),
            ("expect", Kind::Expect),
            ("upgrade", Kind::Upgrade),
            ("trailer", Kind::HopByHop),
            ("x-real-ip", Kind::RealIp),
            ("forwarded", Kind::Forwarded),
            ("connection", Kind::Connection),
            ("user-agent", Kind::UserAgent),
            ("keep-alive", Kind::HopByHop),
            ("max-forwards", Kind::MaxForwards),
            ("http2-settings", Kind::HopByHop),
            ("content-length", Kind::ContentLength),
            ("x-forwarded-for", Kind::ForwardedFor),
            ("proxy-connection", Kind::HopByHop),
            ("x-forwarded-host", Kind::ForwardedHost),
            ("transfer-encoding", Kind::TransferEncoding),
            ("x-forwarded-proto", Kind::ForwardedProto),
        ];
        // Most fields begin like none of these, which is soon seen.
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        if !b"cefhkmptux".contains(&first) {
            return Kind::Other;
        }
        let matches = |(known, _): &&(&str, Kind)| {
            let known = known.as_bytes();
            known.len() == name.len() && known[0] == first && known.eq_ignore_ascii_case(name)
        };
        if let Some((_, kind)) = KNOWN.iter().find(matches) {
            return *kind;
        }
        let begins_as = |begin: &[u8]| {
            name.get(..begin.len())
                .is_some_and(|it| reads_as(it, begin))
        };
        let mimics = memchr::memchr(b'_', name).is_some();
        let reads_as_known = || {
            KNOWN
                .iter()
                .any(|(known, _)| reads_as(name, known.as_bytes()))
        };
        match () {
            () if begins_as(b"x-graygate") => Kind::Forbidden,
            () if begins_as(b"x-forwarded-") && mimics => Kind::Forbidden,
            () if begins_as(b"x-forwarded-") => Kind::Forwarded,
            () if mimics && reads_as_known() => Kind::Forbidden,
            () => Kind::Other,
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
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
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
