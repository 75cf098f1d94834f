//! A rollout: a release that goes from one share to the next by itself, and stops by itself. Pure: no clock,
//! no store, no thread.
//!
//! It is the member `rollout` of the state of the release, so that whoever changes it does so in one
//! transaction with the lists. A gateway that has the lease carries it on ([`leader`](super::leader)); people
//! start, pause, resume and abort it by commands. Both go through the [`ledger`](super::ledger), which
//! watches the key of the state: of two that write at the same moment, one has to look again.
//!
//! # What becomes of it
//!
//! ```text
//!              time is over, and the verdict is good enough
//!                 ┌────────┐
//!                 ▼        │
//!   start ───▶ running ────┴──▶ done          (after the last step; `pre` is promoted, if that is wanted)
//!              ▲     │ pause; frozen; the share was changed by hand; the store has forgotten something
//!       resume │     ▼
//!              paused ──▶ aborted             (from running as well)
//! ```
//!
//! In this order ([`Rollout::next`]):
//!
//! 1. What is done or aborted stays so.
//! 2. The store has gone back to something older than what was seen in it: paused.
//! 3. Another `pre`: aborted. Its lists are somebody else's affair, and stay.
//! 4. Frozen: paused, and nothing else until it is thawed.
//! 5. Taken back (a trip): aborted, and rolled back with the same write.
//! 6. The share is not on `gray` as the last step has left it: paused.
//! 7. The time of the step is not over, or the verdict is not good enough: nothing. What the verdict has
//!    against the version holds also a rollout that does not wait for the verdict.
//! 8. The next step; after the last one, the end.
//!
//! A pause is ended by a person alone, also that of a freeze.
//!
//! # Where it is
//!
//! All that turns is in the state of the release, which every gateway follows: a change of it is heard by all
//! of them. That a lease was renewed, and how long the step has been in force by then, matters to candidates
//! alone, and is written every few seconds. So that is a [`Renewal`], in a key beside the state that nobody
//! follows: whoever looks at the rollout looks at both. It counts for the very turn and the very lease that
//! it names, so one that is late, or was left from before, says nothing; one that was lost was never written:
//! then others wait longer before they take the lease, and the step is in force for longer.
//!
//! # What must hold
//!
//! - **Never a step twice, never a step back up.** A step is a write that needs the step before it, within
//!   the transaction; the share may only grow, and whatever ends a rollout ends it for good.
//! - **Never too early.** No clock of any machine is read, since any may be set. How long a step has been in
//!   force is in the state (`waited`): its leader adds what its own monotonic clock has measured between two
//!   of its writes, of which nothing else came between. What a crash leaves unwritten is waited for again.
//! - **One leader.** A write of a leader, also a renewal, needs its name and its fencing number ([`Lease`])
//!   to be those of the state, in a transaction that needs the state to stay as it was read. Each one who
//!   takes the lease takes the next number, so what an earlier one still wants to write fails. The lease is
//!   over for others when they have seen it unchanged for [`LEASE`], by their own clocks; for who has it,
//!   when it has not been renewed for as long: then it does nothing more before it has taken it anew
//!   ([`candidacy`](super::candidacy)). A write by a person takes it from whoever has it.
//! - **What was lost is not done again.** Whoever has seen a later turn, or a later step ([`SeenTurn`]), than
//!   the store has now, as after a restart of Redis that has lost its last second, pauses it, whoever leads:
//!   that one need not have seen it. Each gateway sees a turn with the lists that come with it, so whoever
//!   has brought a step into force knows of it. A fencing number that was lost is given again, to another
//!   name.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::fleet::plain::{plain, sentence};

/// A lease that was not renewed for so long is over.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// The member of the state of a release.
pub(crate) const ROLLOUT: &str = "rollout";

/// The largest number that every reader of JSON has as it was written.
const MOST_COUNTED: u64 = 1 << 53;

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    Running,
    Paused,
    /// It has come to its end.
    Done,
    Aborted,
}

impl Course {
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Done, Self::Aborted];

    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Aborted => "aborted",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Nothing becomes of it any more.
    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Aborted)
    }
}

/// Who carries a rollout on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The process; nobody after a write by a person.
    pub(crate) holder: Option<String>,
    /// The fencing number: another one for each who takes the lease, and for each write by a person.
    pub(crate) fence: u64,
    /// Counts renewals, so that others see them.
    pub(crate) beat: u64,
}

