//! Who asks, and for what, as far as a decision may depend on it: a view of a head, in which each part is
//! looked up when it is asked for.

use std::net::IpAddr;

use super::fields::{Field, FieldKind, Fields};
use super::h1::head::{RequestHead, Target};
use super::visitor::{Visitor, VisitorId};

/// A request of a client.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The client's address.
    pub client: IpAddr,
    head: &'a RequestHead,
    /// The bytes that the head was parsed from.
    bytes: &'a [u8],
    visitor: Option<&'a Visitor<'a>>,
}

impl<'a> Subject<'a> {
    /// A request of `client` whose `head` was parsed from these `bytes`.
    pub fn new(client: IpAddr, head: &'a RequestHead, bytes: &'a [u8]) -> Self {
        Self {
            client,
            head,
            bytes,
            visitor: None,
        }
    }

    /// The same, of a client that the gateway may know again by its own cookie.
    pub(crate) fn with_visitor(self, visitor: &'a Visitor<'a>) -> Self {
        Self {
            visitor: Some(visitor),
            ..self
        }
    }

    /// The bytes of the head.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header fields.
    pub fn fields(&self) -> &'a Fields {
        &self.head.fields
    }

    /// The method; its case matters.
    pub fn method(&self) -> &'a [u8] {
        self.head.method.of(self.bytes)
    }

    /// The host without its port and without a dot at its end, which stands for the root of all names, in the
    /// case in which it was sent; empty if there is none.
    pub fn host(&self) -> &'a [u8] {
        let authority = self.head.authority();
        let authority = authority.map_or(&[][..], |it| it.of(self.bytes));
        let end = match authority {
            [b'[', ..] => memchr::memchr(b']', authority).map(|it| it + 1),
            _ => memchr::memchr(b':', authority),
        };
        let host = &authority[..end.unwrap_or(authority.len())];
        host.strip_suffix(b".").unwrap_or(host)
    }

    /// The path and the query, as they were sent.
    fn origin_form(&self) -> &'a [u8] {
        match self.head.form {
            Target::Absolute { rest, .. } => rest.of(self.bytes),
            _ => self.head.target.of(self.bytes),
        }
    }

    /// The path as it was sent, without its query; `/` for a target that has none.
    pub fn path(&self) -> &'a [u8] {
        let target = self.origin_form();
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        match &target[..end] {
            [] => b"/",
            path => path,
        }
    }

    /// The query, as it was sent, if there is one.
    pub fn query(&self) -> Option<&'a [u8]> {
        let target = self.origin_form();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }

    /// The parameters of the query in their order, each a name and a value, as they were sent: see
    /// [`decode`](super::query::decode).
    pub fn parameters(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        super::query::parameters(self.query().unwrap_or_default())
    }

    /// The cookies of all `Cookie` fields in their order, each a name and a value, as they were sent (RFC
    /// 6265 section 4.2.1).
    pub fn cookies(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let fields = self.head.fields.of_kind(FieldKind::Cookie);
        fields.flat_map(move |it| super::cookies::pairs(it.value.of(bytes)))
    }

    /// The value of the first field of this `name`, in whatever case, if there is one.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let is_it = |it: &&Field| {
            let own = it.name.of(self.bytes);
            own.eq_ignore_ascii_case(name.as_bytes())
        };
        let field = self.head.fields.iter().find(is_it)?;
        Some(field.value.of(self.bytes))
    }

    /// The value of the first cookie of this `name`, if there is one.
    pub fn cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut cookies = self.cookies();
        cookies.find_map(|(it, value)| (it == name).then_some(value))
    }

    /// The id of the visitor, which is the key of `percent:N:visitor`. To ask for it is to have it: a client
    /// that has none gets a new one, and is told so by the answer. So it is asked for only where the share
    /// is what is left to be looked at. `None` where nobody can get one, as for a question of what would be.
    pub(crate) fn visitor(&self) -> Option<VisitorId> {
        self.visitor.map(|it| it.id(self.cookies()))
    }
}
