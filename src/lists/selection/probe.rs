//! What a part of a request must be, in the form in which it is tested.

use std::cmp::Ordering;

use memchr::memmem::Finder;

use crate::lists::rule::{Comparison, Test};

/// A test, prepared for many values.
#[derive(Debug)]
pub(crate) enum Probe {
    /// Whatever the value is.
    Any,
    Is(Box<[u8]>),
    IsInAnyCase(Box<[u8]>),
    Begins(Affix),
    Ends(Affix),
    /// Has it within.
    Has(Box<Finder<'static>>),
    /// The same with a text in lower case.
    HasInAnyCase(Box<Finder<'static>>),
    /// Is a version that compares so, or the same text where it is to be equal.
    Version {
        comparison: Comparison,
        text: Box<[u8]>,
        numbers: Box<[u64]>,
    },
}

/// What a value begins or ends with.
#[derive(Debug)]
pub(crate) struct Affix {
    text: Box<[u8]>,
    any_case: bool,
}

impl Affix {
    fn is(&self, part: Option<&[u8]>) -> bool {
        part.is_some_and(|part| match self.any_case {
            true => part.eq_ignore_ascii_case(&self.text),
            false => *part == *self.text,
        })
    }
}

impl Probe {
    pub(crate) fn new(test: &Test) -> Self {
        match test {
            Test::Present => Self::Any,
            Test::Is(text) => Self::Is(text.clone()),
            Test::IsInAnyCase(text) => Self::IsInAnyCase(text.clone()),
            Test::Like {
                open_start,
                text,
                open_end,
                any_case,
            } => Self::like(*open_start, text, *open_end, *any_case),
            Test::Version(comparison, version) => Self::Version {
                comparison: *comparison,
                text: version.text.as_bytes().into(),
                numbers: version.numbers.clone(),
            },
        }
    }

    fn like(open_start: bool, text: &[u8], open_end: bool, any_case: bool) -> Self {
        let affix = || Affix {
            text: text.into(),
            any_case,
        };
        let finder = |text: &[u8]| Box::new(Finder::new(text).into_owned());
        match (open_start, open_end) {
            _ if text.is_empty() && (open_start || open_end) => Self::Any,
            (true, true) if any_case => Self::HasInAnyCase(finder(&text.to_ascii_lowercase())),
            (true, true) => Self::Has(finder(text)),
            (false, true) => Self::Begins(affix()),
            (true, false) => Self::Ends(affix()),
            (false, false) if any_case => Self::IsInAnyCase(text.into()),
            (false, false) => Self::Is(text.into()),
        }
    }

    /// True when `value` is so. `memory` is used on the way. The time is linear in the value's length.
    pub(crate) fn holds(&self, value: &[u8], memory: &mut Vec<u8>) -> bool {
        match self {
            Self::Any => true,
            Self::Is(text) => *value == **text,
            Self::IsInAnyCase(text) => value.eq_ignore_ascii_case(text),
            Self::Begins(affix) => affix.is(value.get(..affix.text.len())),
            Self::Ends(affix) => {
                let start = value.len().checked_sub(affix.text.len());
                affix.is(start.map(|start| &value[start..]))
            }
            Self::Has(text) => text.find(value).is_some(),
            Self::HasInAnyCase(text) => {
                memory.clear();
                memory.extend(value.iter().map(u8::to_ascii_lowercase));
                text.find(memory).is_some()
            }
            Self::Version {
                comparison,
                text,
                numbers,
            } => match comparison {
                Comparison::Equal if *value == **text => true,
                _ => compare(value, numbers).is_some_and(|order| comparison.admits(order)),
            },
        }
    }
}

impl Comparison {
    /// True when a version may be in that order to the one that it is compared with.
    fn admits(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::AtLeast => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }
}

/// The most digits of a number in a version, which fits into 64 bits then.
const DIGITS: usize = 18;

/// How `value` compares with the version of these `numbers`, if it is one.
fn compare(value: &[u8], numbers: &[u64]) -> Option<Ordering> {
    let value = match value {
        [b'v' | b'V', rest @ ..] => rest,
        value => value,
    };
    let mut others = numbers.iter().copied();
    let mut order = Ordering::Equal;
    for digits in value.split(|byte| *byte == b'.') {
        let is_number = (1..=DIGITS).contains(&digits.len());
        if !is_number || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = digits
            .iter()
            .fold(0, |number, digit| 10 * number + u64::from(digit - b'0'));
        order = order.then(number.cmp(&others.next().unwrap_or(0)));
    }
    let has_more = others.any(|it| it > 0);
    Some(order.then(if has_more {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::rule::AppVersion;

    fn check(test: &Test, table: &[(&str, bool)]) {
        let (probe, mut memory) = (Probe::new(test), Vec::new());
        for (value, expected) in table {
            let holds = probe.holds(value.as_bytes(), &mut memory);
            assert_eq!(holds, *expected, "{test:?} {value:?}");
        }
    }

    fn like(pattern: &str, any_case: bool) -> Test {
        Test::Like {
            open_start: pattern.starts_with('*'),
            text: pattern.trim_matches('*').as_bytes().into(),
            open_end: pattern.ends_with('*'),
            any_case,
        }
    }

    #[test]
    fn a_text_is_compared_as_a_whole_or_with_wildcards_at_its_ends() {
        let is = Test::Is(b"Beta".as_slice().into());
        check(
            &is,
            &[
                ("Beta", true),
                ("beta", false),
                ("Betas", false),
                ("", false),
            ],
        );
        let is = Test::IsInAnyCase(b"Beta".as_slice().into());
        check(&is, &[("bETA", true), ("Beta ", false), ("", false)]);
        check(&Test::Present, &[("", true), ("x", true)]);
        let begins = [
            ("ab", true),
            ("abc", true),
            ("a", false),
            ("xab", false),
            ("AB", false),
        ];
        check(&like("ab*", false), &begins);
        check(
            &like("aB*", true),
            &[("Abc", true), ("a", false), ("xab", false)],
        );
        check(
            &like("*ab", false),
            &[("ab", true), ("cab", true), ("abc", false), ("b", false)],
        );
        check(&like("*ab", true), &[("cAB", true), ("abc", false)]);
        check(
            &like("*ab*", false),
            &[("xabx", true), ("ab", true), ("axb", false), ("AB", false)],
        );
        check(
            &like("*aB*", true),
            &[("xAbx", true), ("axb", false), ("", false)],
        );
        check(&like("*", false), &[("", true), ("anything", true)]);
        let exact = Test::Like {
            open_start: false,
            text: b"a".as_slice().into(),
            open_end: false,
            any_case: false,
        };
        check(&exact, &[("a", true), ("A", false), ("aa", false)]);
    }

    #[test]
    fn versions_compare_number_by_number_and_what_is_none_never_holds() {
        use Comparison::{AtLeast, AtMost, Equal, Greater, Less};
        let version = |text: &str, numbers: &[u64]| AppVersion {
            text: text.into(),
            numbers: numbers.into(),
        };
        let with = || version("2.10", &[2, 10]);
        // The value, and how it is to 2.10.
        let table = [
            ("2.10", Some(Ordering::Equal)),
            ("2.10.0.0", Some(Ordering::Equal)),
            ("v2.10", Some(Ordering::Equal)),
            ("V02.010", Some(Ordering::Equal)),
            ("2.9", Some(Ordering::Less)),
            ("2", Some(Ordering::Less)),
            ("2.9.999999999999999999", Some(Ordering::Less)),
            ("2.10.0.1", Some(Ordering::Greater)),
            ("2.11", Some(Ordering::Greater)),
            ("10", Some(Ordering::Greater)),
            ("2.1000000000000000000", None),
            ("", None),
            ("v", None),
            ("vv2.10", None),
            (".2", None),
            ("2.", None),
            ("2..10", None),
            ("2.10-rc1", None),
            ("2,10", None),
            (" 2.10", None),
            ("+2.10", None),
            ("２.10", None),
        ];
        for (value, order) in table {
            for comparison in [Less, AtMost, Equal, AtLeast, Greater] {
                let expected = order.is_some_and(|order| match comparison {
                    Less => order == Ordering::Less,
                    AtMost => order != Ordering::Greater,
                    Equal => order == Ordering::Equal,
                    AtLeast => order != Ordering::Less,
                    Greater => order == Ordering::Greater,
                });
                check(&Test::Version(comparison, with()), &[(value, expected)]);
            }
        }
        let zero = Test::Version(Equal, version("0.0", &[]));
        check(&zero, &[("0", true), ("0.0.0", true), ("0.1", false)]);
        // The same text is equal, even where it would not be as a number.
        let long = "1.1234567890123456789";
        let same = Test::Version(Equal, version(long, &[1]));
        check(&same, &[(long, true), ("1", true)]);
    }
}
