//! Names that entries ask for, found among the names that a request has.

/// A table of names, each with a number.
///
/// Nearly all names of a request are none of these, and two of their properties tell: the length and the
/// first letter.
#[derive(Debug)]
pub(super) struct SourceNames {
    /// By length, the longest ones together: a bit for each first letter.
    firsts: [u32; LENGTHS],
    /// By hash: one more than the place of a name, or 0.
    slots: Box<[u32]>,
    names: Box<[(Box<[u8]>, u32)]>,
    /// The case of ASCII letters does not matter. The names are in lower case then.
    any_case: bool,
}

const LENGTHS: usize = 64;

impl SourceNames {
    pub(super) fn new(names: Vec<(Box<[u8]>, u32)>, any_case: bool) -> Self {
        let mut table = Self {
            firsts: [0; LENGTHS],
            slots: vec![0; (2 * names.len()).next_power_of_two()].into(),
            names: names.into(),
            any_case,
        };
        for (place, (name, _)) in table.names.iter().enumerate() {
            let (length, first) = class(name);
            table.firsts[length] |= 1 << first;
            let mut slot = hash(name) as usize & (table.slots.len() - 1);
            while table.slots[slot] != 0 {
                slot = (slot + 1) & (table.slots.len() - 1);
            }
            table.slots[slot] = place as u32 + 1;
        }
        table
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The number of a name.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        let (length, first) = class(name);
        match self.firsts[length] >> first & 1 {
            0 => None,
            _ => self.look_up(name),
        }
    }

    fn look_up(&self, name: &[u8]) -> Option<u32> {
        let mut slot = hash(name) as usize;
        loop {
            slot &= self.slots.len() - 1;
            // Half the slots are empty at least.
            let place = self.slots[slot].checked_sub(1)?;
            let (known, number) = &self.names[place as usize];
            let is_it = match self.any_case {
                true => known.eq_ignore_ascii_case(name),
                false => **known == *name,
            };
            if is_it {
                return Some(*number);
            }
            slot += 1;
        }
    }
}

/// The length and the first letter, as far as the table distinguishes them.
#[inline]
fn class(name: &[u8]) -> (usize, u8) {
    let first = name.first().map_or(0, |it| it & 31);
    (name.len().min(LENGTHS - 1), first)
}

/// The same for names that differ in the case of letters only.
fn hash(name: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| {
        // The two cases of a letter differ in this bit.
        let byte = u64::from(byte | 0x20);
        (hash.rotate_left(5) ^ byte).wrapping_mul(0x517c_c1b7_2722_0a95)
    };
    name.iter().fold(0, add) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str], any_case: bool) -> SourceNames {
        let numbered = names.iter().zip(10..);
        let numbered = numbered.map(|(name, number)| (name.as_bytes().into(), number));
        SourceNames::new(numbered.collect(), any_case)
    }

    #[test]
    fn names_are_found_with_their_numbers_and_nothing_else_is() {
        let many: Vec<String> = (0..1000).map(|it| format!("x-{it}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = "x".repeat(100);
        for any_case in [false, true] {
            for names in [&["uid", "a", &long][..], &many, &[]] {
                let table = table(names, any_case);
                assert_eq!(table.is_empty(), names.is_empty());
                for (name, number) in names.iter().zip(10..) {
                    assert_eq!(table.find(name.as_bytes()), Some(number), "{name}");
                    let upper = name.to_ascii_uppercase();
                    let expected = any_case.then_some(number);
                    assert_eq!(table.find(upper.as_bytes()), expected, "{upper}");
                }
                for name in ["", "ui", "uie", "x-1000", "\u{b5}id", &"x".repeat(99)] {
                    assert_eq!(table.find(name.as_bytes()), None, "{name}");
                }
            }
        }
    }
}
