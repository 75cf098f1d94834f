//! A line of the access log, taken apart.

/// One access record: `key=value` pairs, of which some values are quoted.
#[derive(Clone, Debug)]
pub(crate) struct AccessLine {
    /// The line as written.
    pub(crate) raw: String,
    fields: Vec<(String, String)>,
}

impl AccessLine {
    /// Takes a line apart; nothing when it is no such line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let (key, behind) = rest.split_once('=')?;
            let (value, behind) = match behind.strip_prefix('"') {
                // Inside, quotes are escaped as \x22.
                Some(behind) => behind.split_once('"')?,
                None => {
                    let end = behind.find(' ').unwrap_or(behind.len());
                    behind.split_at(end)
                }
            };
            fields.push((key.to_owned(), value.to_owned()));
            rest = match behind {
                "" => "",
                behind => behind.strip_prefix(' ')?,
            };
        }
        Some(Self {
            raw: line.to_owned(),
            fields,
        })
    }

    /// The names of the fields, in their order.
    pub(crate) fn keys(&self) -> Vec<&str> {
        self.fields.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// The value of a field, without quotes, escaped as it was written.
    ///
    /// # Panics
    /// When the line has no such field.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> &str {
        match self.field(key) {
            Some(value) => value,
            None => panic!("no {key} in {}", self.raw),
        }
    }

    /// The value of a field that not every line has.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(it, _)| it == key);
        found.map(|(_, value)| value.as_str())
    }

    /// True when all these fields have these values: `"pool=pre status=200"`.
    pub(crate) fn has(&self, pairs: &str) -> bool {
        pairs.split(' ').all(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            self.get(key) == value
        })
    }
}
