//! Members of a JSON page, written and read by the same type.

use std::collections::BTreeMap;

use serde_json::Value;

/// A page that the command line reads.
pub(crate) trait Page: Sized {
    /// Where it is.
    const PATH: &'static str;

    /// What it says; `None` when it is no such page.
    fn of(page: &Value) -> Option<Self>;
}

/// A value within a page.
pub(crate) trait Member: Sized {
    fn render(&self) -> Value;

    /// `None` when `value` is something else.
    fn read(value: &Value) -> Option<Self>;
}

/// Declares an object whose members are named as its fields are. A member that another version does not
/// show, or shows otherwise, is read as its type's default.
macro_rules! object {
    (
        $(#[$about:meta])*
        pub(crate) struct $name:ident {
            $( $(#[$about_member:meta])* $member:ident: $kind:ty, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct $name {
            $( $(#[$about_member])* pub(crate) $member: $kind, )*
        }

        $crate::admin::pages::member::members!($name { $($member),* });
    };
}

/// Says which fields of a struct are the members of an object, by the same names.
macro_rules! members {
    ($name:ty { $($member:ident),* }) => {
        impl $crate::admin::pages::member::Member for $name {
            fn render(&self) -> serde_json::Value {
                use $crate::admin::pages::member::Member;
                let members = [$( (stringify!($member).to_owned(), Member::render(&self.$member)) ),*];
                serde_json::Value::Object(members.into_iter().collect())
            }

            fn read(value: &serde_json::Value) -> Option<Self> {
                use $crate::admin::pages::member::Member;
                value.is_object().then(|| Self {
                    $( $member: Member::read(&value[stringify!($member)]).unwrap_or_default() ),*
                })
            }
        }
    };
}

pub(super) use {members, object};

impl Member for String {
    fn render(&self) -> Value {
        self.as_str().into()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Member for bool {
    fn render(&self) -> Value {
        (*self).into()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Member for f64 {
    fn render(&self) -> Value {
        (*self).into()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Member for u64 {
    fn render(&self) -> Value {
        (*self).into()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

/// Whatever somebody else has put together.
impl Member for Value {
    fn render(&self) -> Value {
        self.clone()
    }

    fn read(value: &Value) -> Option<Self> {
        (!value.is_null()).then(|| value.clone())
    }
}

impl<T: Member> Member for Option<T> {
    fn render(&self) -> Value {
        self.as_ref().map_or(Value::Null, Member::render)
    }

    fn read(value: &Value) -> Option<Self> {
        Some(T::read(value))
    }
}

impl<T: Member> Member for Vec<T> {
    fn render(&self) -> Value {
        self.iter().map(Member::render).collect()
    }

    fn read(value: &Value) -> Option<Self> {
        Some(value.as_array()?.iter().filter_map(T::read).collect())
    }
}

impl<T: Member> Member for BTreeMap<String, T> {
    fn render(&self) -> Value {
        let members = self.iter().map(|(name, it)| (name.clone(), it.render()));
        Value::Object(members.collect())
    }

    fn read(value: &Value) -> Option<Self> {
        let members = value.as_object()?.iter();
        let members = members.filter_map(|(name, it)| Some((name.clone(), T::read(it)?)));
        Some(members.collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    object! {
        /// One of each kind.
        pub(crate) struct Example {
            text: String,
            flag: bool,
            count: u64,
            some: Option<f64>,
            all: Vec<String>,
            named: BTreeMap<String, u64>,
        }
    }

    #[test]
    fn an_object_is_read_as_it_was_written() {
        let example = Example {
            text: "a\nb".to_owned(),
            flag: true,
            count: u64::MAX,
            some: Some(0.5),
            all: vec!["x".to_owned()],
            named: [("n".to_owned(), 1)].into(),
        };
        let page = json!({
            "all": ["x"], "count": u64::MAX, "flag": true, "named": { "n": 1 }, "some": 0.5, "text": "a\nb"
        });
        assert_eq!(example.render(), page);
        assert_eq!(Example::read(&page), Some(example));
    }

    #[test]
    fn what_another_version_does_not_show_is_the_default() {
        assert_eq!(Example::read(&json!({})), Some(Example::default()));
        let other = json!({ "all": 1, "count": -1, "flag": "on", "named": [], "some": null, "text": 2, "new": 3 });
        assert_eq!(Example::read(&other), Some(Example::default()));
        assert_eq!(Example::read(&json!([])), None);
    }
}
