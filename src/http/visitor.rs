//! Who has come before: the cookie by which the gateway itself knows a client again.
//!
//! It is looked at only when somebody asks for it, and only then does a client that has none get one.

use std::cell::Cell;

/// What the cookie holds: 64 bits, as hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VisitorId([u8; 16]);

impl VisitorId {
    /// The one with this number.
    pub(crate) fn of(number: u64) -> Self {
        let digit = |place: usize| {
            let value = number >> (60 - 4 * place) & 15;
            b"0123456789abcdef"[value as usize]
        };
        Self(std::array::from_fn(digit))
    }

    /// The one that a cookie's value is, if it is one.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let digits: [u8; 16] = value.try_into().ok()?;
        let is_digit = |it: &u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(is_digit).then_some(Self(digits))
    }

    /// That of the first of these `cookies` that has the `name` and holds one.
    pub(crate) fn of_cookies<'b>(
        name: &[u8],
        mut cookies: impl Iterator<Item = (&'b [u8], &'b [u8])>,
    ) -> Option<Self> {
        cookies.find_map(|(it, value)| match it == name {
            true => Self::parse(value),
            false => None,
        })
    }

    /// As it is in the cookie, which is the key of shares.
    pub(crate) fn text(&self) -> &[u8; 16] {
        &self.0
    }
}

/// How the visitor of one request is found, and who it turned out to be.
pub(crate) struct Visitor<'a> {
    /// The cookie's name.
    cookie: &'a [u8],
    /// Gives an id to who has none.
    next_id: &'a dyn Fn() -> VisitorId,
    seen: Cell<Option<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    id: VisitorId,
    is_new: bool,
}

impl<'a> Visitor<'a> {
    /// Who is known by this `cookie`; others get the `next_id`.
    pub(crate) fn new(cookie: &'a [u8], next_id: &'a dyn Fn() -> VisitorId) -> Self {
        Self {
            cookie,
            next_id,
            seen: Cell::new(None),
        }
    }

    /// The id: that of the first of these `cookies` that has the name and holds one, else a new one. It is
    /// the same however often it is asked for.
    pub(super) fn id<'b>(&self, cookies: impl Iterator<Item = (&'b [u8], &'b [u8])>) -> VisitorId {
        if let Some(Seen { id, .. }) = self.seen.get() {
            return id;
        }
        let known = VisitorId::of_cookies(self.cookie, cookies);
        let id = known.unwrap_or_else(self.next_id);
        let is_new = known.is_none();
        self.seen.set(Some(Seen { id, is_new }));
        id
    }

    /// The id that the client is to be told: it was asked for, and is new.
    pub(crate) fn to_be_told(&self) -> Option<VisitorId> {
        self.seen.get().filter(|it| it.is_new).map(|it| it.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_hexadecimal_digits_in_lower_case() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let id = VisitorId::of(number);
            assert_eq!(id.text(), format!("{number:016x}").as_bytes());
            assert_eq!(VisitorId::parse(id.text()), Some(id));
        }
        for value in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "0123456789abcdeg",
            "\"0123456789abcd\"",
            " 123456789abcdef",
            "0123456789abcde\u{e9}",
        ] {
            assert_eq!(VisitorId::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn who_has_no_id_gets_one_and_only_if_somebody_asks() {
        let next = || VisitorId::of(7);
        let known = VisitorId::of(1);
        let text = known.text().as_slice();
        type Cookies<'a> = &'a [(&'a [u8], &'a [u8])];
        let table: &[(Cookies<'_>, Option<VisitorId>)] = &[
            (&[], None),
            (&[(b"v", text)], Some(known)),
            (&[(b"V", text)], None),
            (&[(b"v", b"x")], None),
            // What cannot be one stands in nobody's way: a cookie of another path goes before ours.
            (&[(b"v", b"x"), (b"v", text)], Some(known)),
            (&[(b"v", text), (b"v", b"0000000000000002")], Some(known)),
        ];
        for (cookies, expected) in table {
            let visitor = Visitor::new(b"v", &next);
            assert_eq!(visitor.to_be_told(), None);
            let id = visitor.id(cookies.iter().copied());
            assert_eq!(id, expected.unwrap_or(next()));
            assert_eq!(visitor.id([].into_iter()), id);
            assert_eq!(visitor.to_be_told(), expected.is_none().then_some(id));
        }
    }
}