/// A rollout, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// What no other rollout has.
    pub(crate) id: String,
    /// The digest of the `pre` that it is of.
    pub(crate) pre: String,
    /// The shares, in hundredths of a percent; each is larger than the one before.
    pub(crate) steps: Vec<u16>,
    /// The place among them of the one that is in force.
    pub(crate) at: usize,
    /// The entry of `gray` by which it is.
    pub(crate) share: String,
    /// How long each is in force at least.
    pub(crate) every: Duration,
    /// How long this one has been, as far as that was written; in the state: up to the last turn, or to when
    /// the lease was taken.
    pub(crate) waited: Duration,
    /// At the end, `pre` is what everybody gets.
    pub(crate) promotes: bool,
    /// It does not wait until the verdict is good enough.
    pub(crate) without_verdict: bool,
    pub(crate) course: Course,
    /// Why it is paused, done or aborted.
    pub(crate) why: Option<String>,
    /// Who has started it, when, and why.
    pub(crate) by: String,
    pub(crate) started: String,
    pub(crate) reason: Option<String>,
    /// When it has turned last, by the clock of whoever has written that: for people.
    pub(crate) since: String,
    /// Counts all that has become of it but renewals.
    pub(crate) turns: u64,
    pub(crate) lease: Lease,
    /// What its leader has said since it has turned last.
    pub(crate) says: LeaderSays,
}

/// That the lease of a rollout was renewed: what is written beside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// Of which rollout, at which of its turns, in whose hands.
    id: String,
    turns: u64,
    holder: String,
    fence: u64,
    /// See [`Lease::beat`].
    beat: u64,
    /// See [`Rollout::waited`].
    waited: Duration,
    says: LeaderSays,
}

/// What a leader says besides when it renews its lease: for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderSays {
    /// What is found of the version, in a sentence.
    pub(crate) verdict: Option<String>,
    /// What the next step, or the end, waits for.
    pub(crate) waits_for: Option<String>,
}

impl LeaderSays {
    fn of(value: &Value) -> Self {
        let text = |name: &str| {
            let text = sentence(value[name].as_str()?);
            Some(text.chars().take(SENTENCE).collect())
        };
        Self {
            verdict: text("verdict"),
            waits_for: text("waits_for"),
        }
    }
}

/// The longest sentence of a leader, in characters.
const SENTENCE: usize = 500;

impl Renewal {
    /// As it is in its key.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "turns": self.turns,
            "holder": self.holder,
            "fence": self.fence,
            "beat": self.beat,
            "waited_ms": millis(self.waited),
            "verdict": self.says.verdict,
            "waits_for": self.says.waits_for,
        })
    }

    /// From the text of its key; `None` if it is something else.
    fn parse(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let number = |name: &str| value[name].as_u64();
        let word = |name: &str| value[name].as_str().map(plain);
        Some(Self {
            id: word("id")?,
            turns: number("turns")?,
            holder: word("holder")?,
            fence: number("fence")?,
            beat: number("beat")?,
            waited: Duration::from_millis(number("waited_ms")?),
            says: LeaderSays::of(&value),
        })
    }
}

/// The rollout in the state of a release, if there is one.
pub(crate) fn rollout_in(state: &Map<String, Value>) -> Option<Rollout> {
    Rollout::of_json(state.get(ROLLOUT)?)
}

/// True if the state has a rollout that is not over: then there may be a renewal beside it.
pub(crate) fn is_under_way(state: &Map<String, Value>) -> bool {
    rollout_in(state).is_some_and(|it| !it.course.is_over())
}

/// Adds to the state what the text beside it says, if that is about the rollout that is there.
pub(crate) fn add_renewal(state: &mut Map<String, Value>, text: &[u8]) {
    if let Some((mut rollout, renewal)) = rollout_in(state).zip(Renewal::parse(text))
        && rollout.is_renewed_by(&renewal)
    {
        rollout.lease.beat = renewal.beat;
        rollout.waited = rollout.waited.max(renewal.waited);
        rollout.says = renewal.says;
        state.insert(ROLLOUT.to_owned(), rollout.to_json());
    }
}

