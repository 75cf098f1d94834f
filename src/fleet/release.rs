//! What a gateway tells others that it holds of a release, beside the lists. No I/O.

use serde_json::{Value, json};

use super::plain::plain;

/// What is said of a release in the store, as a gateway holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeRelease {
    /// What evidence belongs to; empty before there is such a thing.
    pub epoch: String,
    /// The lists are frozen.
    pub is_frozen: bool,
    /// The course of its rollout, if it has one.
    pub rollout: Option<String>,
}

impl NodeRelease {
    pub(super) fn members(&self) -> Value {
        json!({ "epoch": self.epoch, "frozen": self.is_frozen, "rollout": self.rollout })
    }

    /// `None` where it says nothing: it is an older gateway, or looks at no release.
    pub(super) fn of(value: &Value) -> Option<Self> {
        Some(Self {
            epoch: value["epoch"].as_str().map(plain)?,
            is_frozen: value["frozen"].as_bool().unwrap_or_default(),
            rollout: value["rollout"].as_str().map(plain),
        })
    }

    /// In words: "epoch f4677e0605c59565, frozen, rollout paused".
    pub(crate) fn in_words(&self) -> String {
        let epoch = match &*self.epoch {
            "" => "no epoch".to_owned(),
            epoch => format!("epoch {epoch}"),
        };
        let frozen = self.is_frozen.then(|| "frozen".to_owned());
        let rollout = self.rollout.as_ref().map(|it| format!("rollout {it}"));
        let parts: Vec<String> = [Some(epoch), frozen, rollout]
            .into_iter()
            .flatten()
            .collect();
        parts.join(", ")
    }
}

/// What a change has made of a release: what gateways are waited for to hold. Whatever it has left as it was
/// may become something else meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReleaseTurn {
    pub before: NodeRelease,
    pub after: NodeRelease,
}

impl ReleaseTurn {
    /// True where it makes no difference to gateways.
    pub(crate) fn is_none(&self) -> bool {
        self.before == self.after
    }

    /// True where a gateway that holds this has heard of it.
    pub(crate) fn is_held(&self, held: &NodeRelease) -> bool {
        let Self { before, after } = self;
        (before.epoch == after.epoch || held.epoch == after.epoch)
            && (before.is_frozen == after.is_frozen || held.is_frozen == after.is_frozen)
            && (before.rollout == after.rollout || held.rollout == after.rollout)
    }

    /// True where gateways are to have another epoch.
    pub(crate) fn resets(&self) -> bool {
        self.before.epoch != self.after.epoch
    }

    /// Takes in that the store has this epoch now. No epoch comes back: where it is another one, a reset or
    /// a rollout came right after it, and gateways have that one. Whoever lags has an older one, and has
    /// heard of neither.
    pub(crate) fn follow(&mut self, epoch: String) {
        if self.resets() && !epoch.is_empty() && epoch != self.before.epoch {
            self.after.epoch = epoch;
        }
    }

    /// True where gateways are to keep their lists from then on.
    pub(crate) fn freezes(&self) -> bool {
        !self.before.is_frozen && self.after.is_frozen
    }

    /// What a gateway holds instead: "is not frozen", "has epoch f4677e0605c59565".
    pub(crate) fn lacked_by(&self, held: &NodeRelease) -> String {
        match self.freezes() && !held.is_frozen {
            true => "is not frozen".to_owned(),
            false => format!("has {}", held.in_words()),
        }
    }

    /// What gateways know then: "the lists are frozen", "the epoch f4677e0605c59565".
    pub(crate) fn in_words(&self) -> String {
        let Self { before, after } = self;
        let mut parts = Vec::new();
        if before.is_frozen != after.is_frozen {
            parts.push(match after.is_frozen {
                true => "the lists are frozen".to_owned(),
                false => "the lists are not frozen".to_owned(),
            });
        }
        if before.rollout != after.rollout {
            parts.push(match &after.rollout {
                Some(course) => format!("the rollout is {course}"),
                None => "there is no rollout".to_owned(),
            });
        }
        if before.epoch != after.epoch {
            parts.push(format!("the epoch {}", after.epoch));
        }
        parts.join(", ")
    }
}

/// How many servers of `pre` a gateway takes for up, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeersUp {
    pub up: u64,
    pub all: u64,
}

impl PeersUp {
    pub(super) fn members(self) -> Value {
        json!({ "up": self.up, "all": self.all })
    }

    /// `None` where it does not say.
    pub(super) fn of(value: &Value) -> Option<Self> {
        Some(Self {
            up: value["up"].as_u64()?,
            all: value["all"].as_u64()?,
        })
    }

    /// True where one of them is out.
    pub(crate) fn lacks_one(self) -> bool {
        self.up < self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_has_left_alone_may_become_something_else_meanwhile() {
        let held = |epoch: &str, is_frozen: bool, rollout: Option<&str>| NodeRelease {
            epoch: epoch.to_owned(),
            is_frozen,
            rollout: rollout.map(str::to_owned),
        };
        let before = held("a", false, Some("running"));
        let turn = |after: NodeRelease| ReleaseTurn {
            before: before.clone(),
            after,
        };
        assert!(turn(before.clone()).is_none());
        let frozen = turn(held("a", true, Some("running")));
        // Its rollout is paused by that.
        assert!(frozen.is_held(&held("a", true, Some("paused"))));
        assert!(!frozen.is_held(&before) && !frozen.is_none());
        assert_eq!(frozen.in_words(), "the lists are frozen");
        let reset = turn(held("b", false, Some("running")));
        assert!(reset.is_held(&held("b", true, None)) && !reset.is_held(&before));
        assert_eq!(reset.in_words(), "the epoch b");
        // Another reset came right after it. Whoever has another epoch may as well be behind both.
        let mut followed = reset.clone();
        assert!(!followed.is_held(&held("c", false, None)));
        for epoch in ["c", "", "a"] {
            followed.follow(epoch.to_owned());
            assert!(followed.is_held(&held("c", false, None)), "{epoch}");
            assert!(!followed.is_held(&before) && !followed.is_held(&held("0", false, None)));
        }
        let mut unmoved = frozen.clone();
        unmoved.follow("c".to_owned());
        assert_eq!(unmoved, frozen);
        assert_eq!(reset.lacked_by(&before), "has epoch a, rollout running");
        assert_eq!(frozen.lacked_by(&before), "is not frozen");
        let paused = turn(held("a", false, Some("paused")));
        assert!(paused.is_held(&held("c", false, Some("paused"))) && !paused.is_held(&before));
        assert_eq!(paused.in_words(), "the rollout is paused");
    }

    #[test]
    fn what_is_held_is_read_as_it_was_written_and_nothing_of_nonsense() {
        let held = NodeRelease {
            epoch: "f4677e0605c59565".to_owned(),
            is_frozen: true,
            rollout: Some("paused".to_owned()),
        };
        let words = "epoch f4677e0605c59565, frozen, rollout paused";
        assert_eq!(held.in_words(), words);
        for it in [held, NodeRelease::default()] {
            assert_eq!(NodeRelease::of(&it.members()), Some(it));
        }
        for nonsense in [json!(null), json!(7), json!({ "frozen": true })] {
            assert_eq!(NodeRelease::of(&nonsense), None);
        }
        let up = PeersUp { up: 1, all: 2 };
        assert_eq!(PeersUp::of(&up.members()), Some(up));
        assert_eq!(PeersUp::of(&json!({ "up": 1, "all": -1 })), None);
    }
}
