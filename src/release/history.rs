//! What was done to the lists of a service, by whom and why: a record for each change, numbered. Pure.
//!
//! In Redis a record is an entry of a stream, beside a lists file it is a line of JSON. It keeps what undoes
//! the change, as long as that is not too much for a record; then it may lie beside the history.

use serde_json::{Map, Value, json};

use crate::fleet::plain::printable;
use crate::lists::{ByList, ListName};
use crate::store::Entries;

/// So many records are kept, or some more.
pub(crate) const KEPT: usize = 1000;

/// What undoes a change is in its record up to this size, in bytes.
pub(crate) const INLINE: usize = 16 * 1024;

/// And beside the history up to this.
pub(crate) const ASIDE: usize = 128 * 1024 * 1024;

/// The last number: whatever reads JSON has these exactly.
const LAST_NUMBER: u64 = 1 << 53;

/// The number of a change that comes after the one of this number.
pub(crate) fn next_number(last: u64) -> u64 {
    last.saturating_add(1).min(LAST_NUMBER)
}

/// The last of the changes that have come right after the one of this number, each of the lists that the one
/// before it has left. None if there is none, or the lists are the same again. `all` are the newest first.
pub(crate) fn overtaking(all: &[ChangeRecord], number: u64) -> Option<&ChangeRecord> {
    let at = all.iter().position(|it| it.number == number)?;
    let (later, from) = (all[..at].iter().rev(), &all[at]);
    let mut last = from;
    for it in later {
        if it.before != last.after {
            break;
        }
        if it.is_of_lists() {
            last = it;
        }
    }
    Some(last).filter(|it| it.after != from.after)
}

/// The verb of a change that was made without one.
pub(crate) const UNATTRIBUTED: &str = "by-hand";

/// A change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChangeRecord {
    /// Its number, from 1 on.
    pub(crate) number: u64,
    /// What no other record has.
    pub(crate) id: String,
    /// When, as in RFC 3339 in UTC.
    pub(crate) at: String,
    /// Who.
    pub(crate) by: String,
    /// What.
    pub(crate) verb: String,
    /// Why, if that was said.
    pub(crate) reason: Option<String>,
    pub(crate) service: String,
    /// What has gone (`-`) and come (`+`), in lines.
    pub(crate) difference: Vec<String>,
    /// The digests of the lists before and after.
    pub(crate) before: String,
    pub(crate) after: String,
    /// The digests that were confirmed with it, for gateways that find it later.
    pub(crate) confirmed: Vec<String>,
    /// What undoes it lies beside the history.
    pub(crate) is_aside: bool,
    /// What undoes it, as far as that is kept.
    pub(crate) undo: Option<Before>,
}

/// What was there before a change, as far as the change concerns it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Before {
    pub(crate) lists: ByList<ChangedList>,
    /// The salt, if it was changed.
    pub(crate) salt: Option<Option<String>>,
    /// For which `pre` there was a stage, and its share.
    pub(crate) stage: Option<Value>,
}

/// A list before a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum ChangedList {
    /// What it was after it.
    #[default]
    Same,
    /// It had these entries.
    All(Vec<String>),
    /// The change has taken some away, and added others.
    Some {
        gone: Vec<String>,
        come: Vec<String>,
    },
}

/// A list is kept as a whole up to this size, in bytes.
const WHOLE: usize = 4 * 1024;

fn texts<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let texts = entries.into_iter();
    texts
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect()
}

fn is_short(entries: &Entries) -> bool {
    let mut left = WHOLE;
    entries.into_iter().all(|it| {
        let fits = it.len() + 3 <= left;
        left = left.saturating_sub(it.len() + 3);
        fits
    })
}

impl ChangedList {
    /// One that the change does not concern.
    pub(crate) fn same(before: &Entries) -> Self {
        match is_short(before) {
            true => Self::All(texts(before)),
            false => Self::Same,
        }
    }

    /// One that loses `gone` and gets `come`.
    pub(crate) fn of(before: &Entries, gone: &[&[u8]], come: &[&[u8]]) -> Self {
        match is_short(before) {
            true => Self::All(texts(before)),
            false => Self::Some {
                gone: texts(gone.iter().copied()),
                come: texts(come.iter().copied()),
            },
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Same => Value::Null,
            Self::All(entries) => json!(entries),
            Self::Some { gone, come } => json!({ "gone": gone, "come": come }),
        }
    }

    fn of_json(value: &Value) -> Option<Self> {
        let texts = |value: &Value| -> Option<Vec<String>> {
            let texts = value.as_array()?.iter();
            texts.map(|it| it.as_str().map(str::to_owned)).collect()
        };
        match value {
            Value::Null => Some(Self::Same),
            Value::Array(_) => texts(value).map(Self::All),
            _ => Some(Self::Some {
                gone: texts(&value["gone"])?,
                come: texts(&value["come"])?,
            }),
        }
    }
}

