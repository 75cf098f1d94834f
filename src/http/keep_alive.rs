//! How long a server says it keeps an idle connection: `Keep-Alive: timeout=5, max=100`.
//!
//! No current standard defines the field (RFC 2068 section 19.7.1.1 did), but Node, Apache and others send
//! it with each response. It is a list of parameters, whose values may be quoted; some servers separate
//! them by semicolons.

use std::time::Duration;

use super::fields::{Field, FieldKind, Fields};

/// How long the server keeps the connection when idle, if it says so: the shortest time that it names.
pub(crate) fn timeout(fields: &Fields, bytes: &[u8]) -> Option<Duration> {
    let is_it = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(b"keep-alive");
    let values = fields.of_kind(FieldKind::HopByHop).filter(is_it);
    let values = values.map(|it| it.value.of(bytes));
    values.filter_map(shortest).min()
}

fn shortest(value: &[u8]) -> Option<Duration> {
    let mut quoted = false;
    let parameters = value.split(|byte| {
        quoted ^= *byte == b'"';
        !quoted && matches!(byte, b',' | b';')
    });
    parameters.filter_map(timeout_of).min()
}

fn timeout_of(parameter: &[u8]) -> Option<Duration> {
    let equals = parameter.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&parameter[..equals], &parameter[equals + 1..]);
    let is_timeout = name.trim_ascii().eq_ignore_ascii_case(b"timeout");
    let value = value.trim_ascii();
    let bare = value.strip_prefix(b"\"");
    let bare = bare.and_then(|it| it.strip_suffix(b"\""));
    let value = bare.unwrap_or(value).trim_ascii();
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    (is_timeout && is_number).then(|| {
        let add = |number: u32, digit: &u8| {
            let tens = number.saturating_mul(10);
            tens.saturating_add(u32::from(digit - b'0'))
        };
        Duration::from_secs(value.iter().fold(0, add).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_found_among_parameters_in_any_form() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100,timeout=5", Some(5)),
            ("Timeout = 5 ; max=100", Some(5)),
            ("timeout=\"5\"", Some(5)),
            ("timeout=\" 5 \" , max=\"1\"", Some(5)),
            (", ,timeout=015,", Some(15)),
            ("timeout=7, timeout=3", Some(3)),
            ("timeout=0", Some(0)),
            ("timeout=99999999999999999999", Some(u64::from(u32::MAX))),
            ("note=\"a, timeout=1\", timeout=9", Some(9)),
            ("note=\"timeout=1", None),
            ("5", None),
            ("", None),
            ("timeout", None),
            ("timeout=", None),
            ("timeout=-5", None),
            ("timeout=+5", None),
            ("timeout=5s", None),
            ("timeout=5.5", None),
            ("timeout=\"5", None),
            ("mytimeout=5", None),
            ("max=100", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(shortest(value.as_bytes()), expected, "{value}");
        }
    }
}
