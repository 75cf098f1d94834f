//! Everything that can go wrong with a request, each with one name.
//!
//! The same word stands in the code, in the log, in the metrics and in the docs. Three kinds:
//!
//! - a [`Refusal`] is the gateway's own answer because of the *client's* message or because it
//!   has nowhere to send it;
//! - a [`Failure`] ends one attempt on one *peer*; it says whether another attempt may follow;
//! - a [`Close`] is the reason why a *downstream connection* ends.
//!
//! And two that go wrong with no request yet: a [`StoreFindingKind`] is what is to be looked at in the
//! *store*, and [`Checked`] is what a *health check* of a peer has come to.
//!
//! The status of each is fixed here and nowhere else.

/// Defines an enum whose variants have a name for logs and metrics, and a line of explanation.
macro_rules! named {
    (
        $(#[$outer:meta])*
        pub enum $kind:ident { $( $variant:ident = $name:literal, $text:literal; )* }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $( #[doc = $text] $variant, )* }

        impl $kind {
            /// Every variant, in the order of its index.
            pub const ALL: &[Self] = &[ $( Self::$variant, )* ];

            /// The one name: in logs, metrics and docs.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// One line of explanation.
            pub const fn text(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            /// Position in [`Self::ALL`], for tables of counters.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

named! {
    /// Why the gateway answers a request itself. Sources: RFC 9110, RFC 9112.
    pub enum Refusal {
        BadRequestLine = "bad-request-line", "the request line is not `method SP target SP version`";
        BadMethod = "bad-method", "the method is not a token, or is longer than 32 bytes";
        MethodNotAllowed = "method-not-allowed", "CONNECT and TRACE are not served";
        BadTarget = "bad-target", "the target is not in origin, absolute or asterisk form, or has forbidden bytes";
        BadVersion = "bad-version", "the version is neither HTTP/1.1 nor HTTP/1.0";
        LineTooLong = "line-too-long", "the request line is longer than max_line, or does not fit into max_head";
        HeadTooLarge = "head-too-large", "the head is larger than max_head";
        TooManyFields = "too-many-fields", "the head has more than max_fields fields";
        BadField = "bad-field", "a header field has a forbidden byte, is folded, or has no name or colon, or Connection is not a list of at most 100 tokens";
        BareLineFeed = "bare-lf", "a line of the head does not end with CR LF";
        NoHost = "no-host", "an HTTP/1.1 request has no Host";
        ManyHosts = "many-hosts", "the request has more than one Host";
        BadHost = "bad-host", "the Host is not `host [: port]`";
        LengthAndCoding = "length-and-coding", "the request has both Content-Length and Transfer-Encoding";
        ManyLengths = "many-lengths", "more than one Content-Length";
        BadLength = "bad-length", "the Content-Length is not a number of 1 to 19 digits";
        BadCoding = "bad-coding", "the Transfer-Encoding is ambiguous or malformed";
        UnknownCoding = "unknown-coding", "the Transfer-Encoding is not `chunked`";
        CodingOnHttp10 = "coding-on-http10", "an HTTP/1.0 request has a Transfer-Encoding";
        BodyTooLarge = "body-too-large", "the body is larger than max_body";
        BadExpect = "bad-expect", "the Expect field is not `100-continue`";
        MaxForwards = "max-forwards", "Max-Forwards lets an OPTIONS request go no further, so the gateway answers it";
        BadChunk = "bad-chunk", "the chunked coding of the body is malformed";
        BadTrailer = "bad-trailer", "a trailer field is malformed";
        TrailerTooLarge = "trailer-too-large", "the trailer section is larger than max_head or max_fields";
        HeadTimeout = "head-timeout", "the head did not arrive within head_timeout";
        BodyTimeout = "body-timeout", "nothing of the body arrived for body_timeout, or it came slower than min_rate";
        OverCapacity = "over-capacity", "max_connections connections are active";
        UnknownHost = "unknown-host", "no service has the Host, and the default one does not take it (`default_service = off`)";
        UnknownPath = "unknown-path", "services have the Host, but none the path, and the default one does not take it";
        NoLists = "no-lists", "no lists have been read yet";
        NoPeers = "no-peers", "the pool has no peer";
    }
}

impl AdminRefusal {
    /// What the answer says.
    pub const fn status(self) -> u16 {
        match self {
            Self::NoToken | Self::WrongToken => 401,
            Self::ForeignHost | Self::NoCommand | Self::ReadOnly | Self::ClientsHidden => 403,
        }
    }
}

impl Refusal {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::MaxForwards => 200,
            Self::BadRequestLine
            | Self::BadMethod
            | Self::BadTarget
            | Self::BadField
            | Self::BareLineFeed
            | Self::NoHost
            | Self::ManyHosts
            | Self::BadHost
            | Self::LengthAndCoding
            | Self::ManyLengths
            | Self::BadLength
            | Self::BadCoding
            | Self::CodingOnHttp10
            | Self::BadChunk
            | Self::BadTrailer => 400,
            Self::UnknownPath => 404,
            Self::MethodNotAllowed => 405,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::LineTooLong => 414,
            Self::BadExpect => 417,
            // RFC 9110 section 15.5.20.
            Self::UnknownHost => 421,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailerTooLarge => 431,
            Self::UnknownCoding => 501,
            Self::OverCapacity | Self::NoLists | Self::NoPeers => 503,
            Self::BadVersion => 505,
        }
    }
}

named! {
    /// What a health check of a peer has come to.
    pub enum Checked {
        Ok = "ok", "the status is one of `expect`, and the response is complete, or longer than 64k";
        Status = "status", "the status is another";
        Timeout = "timeout", "the check was not over within `timeout`";
        Refused = "refused", "the server refused the connection";
        Unreachable = "unreachable", "the network says that the server cannot be reached";
        Closed = "closed", "the server closed or reset before the end of its response";
        Malformed = "malformed", "what came is no response by HTTP/1, or its head is larger than 16k";
        NotMade = "not-made", "the gateway itself could not make it, for want of descriptors, ports or memory: that says nothing of the server";
    }
}

named! {
    /// Why the admin listener refuses a request whose head is good.
    #[allow(rustdoc::broken_intra_doc_links)] // `[admin]` is a section.
    pub enum AdminRefusal {
        ForeignHost = "foreign-host", "the Host is not an IP address, localhost, or one of the names in [admin] hosts";
        NoCommand = "no-command", "a change is accepted only with the field X-Graygate-Command: accept, and without an Origin";
        NoToken = "no-token", "over TCP, changes require the token in [admin] token_file, as Authorization: Bearer; where [admin] listen is not loopback, reading as well";
        WrongToken = "wrong-token", "the request's Authorization is not the token in [admin] token_file";
        ReadOnly = "read-only", "over TCP, nothing is changed without [admin] token_file; [admin] socket serves everything";
        ClientsHidden = "clients-hidden", "over TCP, what tells who is on a list of clients requires [admin] expose = full; [admin] socket serves everything";
    }
}

named! {
    /// Why an attempt on a peer failed.
    pub enum Failure {
        Stale = "stale", "a pooled connection was found closed before any byte of a response";
        ConnectRefused = "connect-refused", "the peer refused the connection";
        ConnectTimeout = "connect-timeout", "the peer did not accept within connect_timeout";
        ConnectFailed = "connect-failed", "the connection could not be made; see the error log";
        OutOfPorts = "out-of-ports", "the gateway has no local port left for a connection to the peer; raise net.ipv4.ip_local_port_range";
        NoneUsable = "none-usable", "no peer may be asked: they are new, and their first health check has not succeeded yet";
        OutOfDescriptors = "out-of-descriptors", "the gateway has no descriptor left for the connection; raise its limit";
        SendFailed = "send-failed", "the peer closed or reset while the request was sent";
        SendTimeout = "send-timeout", "the peer took nothing of the request for send_timeout";
        ReadTimeout = "read-timeout", "no response head within read_timeout, or no consent within body_timeout while the client waits for it";
        ClosedEarly = "closed-early", "the peer closed or reset before a whole response head";
        BadResponseHead = "bad-response-head", "the response head is malformed";
        ResponseHeadTooLarge = "response-head-too-large", "the response head is larger than max_head or max_fields";
        BadResponseFraming = "bad-response-framing", "the response's length or coding is malformed or ambiguous";
        Deadline = "deadline", "the request has taken longer than deadline, with all that it was tried";
        InterimFlood = "interim-flood", "the peer has sent nothing but interim responses, above the permitted rate, for 600 times read_timeout";
        UnexpectedUpgrade = "unexpected-upgrade", "the peer switched protocols unasked";
        ResponseCut = "response-cut", "the peer closed or reset the connection within the response body";
        ResponseStalled = "response-stalled", "nothing of the response body came for stall_timeout";
        BadResponseChunk = "bad-response-chunk", "the chunked coding of the response body is malformed";
        Draining = "draining", "the gateway is shutting down, and drain_timeout has expired";
        ClientGone = "client-gone", "the client vanished, so the attempt was given up";
    }
}

/// What may follow a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No byte of the request reached the peer's program.
    Always,
    /// The peer may be acting on the request, and take its time.
    IfSafe,
    /// The peer may have acted on the request.
    IfIdempotent,
    /// The peer may have acted on the request, unless its body waits for the peer's consent.
    UnlessAwaited,
    /// Part of a response may have been forwarded, or the fault is not the peer's.
    Never,
}

impl Failure {
    /// The status of the gateway's answer when no attempt is left.
    pub const fn status(self) -> u16 {
        match self {
            Self::ConnectTimeout
            | Self::SendTimeout
            | Self::ReadTimeout
            | Self::Deadline
            | Self::InterimFlood => 504,
            Self::NoneUsable | Self::OutOfDescriptors | Self::OutOfPorts | Self::Draining => 503,
            _ => 502,
        }
    }

    /// Whether it speaks against the peer: not what its client, the gateway or the end of the gateway has
    /// caused, nor that a connection that it had kept is closed.
    pub(crate) const fn blames_peer(self) -> bool {
        match self {
            Self::Stale
            | Self::NoneUsable
            | Self::OutOfDescriptors
            | Self::OutOfPorts
            // Unless one peer has had all of that time: see `Exchange::account`.
            | Self::Deadline
            // Silence within a response is legal, and those that wait for the same event are all silent at
            // once: too little to leave the peer alone for. One that hangs has no heads for others either.
            | Self::ResponseStalled
            | Self::Draining
            | Self::ClientGone => false,
            Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::SendFailed
            | Self::SendTimeout
            | Self::ReadTimeout
            | Self::ClosedEarly
            | Self::BadResponseHead
            | Self::ResponseHeadTooLarge
            | Self::BadResponseFraming
            | Self::InterimFlood
            | Self::UnexpectedUpgrade
            | Self::ResponseCut
            | Self::BadResponseChunk => true,
        }
    }

    /// Whether another attempt may follow.
    pub const fn retry(self) -> Retry {
        match self {
            Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::OutOfPorts => Retry::Always,
            Self::Stale => Retry::UnlessAwaited,
            // It may well be at work on the request, as others would be then.
            Self::ReadTimeout => Retry::IfSafe,
            Self::SendFailed
            | Self::SendTimeout
            | Self::ClosedEarly
            | Self::BadResponseHead
            | Self::ResponseHeadTooLarge
            | Self::BadResponseFraming
            | Self::UnexpectedUpgrade => Retry::IfIdempotent,
            Self::NoneUsable
            | Self::OutOfDescriptors
            | Self::Deadline
            | Self::InterimFlood
            | Self::ResponseCut
            | Self::ResponseStalled
            | Self::BadResponseChunk
            | Self::Draining
            | Self::ClientGone => Retry::Never,
        }
    }
}

named! {
    /// Why a downstream connection was closed.
    pub enum Close {
        ClientClosed = "client-closed", "the client closed the connection between two requests";
        ClientGone = "client-gone", "the client closed or reset the connection within a request or its response";
        HeadTimeout = "head-timeout", "no request came within head_timeout on a new connection";
        KeepaliveTimeout = "keepalive-timeout", "no request came for keepalive_timeout";
        ConnectionClose = "connection-close", "the client asked for it, or speaks HTTP/1.0";
        Refused = "refused", "the request was refused";
        BodyUnread = "body-unread", "the response was complete before the request body";
        BodyCut = "body-cut", "the client ended the connection within the request body";
        ResponseEnd = "response-end", "the response body ends with the connection";
        ResponseCut = "response-cut", "the response body was cut short, by the peer or by deadline";
        SendTimeout = "send-timeout", "the client took nothing of the response for send_timeout, or took it slower than min_rate";
        UntrustedProxy = "untrusted-proxy", "a connection to a listener for proxies came from an address that is not in trusted_proxies";
        BadProxyHeader = "bad-proxy-header", "a connection to a listener for proxies did not begin with a PROXY protocol header";
        TunnelEnded = "tunnel-ended", "an upgraded connection ended";
        TakenBack = "taken-back", "an upgraded connection to pre was ended, since its client is served by prod by now";
        Draining = "draining", "the gateway is shutting down";
        ListenerRemoved = "listener-removed", "a reload has removed the address that the client came by";
        Moved = "moved", "the connection goes on in the next process of an upgrade";
        OverCapacity = "over-capacity", "max_connections connections are active";
        Panic = "panic", "an internal error; see the error log";
    }
}

named! {
    /// Why a trusted proxy is not believed about the client; the proxy itself then counts as the client.
    pub enum Doubt {
        MalformedChain = "malformed-chain", "an element of X-Forwarded-For is not an address, with or without a port";
        LongChain = "long-chain", "X-Forwarded-For has more than 64 addresses up to the client's";
        NoChain = "no-chain", "the client is named only in X-Real-IP or Forwarded, not in X-Forwarded-For";
        UnnamedClient = "unnamed-client", "the PROXY header names nobody, so anybody may have written X-Forwarded-For";
    }
}

named! {
    /// Why a tester's word on the version does not count.
    pub enum WrongForce {
        NoPool = "no-pool", "it is neither `pre` nor `prod`, or shows a secret where none is asked for";
        NoSecret = "no-secret", "it shows no secret, and `force_secret_file` names one";
        WrongSecret = "wrong-secret", "it shows another secret than that of `force_secret_file`";
    }
}

named! {
    /// What is out of the ordinary with the store, while its lists are followed, or with proxies in front.
    pub enum StoreFindingKind {
        ProxyNotBelieved = "proxy-not-believed", "a trusted proxy was not believed within the last hour, so the proxy itself counted as the client";
        ReplicaLinkDown = "replica-link-down", "the lists come from a replica whose link to its master is down";
        NameUnresolved = "name-unresolved", "a name in the lists cannot be resolved: its last addresses stay, or it has no servers";
        KeysEvicted = "keys-evicted", "Redis has evicted keys because its memory was full, and a list is gone";
    }
}

named! {
    /// Why a gateway that serves is not as well as it should be.
    pub enum Degradation {
        PoolOut = "pool-out", "no server of a pool is up";
        ServiceUnserved = "service-unserved", "a service has no lists, or nobody in prod to ask, so that its requests get 503";
        PoolFailing = "pool-failing", "fewer than half of a pool's servers are up";
        DescriptorsShort = "descriptors-short", "there are too few descriptors for max_connections, or nine in ten of them are open";
        LogDropped = "log-dropped", "log lines were dropped within the last hour";
        ReloadFailed = "reload-failed", "the last reload was not possible, so the settings before it are in force";
        RestartPending = "restart-pending", "the last reload has changed settings that only a restart brings into force";
        ListsUnreadable = "lists-unreadable", "the lists cannot be read at present, so those in force may be old";
        NameUnresolved = "name-unresolved", "a name in the lists cannot be resolved at present";
    }
}

/// The reason phrase of the statuses that the gateway itself answers with.
pub(crate) const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_within_a_kind_and_indexes_follow_the_order() {
        let names: [Vec<&str>; 6] = [
            Degradation::ALL.iter().map(|it| it.name()).collect(),
            Doubt::ALL.iter().map(|it| it.name()).collect(),
            Refusal::ALL.iter().map(|it| it.name()).collect(),
            Failure::ALL.iter().map(|it| it.name()).collect(),
            Close::ALL.iter().map(|it| it.name()).collect(),
            StoreFindingKind::ALL.iter().map(|it| it.name()).collect(),
        ];
        for names in names {
            let mut unique = names.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), names.len());
        }
        assert!(
            Close::ALL
                .iter()
                .enumerate()
                .all(|(at, it)| it.index() == at)
        );
    }

    #[test]
    fn every_status_has_a_reason_phrase() {
        let refusals = Refusal::ALL.iter().map(|it| it.status());
        let failures = Failure::ALL.iter().map(|it| it.status());
        for status in refusals.chain(failures) {
            assert_ne!(reason_phrase(status), "Error", "{status}");
        }
    }
}
