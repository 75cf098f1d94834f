//! Whose data a server has: the process, and the history of writes that made them.
//!
//! What it says of that and what it has are read one after the other, and a replica may get other data in
//! between. So lists count as those of the data that were named *before* they were read: then a reading that
//! was of what came later is held against an earlier name, and lists are kept for too long, until the next
//! reading, rather than taken for removed.

use std::sync::Arc;

use super::info::Info;

/// Where data come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The process that has them.
    pub(crate) run: String,
    /// The history of writes that made them.
    history: Option<String>,
    /// What that was called before it was given another name, if it was.
    before: Option<String>,
    is_replica: bool,
}

impl Origin {
    pub(crate) fn of(info: &Info) -> Option<Self> {
        let before = info.get("master_replid2");
        // That is none.
        let before = before.filter(|it| it.bytes().any(|it| it != b'0'));
        Some(Self {
            run: info.get("run_id")?.to_owned(),
            history: info.get("master_replid").map(str::to_owned),
            before: before.map(str::to_owned),
            is_replica: matches!(info.get("role"), Some("slave" | "replica")),
        })
    }

    /// Whether what a server has `now` is not what it had, so that nobody may have removed what is gone: it
    /// was restarted, or has been a replica that got other data. The history of a master has a new name when
    /// a first replica attaches, or when it is promoted; that of its replica then, too, and who was promoted,
    /// or follows one that was, keeps the old name as the second.
    fn is_lost(&self, now: &Self) -> bool {
        let goes_on =
            now.history == self.history || self.history.is_some() && now.before == self.history;
        // Its second name is one that it had as a replica of another master.
        let was_other = now.before.is_some() && now.before != self.before;
        now.run != self.run || !goes_on && (now.is_replica || was_other)
    }
}

/// What a server that is connected said last of whose data it has.
#[derive(Debug, Default)]
pub(crate) struct SeenOrigin {
    origin: Option<Arc<Origin>>,
    /// It has other data than when it said so before: they came after the lists were read, or just ahead.
    pub(crate) is_replaced: bool,
}

impl SeenOrigin {
    /// The server says this now. Returns whether it is the process that it was.
    pub(crate) fn see(&mut self, info: &Info) -> bool {
        let now = Origin::of(info);
        let before = self.origin.take();
        let is_same = before.as_ref().map(|it| &it.run) == now.as_ref().map(|it| &it.run);
        let both = before.as_ref().zip(now.as_ref());
        self.is_replaced = both.is_some_and(|(before, now)| before.is_lost(now));
        self.origin = match before {
            Some(before) if now.as_ref() == Some(&*before) => Some(before),
            _ => now.map(Arc::new),
        };
        is_same
    }
}

/// Whose data those were from which the lists of a service were last taken.
#[derive(Clone, Debug, Default)]
pub(crate) enum TakenFrom {
    /// None were taken, so that nobody knows whose those in the copy are.
    #[default]
    Nobody,
    /// The server did not say.
    Unknown,
    /// It had said this before.
    Origin(Arc<Origin>),
}

impl TakenFrom {
    /// Lists were taken from a server after this was `seen` of it.
    pub(crate) fn take(&mut self, seen: &SeenOrigin) {
        match &seen.origin {
            Some(origin) => *self = Self::Origin(Arc::clone(origin)),
            // What is known of another server may be of use again.
            None if matches!(self, Self::Nobody) => *self = Self::Unknown,
            None => {}
        }
    }

    /// This was `seen` of the server: where the data are the same still, whatever they are called, its name
    /// is the better one to know them by.
    pub(crate) fn follow(&mut self, seen: &SeenOrigin) {
        if let (Self::Origin(before), Some(now)) = (&*self, &seen.origin)
            && !Arc::ptr_eq(before, now)
            && !before.is_lost(now)
        {
            *self = Self::Origin(Arc::clone(now));
        }
    }