/// What the verdict says of the step that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    Good,
    /// Nothing yet: why.
    Open(String),
    /// Something that speaks against it.
    Against(String),
}

/// What there is besides the rollout.
#[derive(Clone, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The digest of what is in `pre`.
    pub(crate) pre: &'a str,
    /// Why that was taken back, if it was.
    pub(crate) trip: Option<&'a str>,
    /// Who has frozen the lists, if somebody has.
    pub(crate) frozen: Option<&'a str>,
    /// The share is on `gray` as the last step has left it.
    pub(crate) has_share: bool,
    /// The last turn that was seen of it.
    pub(crate) seen: SeenTurn,
    pub(crate) opinion: &'a Opinion,
    /// How long the step has been in force besides what is written.
    pub(crate) unwritten: Duration,
}

/// How far a rollout has come, as far as somebody has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenTurn {
    /// Its latest turn.
    pub(crate) turns: u64,
    /// The place of the latest step. Whoever sees it paused begins anew with this: it is a person who lets it
    /// go on then, and sees where it is.
    pub(crate) at: usize,
}

impl SeenTurn {
    /// It was seen like that.
    pub(super) fn see(&mut self, rollout: &Rollout) {
        if rollout.turns >= self.turns && rollout.course != Course::Running {
            self.at = rollout.at;
        }
        self.turns = self.turns.max(rollout.turns);
        self.at = self.at.max(rollout.at);
    }

    /// What was seen is not there any more.
    pub(crate) fn is_ahead_of(self, rollout: &Rollout) -> bool {
        rollout.turns < self.turns || rollout.course == Course::Running && rollout.at < self.at
    }
}

/// What is to become of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextTurn {
    /// Nothing more.
    Over,
    /// Nothing yet: why.
    Wait(String),
    /// The step at this place.
    Step(usize),
    /// The last step has held.
    Finish,
    Pause(String),
    Abort {
        why: String,
        /// Nobody gets `pre` any more.
        rolls_back: bool,
    },
}

/// Why a rollout is paused of which somebody has seen more than there is.
pub(crate) const LOST: &str = "the store has lost what had become of the rollout";

impl Rollout {
    /// What is to become of it.
    pub(crate) fn next(&self, facts: &Circumstances<'_>) -> NextTurn {
        if self.course.is_over() {
            return NextTurn::Over;
        }
        let is_running = self.course == Course::Running;
        let pause = |why: String| match is_running {
            true => NextTurn::Pause(why),
            false => NextTurn::Wait(why),
        };
        if facts.seen.is_ahead_of(self) {
            return NextTurn::Pause(LOST.to_owned());
        }
        if facts.pre != self.pre {
            return NextTurn::Abort {
                why: format!("pre is another one: {}", facts.pre),
                rolls_back: false,
            };
        }
        if let Some(frozen) = facts.frozen {
            return pause(frozen.to_owned());
        }
        if let Some(trip) = facts.trip {
            return NextTurn::Abort {
                why: trip.to_owned(),
                rolls_back: true,
            };
        }
        if !facts.has_share {
            return pause(format!("gray was changed: {} is not there", self.share));
        }
        if !is_running {
            return NextTurn::Wait(self.why.clone().unwrap_or_default());
        }
        let left = self.every.saturating_sub(self.waited + facts.unwritten);
        if !left.is_zero() {
            return NextTurn::Wait("the time of the step is not over".to_owned());
        }
        match facts.opinion {
            Opinion::Against(why) => NextTurn::Wait(why.clone()),
            Opinion::Open(why) if !self.without_verdict => NextTurn::Wait(why.clone()),
            _ if self.at + 1 < self.steps.len() => NextTurn::Step(self.at + 1),
            _ => NextTurn::Finish,
        }
    }

    /// The next step is in force, by this entry of `gray`.
    pub(crate) fn step(&mut self, share: String, since: &str) {
        self.at += 1;
        self.share = share;
        self.waited = Duration::ZERO;
        self.turn(Course::Running, None, since);
    }

    /// From now on, it stands like that.
    pub(crate) fn turn(&mut self, course: Course, why: Option<String>, since: &str) {
        self.course = course;
        self.why = why;
        self.since = since.to_owned();
        self.turns += 1;
        self.lease.beat += 1;
        self.says = LeaderSays::default();
    }