impl Before {
    /// True when it has all entries of all lists.
    pub(crate) fn is_whole(&self) -> bool {
        let mut lists = self.lists.iter();
        lists.all(|(_, it)| matches!(it, ChangedList::All(_)))
    }

    /// As text.
    pub(crate) fn to_json(&self) -> Value {
        let lists = ListName::ALL.iter();
        let lists = lists.map(|it| (it.name().to_owned(), self.lists[*it].to_json()));
        let mut members = Map::from_iter(lists);
        if let Some(salt) = &self.salt {
            members.insert("salt".to_owned(), json!([salt]));
        }
        if let Some(stage) = &self.stage {
            members.insert("stage".to_owned(), stage.clone());
        }
        Value::Object(members)
    }

    /// From what [`Self::to_json`] has made, which somebody may have changed; `None` if it is something else.
    pub(crate) fn of_json(value: &Value) -> Option<Self> {
        value.as_object()?;
        let mut lists = ByList::<ChangedList>::default();
        for list in ListName::ALL {
            lists[list] = ChangedList::of_json(&value[list.name()])?;
        }
        let salt = match &value["salt"] {
            Value::Null => None,
            salt => Some(salt[0].as_str().map(str::to_owned)),
        };
        let stage = Some(value["stage"].clone()).filter(|it| !it.is_null());
        Some(Self { lists, salt, stage })
    }
}

impl ChangeRecord {
    /// It has changed what gateways read.
    pub(crate) fn is_of_lists(&self) -> bool {
        self.before != self.after
    }

    /// Which one it is: `change 7 (promote by ann@vm1)`.
    pub(crate) fn in_words(&self) -> String {
        let Self {
            number, verb, by, ..
        } = self;
        match verb == UNATTRIBUTED {
            true => format!("change {number} (by hand)"),
            false => format!("change {number} ({verb} by {by})"),
        }
    }

