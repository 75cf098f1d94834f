//! Versions: numbers with dots between them.

use super::{AppVersion, Comparison};

/// The numbers of a version, from the left, if `text` is one: decimal, of at most 18 digits, with dots
/// between them, perhaps behind a `v`.
fn numbers(text: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let text = text
        .strip_prefix(b"v")
        .or(text.strip_prefix(b"V"))
        .unwrap_or(text);
    let numbers = || text.split(|byte| *byte == b'.');
    let is_number =
        |it: &[u8]| (1..=LONGEST).contains(&it.len()) && it.iter().all(u8::is_ascii_digit);
    let read = |digits: &[u8]| {
        let digits = digits.iter().map(|byte| u64::from(byte - b'0'));
        digits.fold(0, |sum, digit| sum * 10 + digit)
    };
    numbers().all(is_number).then(|| numbers().map(read))
}

/// Most digits of a number, so that it fits.
const LONGEST: usize = 18;

impl AppVersion {
    /// Reads one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers: Vec<u64> = numbers(text.as_bytes())?.collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        let shown: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let text = match &*shown {
            [] => "0".into(),
            _ => shown.join(".").into(),
        };
        let numbers = numbers.into();
        Some(Self { numbers, text })
    }
}

impl Comparison {
    /// As it is written.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::Greater => ">",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_its_numbers() {
        let longest = "9".repeat(LONGEST);
        for (text, shown) in [
            ("2.10.3", Some("2.10.3")),
            ("v2.1.0", Some("2.1")),
            ("V2", Some("2")),
            ("0.0", Some("0")),
            ("5.12.0.331", Some("5.12.0.331")),
            ("2.01", Some("2.1")),
            (&longest, Some(&*longest)),
            (&(longest.clone() + "9"), None),
            ("", None),
            ("v", None),
            ("vv1", None),
            ("1.", None),
            (".1", None),
            ("1..2", None),
            ("1.2-rc1", None),
            ("-1", None),
            (" 1", None),
            ("1.x", None),
        ] {
            let version = AppVersion::parse(text);
            assert_eq!(version.map(|it| it.text).as_deref(), shown, "{text}");
        }
    }
}