    /// A person has written it: nobody has the lease.
    pub(crate) fn seize(&mut self) {
        self.lease.fence += 1;
        self.lease.beat += 1;
        self.lease.holder = None;
        self.says = LeaderSays::default();
    }

    /// The lease is that of `holder`.
    pub(crate) fn take(&mut self, holder: &str) {
        self.seize();
        self.lease.holder = Some(holder.to_owned());
    }

    /// The lease is renewed, by who has it, `more` after what it has written before.
    pub(crate) fn renew(&mut self, more: Duration, says: LeaderSays) -> Renewal {
        self.says = says;
        self.lease.beat += 1;
        if self.course == Course::Running {
            self.waited = (self.waited + more).min(self.every);
        }
        Renewal {
            id: self.id.clone(),
            turns: self.turns,
            holder: self.lease.holder.clone().unwrap_or_default(),
            fence: self.lease.fence,
            beat: self.lease.beat,
            waited: self.waited,
            says: self.says.clone(),
        }
    }

    /// The gateway that carries it on.
    pub(crate) fn leader(&self) -> Option<&str> {
        let holder = self.lease.holder.as_deref()?;
        Some(holder.rsplit_once('/').map_or(holder, |(node, _)| node))
    }

    /// How long the step is in force yet, at least, while it is not over; as far as that was written.
    pub(crate) fn left(&self) -> Option<Duration> {
        (!self.course.is_over()).then(|| self.every.saturating_sub(self.waited))
    }

    /// True if that is what has become of the lease since the last turn.
    fn is_renewed_by(&self, renewal: &Renewal) -> bool {
        let is_of_it = self.id == renewal.id && self.turns == renewal.turns;
        is_of_it && self.is_led_by(&renewal.holder, renewal.fence) && self.lease.beat < renewal.beat
    }

    /// True if `holder` may write, by this fencing number.
    pub(crate) fn is_led_by(&self, holder: &str, fence: u64) -> bool {
        self.lease.fence == fence && self.lease.holder.as_deref() == Some(holder)
    }

    /// As it is in the state of the release.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "pre": self.pre,
            "steps": self.steps,
            "at": self.at,
            "share": self.share,
            "every_ms": millis(self.every),
            "waited_ms": millis(self.waited),
            "promote": self.promotes,
            "without_verdict": self.without_verdict,
            "course": self.course.name(),
            "why": self.why,
            "by": self.by,
            "started": self.started,
            "reason": self.reason,
            "since": self.since,
            "turns": self.turns,
            "holder": self.lease.holder,
            "fence": self.lease.fence,
            "beat": self.lease.beat,
            "verdict": self.says.verdict,
            "waits_for": self.says.waits_for,
        })
    }

    /// From such a value; `None` if it is something else.
    pub(crate) fn of_json(value: &Value) -> Option<Self> {
        // More is nothing that anybody has counted, and could not be counted on.
        let number = |name: &str| value[name].as_u64().filter(|it| *it <= MOST_COUNTED);
        let word = |name: &str| value[name].as_str().map(plain);
        let text = |name: &str| value[name].as_str().map(sentence);
        let steps = value["steps"].as_array()?.iter();
        let steps: Option<Vec<u16>> = steps
            .map(|it| it.as_u64().and_then(|it| it.try_into().ok()))
            .collect();
        let rollout = Self {
            id: word("id")?,
            pre: word("pre")?,
            steps: steps?,
            at: number("at")?.try_into().ok()?,
            share: text("share")?,
            every: Duration::from_millis(number("every_ms")?),
            waited: Duration::from_millis(number("waited_ms")?),
            promotes: value["promote"].as_bool()?,
            without_verdict: value["without_verdict"].as_bool()?,
            course: Course::of(value["course"].as_str()?)?,
            why: text("why"),
            by: word("by")?,
            started: word("started")?,
            reason: text("reason"),
            since: word("since")?,
            turns: number("turns")?,
            lease: Lease {
                holder: word("holder"),
                fence: number("fence")?,
                beat: number("beat")?,
            },
            says: LeaderSays::of(value),
        };
        let grows = rollout.steps.windows(2).all(|it| it[0] < it[1]);
        (grows && rollout.at < rollout.steps.len()).then_some(rollout)
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