    /// Whether the server that has data of this origin `now` has not those from which lists were taken.
    pub(crate) fn is_lost(&self, now: Option<&Origin>) -> bool {
        match (self, now) {
            (Self::Nobody, _) => true,
            (Self::Origin(before), Some(now)) => before.is_lost(now),
            (Self::Origin(_), None) | (Self::Unknown, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "0000000000000000000000000000000000000000";

    fn info(run: &str, role: &str, history: &str, second: &str) -> Info {
        Info(format!(
            "run_id:{run}\r\nrole:{role}\r\nmaster_replid:{history}\r\nmaster_replid2:{second}\r\n"
        ))
    }

    /// Lists that were taken after the server had said this.
    fn taken(info: &Info) -> (TakenFrom, SeenOrigin) {
        let (mut taken, mut seen) = (TakenFrom::default(), SeenOrigin::default());
        seen.see(info);
        taken.take(&seen);
        (taken, seen)
    }

    #[test]
    fn data_are_other_ones_in_another_process_and_where_a_replica_had_another_history() {
        for (run, role, history, second, is_lost) in [
            ("r1", "master", "h1", NONE, false),
            // A first replica is attached.
            ("r1", "master", "h2", NONE, false),
            // A replica is promoted.
            ("r1", "master", "h2", "h1", false),
            // It had other data by then.
            ("r1", "master", "h3", "h2", true),
            ("r2", "master", "h1", NONE, true),
            ("r2", "master", "h2", "h1", true),
            ("r1", "slave", "h1", NONE, false),
            ("r1", "slave", "h2", NONE, true),
            ("r1", "replica", "h2", NONE, true),
            ("r1", "slave", "h2", "h1", false),
            ("r1", "slave", "h3", "h2", true),
            ("r2", "slave", "h1", NONE, true),
        ] {
            let now = Origin::of(&info(run, role, history, second));
            for before in ["master", "slave"] {
                let (taken, _) = taken(&info("r1", before, "h1", NONE));
                assert_eq!(taken.is_lost(now.as_ref()), is_lost, "{now:?}");
                assert!(!taken.is_lost(None));
            }
        }
        // One that was promoted before is what it was, also when that name is gone.
        let (taken, _) = taken(&info("r1", "master", "h3", "h2"));
        for (history, second) in [("h3", "h2"), ("h4", NONE), ("h4", "h3"), ("h4", "h2")] {
            let now = Origin::of(&info("r1", "master", history, second));
            assert!(!taken.is_lost(now.as_ref()), "{now:?}");
        }
    }

    #[test]
    fn of_lists_that_nobody_has_taken_yet_nobody_knows_whose_they_are() {
        let now = Origin::of(&info("r1", "master", "h1", NONE));
        let mut taken = TakenFrom::default();
        assert!(taken.is_lost(now.as_ref()) && taken.is_lost(None));
        taken.take(&SeenOrigin::default());
        assert!(!taken.is_lost(now.as_ref()) && !taken.is_lost(None));
    }

    #[test]
    fn what_was_read_before_other_data_came_is_not_taken_for_them() {
        let (mut taken, mut seen) = taken(&info("r1", "slave", "h1", NONE));
        // The lists are read here.
        let other = info("r1", "slave", "h2", NONE);
        assert!(seen.see(&other));
        assert!(seen.is_replaced);
        taken.follow(&seen);
        assert!(taken.is_lost(Origin::of(&other).as_ref()));
        // They are read again, and taken.
        seen.see(&other);
        assert!(!seen.is_replaced);
        taken.take(&seen);
        assert!(!taken.is_lost(Origin::of(&other).as_ref()));
        // Another name alone makes no difference.
        for (history, second) in [("h3", "h2"), ("h4", "h3")] {
            seen.see(&info("r1", "slave", history, second));
            assert!(!seen.is_replaced);
            taken.follow(&seen);
        }
        let now = info("r1", "slave", "h4", "h3");
        assert!(!taken.is_lost(Origin::of(&now).as_ref()));
        assert!(!seen.see(&info("r2", "slave", "h4", "h3")));
    }
}