    /// What there is to say of it, but for what undoes it.
    pub(crate) fn members(&self) -> Map<String, Value> {
        let members = json!({
            "number": self.number,
            "at": self.at,
            "by": self.by,
            "verb": self.verb,
            "reason": self.reason,
            "service": self.service,
            "difference": self.difference,
            "before": self.before,
            "after": self.after,
        });
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// The fields of an entry of a stream.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("n", self.number.to_string()),
            ("id", self.id.clone()),
            ("at", self.at.clone()),
            ("by", self.by.clone()),
            ("verb", self.verb.clone()),
            ("service", self.service.clone()),
            ("difference", json!(self.difference).to_string()),
            ("before", self.before.clone()),
            ("after", self.after.clone()),
        ];
        if let Some(reason) = &self.reason {
            fields.push(("reason", reason.clone()));
        }
        if !self.confirmed.is_empty() {
            fields.push(("confirmed", self.confirmed.join(" ")));
        }
        match (&self.undo, self.is_aside) {
            (_, true) => fields.push(("undo", "aside".to_owned())),
            (Some(before), false) => fields.push(("undo", before.to_json().to_string())),
            (None, false) => {}
        }
        fields
    }

    /// From the fields of an entry of a stream, which anybody may have written; `None` if it has no number
    /// that a change can have.
    pub(crate) fn of_fields(fields: &[(String, String)]) -> Option<Self> {
        let get = |name: &str| {
            let mut all = fields.iter();
            all.find(|(it, _)| it == name)
                .map(|(_, value)| value.as_str())
        };
        let plain = |text: &str| printable(text, usize::MAX);
        let word = |name: &str| plain(get(name).unwrap_or_default());
        let difference: Value = serde_json::from_str(get("difference").unwrap_or("[]")).ok()?;
        let lines = difference.as_array().into_iter().flatten();
        let undo = get("undo").unwrap_or_default();
        let value: Option<Value> = serde_json::from_str(undo).ok();
        Some(Self {
            number: get("n")?.parse().ok().filter(|it| *it <= LAST_NUMBER)?,
            id: word("id"),
            at: word("at"),
            by: word("by"),
            verb: word("verb"),
            reason: get("reason").map(plain),
            service: word("service"),
            difference: lines.filter_map(Value::as_str).map(plain).collect(),
            before: word("before"),
            after: word("after"),
            confirmed: word("confirmed")
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
            is_aside: undo == "aside",
            undo: value.and_then(|it| Before::of_json(&it)),
        })
    }

    /// A line of a file.
    pub(crate) fn to_line(&self) -> String {
        let fields = self.fields().into_iter();
        let members = fields.map(|(name, value)| {
            let value = match name {
                "n" => json!(self.number),
                "difference" | "undo" => serde_json::from_str(&value).unwrap_or(json!(value)),
                _ => json!(value),
            };
            (name.to_owned(), value)
        });
        format!("{}\n", Value::Object(members.collect()))
    }

    /// From such a line; `None` if it is something else.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let members = value.as_object()?.iter();
        let fields: Vec<_> = members
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        Self::of_fields(&fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ChangeRecord {
        let lists = ByList {
            gray: ChangedList::All(vec!["10.0.0.1".to_owned(), "cookie:a=\"b c\"".to_owned()]),
            pre: ChangedList::Some {
                gone: vec!["app1".to_owned()],
                come: Vec::new(),
            },
            prod: ChangedList::Same,
        };
        ChangeRecord {
            number: 7,
            id: "0123456789abcdef".to_owned(),
            at: "2026-11-30T01:02:03.004Z".to_owned(),
            by: "ann@vm1".to_owned(),
            verb: "stage".to_owned(),
            reason: Some("it is time".to_owned()),
            service: "shop".to_owned(),
            difference: vec!["- gray 10.0.0.1".to_owned(), "+ gray *".to_owned()],
            before: "00000000000000aa".to_owned(),
            after: "00000000000000bb".to_owned(),
            confirmed: vec!["00000000000000cc".to_owned(), "00000000000000bb".to_owned()],
            is_aside: false,
            undo: Some(Before {
                lists,
                salt: Some(None),
                stage: Some(json!({ "share": "percent:5" })),
            }),
        }
    }

    fn fields(record: &ChangeRecord) -> Vec<(String, String)> {
        let fields = record.fields().into_iter();
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let salted = |salt: Option<&str>| Before {
            salt: Some(salt.map(str::to_owned)),
            ..Before::default()
        };
        for record in [
            record(),
            ChangeRecord {
                reason: None,
                undo: None,
                ..record()
            },
            ChangeRecord {
                undo: Some(salted(Some("x"))),
                ..record()
            },
            ChangeRecord {
                is_aside: true,
                undo: None,
                ..record()
            },
        ] {
            assert_eq!(
                ChangeRecord::of_fields(&fields(&record)),
                Some(record.clone())
            );
            let line = record.to_line();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(ChangeRecord::of_line(&line), Some(record));
        }
    }

    #[test]
    fn what_is_no_record_is_none_and_nothing_commands_a_terminal() {
        for line in ["", "x", "[]", "{}", "{\"n\":\"x\"}", "7"] {
            assert_eq!(ChangeRecord::of_line(line), None, "{line}");
        }
        for (number, is_one) in [(1 << 53, true), ((1 << 53) + 1, false), (u64::MAX, false)] {
            let line = format!("{{\"n\":{number}}}");
            assert_eq!(ChangeRecord::of_line(&line).is_some(), is_one, "{number}");
            assert_eq!(next_number(number), 1 << 53);
        }
        assert_eq!(next_number(7), 8);
        let record = ChangeRecord {
            by: "\u{1b}[2Jx".to_owned(),
            difference: vec!["+ gray \u{7}".to_owned()],
            ..record()
        };
        let read = ChangeRecord::of_line(&record.to_line()).unwrap();
        assert_eq!(read.by, "?[2Jx");
        assert_eq!(read.difference, ["+ gray ?"]);
        // Entries are restored as they were.
        assert_eq!(read.undo, record.undo);
    }

    #[test]
    fn a_change_is_overtaken_by_the_last_of_those_that_begin_where_it_ends() {
        let change = |number: u64, before: &str, after: &str| ChangeRecord {
            number,
            before: before.to_owned(),
            after: after.to_owned(),
            ..ChangeRecord::default()
        };
        let all = [
            change(7, "x", "y"),
            change(6, "e", "b"),
            change(5, "d", "e"),
            // A freeze.
            change(4, "d", "d"),
            change(3, "b", "d"),
            change(2, "a", "b"),
        ];
        let by = |all: &[ChangeRecord], number| overtaking(all, number).map(|it| it.number);
        // Seven is about other lists than six has left; and those of six are those of two again.
        assert_eq!(by(&all, 2), None);
        assert_eq!(by(&all[2..], 2), Some(5));
        assert_eq!(by(&all[3..], 2), Some(3));
        assert_eq!(by(&all, 3), Some(6));
        assert_eq!([by(&all, 6), by(&all, 7), by(&all, 99)], [None; 3]);
    }

    #[test]
    fn a_short_list_is_kept_whole_and_of_a_long_one_what_has_changed() {
        let entries = |count: usize| -> Entries { (0..count).map(|it| it.to_string()).collect() };
        let (short, long) = (entries(100), entries(10_000));
        assert_eq!(ChangedList::same(&long), ChangedList::Same);
        assert!(matches!(ChangedList::same(&short), ChangedList::All(it) if it.len() == 100));
        let changed = ChangedList::of(&long, &[b"7"], &[b"x"]);
        let expected = ChangedList::Some {
            gone: vec!["7".to_owned()],
            come: vec!["x".to_owned()],
        };
        assert_eq!(changed, expected);
    }
}
