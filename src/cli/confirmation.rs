//! To which change somebody has said yes: nobody is asked twice for the same, and a yes is for nothing but
//! what was shown. Whoever thinks for long may find that others have changed the lists meanwhile.

use crate::lists::Digest;
use crate::release::change::ListsChange;

/// What is shown of a change to whoever is asked.
#[derive(Debug, PartialEq, Eq)]
struct ShownChange {
    asks: Vec<String>,
    difference: Vec<String>,
    /// The digests of the lists before and after.
    lists: [Digest; 2],
}

impl ShownChange {
    fn of(change: &ListsChange) -> Self {
        Self {
            asks: change.asks.clone(),
            difference: change.difference.clone(),
            lists: [change.before, change.after],
        }
    }
}

/// Asks whether a change is meant; for the second time, if others have changed the lists since the first.
pub(super) type Ask<'a> = &'a mut dyn FnMut(&ListsChange, bool) -> Result<bool, String>;

/// What was said yes to.
#[derive(Debug, Default)]
pub(super) struct Confirmation(Option<ShownChange>);

impl Confirmation {
    /// True where a change is meant: nobody has to be asked, or somebody says yes, now or before.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub(super) fn is_given(&mut self, change: &ListsChange, ask: Ask<'_>) -> Result<bool, String> {
        let shown = ShownChange::of(change);
        if change.asks.is_empty() || self.0.as_ref() == Some(&shown) {
            return Ok(true);
        }
        let is_again = self.0.is_some();
        let is_meant = ask(change, is_again)?;
        self.0 = is_meant.then_some(shown);
        Ok(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::lists::ServiceName;
    use crate::release::change::Verb;
    use crate::release::ledger::{Consent, Ledger, Order};

    const V1: &str = "[gray]\n[pre]\n127.0.0.1:2\n[prod]\n127.0.0.1:1\n";

    /// How whoever gives 100 % to `pre` is asked, while the lists become these in that time, one after the
    /// other: for the first time or again. With what has become of it.
    fn asked(meanwhile: &[&str]) -> (Vec<bool>, Result<(), String>) {
        let folder = tempfile::tempdir().unwrap();
        let lists = folder.path().join("lists");
        fs::write(&lists, V1).unwrap();
        let text = format!("[lists]\nfile = {}\n", lists.display());
        let config = Config::parse(Path::new("graygate.ini"), &text, None).unwrap();
        let mut ledger = Ledger::of(&config, &ServiceName::default()).unwrap();
        let order = Order::new(Verb::Stage(10_000, None), "ann".to_owned(), None);
        let (mut confirmation, mut all) = (Confirmation::default(), Vec::new());
        let mut ask = |_: &ListsChange, is_again: bool| {
            if let Some(next) = meanwhile.get(all.len()) {
                fs::write(&lists, next).unwrap();
            }
            all.push(is_again);
            Ok(true)
        };
        let done = ledger.perform(&order, &mut |change| match confirmation
            .is_given(change, &mut ask)?
        {
            true => Ok(Consent::Yes),
            false => Ok(Consent::No),
        });
        (all, done.map(drop))
    }

    #[test]
    fn a_yes_is_for_the_lists_that_were_shown_and_for_no_others() {
        assert_eq!(asked(&[]), (vec![false], Ok(())));
        // The same lists, written anew.
        let same = format!("# a word\n{V1}");
        assert_eq!(asked(&[&same]), (vec![false], Ok(())));
        let v2 = V1.replace(":2", ":3");
        assert_eq!(asked(&[&v2]), (vec![false, true], Ok(())));
        // The other list, and with it what is shown.
        let more = V1.replace("[pre]", "10.0.0.1\n[pre]");
        assert_eq!(asked(&[&v2, &more]), (vec![false, true, true], Ok(())));
    }
}
