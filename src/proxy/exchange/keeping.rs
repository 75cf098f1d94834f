//! Whom a connection to a peer may serve next, once both messages on it are complete.

/// What was on the connection, as far as its next request depends on that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchanged {
    /// It counts as a user's: credentials or a challenge that authenticate connections were on it.
    pub(super) pins: bool,
    /// The answer began before the request's body had ended.
    pub(super) ahead: bool,
    /// An upgrade was asked, and not granted.
    pub(super) upgrade: bool,
    /// The client is a trusted proxy, on whose connection requests of many people may come.
    pub(super) by_proxy: bool,
    /// The client may ask again.
    pub(super) client_stays: bool,
}

/// Whom it serves next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Nobody.
    Close,
    /// The same client connection only.
    Pin,
    /// Anybody.
    Pool,
}

impl Keeping {
    pub(super) fn after(exchanged: Exchanged) -> Self {
        let Exchanged {
            pins,
            ahead,
            upgrade,
            by_proxy,
            client_stays,
        } = exchanged;
        // Some peers answer before the end of a body and take the rest for the next request; some take
        // what follows an upgrade for another protocol, whatever they have answered. So their next request
        // must be of the same user, and one word in a field does not make a proxy's connection one user's.
        if (ahead || upgrade) && by_proxy {
            return Self::Close;
        }
        if pins || ahead {
            return match client_stays {
                true => Self::Pin,
                false => Self::Close,
            };
        }
        match upgrade {
            true => Self::Close,
            false => Self::Pool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pins ahead upgrade by_proxy client_stays`, and who is served next.
    const ROWS: &str = "
        00000 pool,  00001 pool,  00010 pool,  00011 pool,
        00100 close, 00101 close, 00110 close, 00111 close,
        01000 close, 01001 pin,   01010 close, 01011 close,
        01100 close, 01101 pin,   01110 close, 01111 close,
        10000 close, 10001 pin,   10010 close, 10011 pin,
        10100 close, 10101 pin,   10110 close, 10111 close,
        11000 close, 11001 pin,   11010 close, 11011 close,
        11100 close, 11101 pin,   11110 close, 11111 close";

    #[test]
    fn whom_a_connection_serves_next_depends_on_what_was_on_it() {
        let rows = ROWS.split(',').map(str::trim);
        let mut count = 0;
        for (number, row) in rows.enumerate() {
            let (bits, expected) = row.split_once(' ').unwrap();
            assert_eq!(usize::from_str_radix(bits, 2), Ok(number));
            let bit = |place: usize| bits.as_bytes()[place] == b'1';
            let keeping = Keeping::after(Exchanged {
                pins: bit(0),
                ahead: bit(1),
                upgrade: bit(2),
                by_proxy: bit(3),
                client_stays: bit(4),
            });
            let expected = match expected.trim() {
                "close" => Keeping::Close,
                "pin" => Keeping::Pin,
                _ => Keeping::Pool,
            };
            assert_eq!(keeping, expected, "{bits}");
            count += 1;
        }
        assert_eq!(count, 32);
    }
}
