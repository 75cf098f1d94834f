use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::release::candidacy::{Candidacy, Role};

const EVERY: Duration = Duration::from_secs(12);

fn rollout() -> Rollout {
    Rollout {
        id: "0123456789abcdef".to_owned(),
        pre: "00000000000000aa".to_owned(),
        steps: vec![100, 500, 2500],
        at: 0,
        share: "percent:1:cookie:u d".to_owned(),
        every: EVERY,
        waited: Duration::ZERO,
        promotes: true,
        without_verdict: false,
        course: Course::Running,
        why: None,
        by: "ann@vm1".to_owned(),
        started: "2026-11-30T01:02:03.004Z".to_owned(),
        reason: Some("it is time".to_owned()),
        since: "2026-11-30T01:02:03.004Z".to_owned(),
        turns: 1,
        lease: Lease::default(),
        says: LeaderSays::default(),
    }
}

#[test]
fn it_is_read_as_it_was_written_and_what_is_none_is_none() {
    let mut led = rollout();
    led.take("gw-1");
    led.turn(Course::Paused, Some("it is late".to_owned()), "then");
    for rollout in [rollout(), led] {
        assert_eq!(Rollout::of_json(&rollout.to_json()), Some(rollout));
    }
    for (name, value) in [
        ("at", json!(3)),
        ("steps", json!([])),
        ("steps", json!([100, 100, 200])),
        ("steps", json!([100, 70_000])),
        ("course", json!("walking")),
        ("fence", json!("7")),
        ("fence", json!(u64::MAX)),
        ("turns", json!(u64::MAX)),
        ("waited_ms", json!(u64::MAX)),
    ] {
        let mut text = rollout().to_json();
        text[name] = value;
        assert_eq!(Rollout::of_json(&text), None, "{name}");
    }
    assert_eq!(Rollout::of_json(&Value::Null), None);
}

#[test]
fn what_becomes_of_it_is_told_in_the_order_of_the_rules() {
    let (good, open, against) = (
        Opinion::Good,
        Opinion::Open("more is needed".to_owned()),
        Opinion::Against("suspect".to_owned()),
    );
    let facts = Circumstances {
        pre: "00000000000000aa",
        trip: None,
        frozen: None,
        has_share: true,
        seen: SeenTurn { turns: 1, at: 0 },
        opinion: &good,
        unwritten: EVERY,
    };
    let wait = |why: &str| NextTurn::Wait(why.to_owned());
    let is_pause = |it: &NextTurn| matches!(it, NextTurn::Pause(_));
    let running = rollout();
    assert_eq!(running.next(&facts), NextTurn::Step(1));
    let at_last = Rollout { at: 2, ..rollout() };
    assert_eq!(at_last.next(&facts), NextTurn::Finish);

    // Time and verdict.
    let early = Circumstances {
        unwritten: EVERY - Duration::from_millis(1),
        ..facts.clone()
    };
    assert_eq!(
        running.next(&early),
        wait("the time of the step is not over")
    );
    let half = Rollout {
        waited: EVERY / 2,
        ..rollout()
    };
    assert_eq!(
        half.next(&Circumstances {
            unwritten: EVERY / 2,
            ..facts.clone()
        }),
        NextTurn::Step(1)
    );
    let unknown = Circumstances {
        opinion: &open,
        ..facts.clone()
    };
    assert_eq!(running.next(&unknown), wait("more is needed"));
    let regardless = Rollout {
        without_verdict: true,
        ..rollout()
    };
    assert_eq!(regardless.next(&unknown), NextTurn::Step(1));
    let doubted = Circumstances {
        opinion: &against,
        ..facts.clone()
    };
    assert_eq!(regardless.next(&doubted), wait("suspect"));

    // What stops it, whatever the time and the verdict; the first of these holds.
    let by_hand = Circumstances {
        has_share: false,
        ..facts.clone()
    };
    assert!(is_pause(&running.next(&by_hand)));
    let tripped = Circumstances {
        trip: Some("worse"),
        ..by_hand
    };
    let back = NextTurn::Abort {
        why: "worse".to_owned(),
        rolls_back: true,
    };
    assert_eq!(running.next(&tripped), back);
    let frozen = Circumstances {
        frozen: Some("the lists are frozen"),
        ..tripped.clone()
    };
    assert_eq!(
        running.next(&frozen),
        NextTurn::Pause("the lists are frozen".to_owned())
    );
    let other = Circumstances {
        pre: "00000000000000bb",
        ..frozen.clone()
    };
    assert!(matches!(
        running.next(&other),
        NextTurn::Abort {
            rolls_back: false,
            ..
        }
    ));
    let lost = Circumstances {
        seen: SeenTurn { turns: 2, at: 0 },
        ..other.clone()
    };
    assert!(is_pause(&running.next(&lost)));
    // Somebody has done something since that was lost: its number is that of what was.
    let stepped = Circumstances {
        seen: SeenTurn { turns: 1, at: 1 },
        ..facts.clone()
    };
    assert!(is_pause(&running.next(&stepped)));

    // One that is paused goes neither on nor into another pause, but to its end.
    let paused = Rollout {
        course: Course::Paused,
        why: Some("lunch".to_owned()),
        ..rollout()
    };
    assert_eq!(paused.next(&facts), wait("lunch"));
    assert_eq!(paused.next(&stepped), wait("lunch"));
    assert!(matches!(
        paused.next(&by_hand_of(&facts)),
        NextTurn::Wait(_)
    ));
    assert_eq!(paused.next(&frozen), wait("the lists are frozen"));
    assert_eq!(paused.next(&tripped), back);
    for course in [Course::Done, Course::Aborted] {
        let over = Rollout {
            course,
            ..rollout()
        };
        for facts in [&facts, &tripped, &frozen, &other, &lost] {
            assert_eq!(over.next(facts), NextTurn::Over);
        }
    }
}

#[test]
fn whoever_sees_it_paused_begins_anew_with_the_step_that_it_is_at() {
    let mut seen = SeenTurn::default();
    let at = |at, turns, course| Rollout {
        at,
        turns,
        course,
        ..rollout()
    };
    seen.see(&at(1, 2, Course::Running));
    seen.see(&at(0, 1, Course::Running));
    assert_eq!(seen, SeenTurn { turns: 2, at: 1 });
    assert!(seen.is_ahead_of(&at(0, 1, Course::Running)));
    assert!(seen.is_ahead_of(&at(0, 3, Course::Running)));
    seen.see(&at(0, 1, Course::Paused));
    assert_eq!(seen, SeenTurn { turns: 2, at: 1 });
    seen.see(&at(0, 2, Course::Paused));
    seen.see(&at(0, 3, Course::Running));
    assert_eq!(seen, SeenTurn { turns: 3, at: 0 });
}

fn by_hand_of<'a>(facts: &Circumstances<'a>) -> Circumstances<'a> {
    Circumstances {
        has_share: false,
        ..facts.clone()
    }
}

#[test]
fn a_lease_is_taken_when_it_was_seen_unchanged_for_its_time() {
    let at = Duration::from_millis;
    let mut rollout = rollout();
    let (mut one, mut other) = (Candidacy::default(), Candidacy::default());
    assert_eq!(one.look(&rollout, "a", at(5_000)), Role::Takes);
    rollout.take("a");
    one.wrote(&rollout.lease, at(5_000), at(5_100));
    let leads = |unwritten, is_due| Role::Leads {
        fence: 1,
        unwritten: at(unwritten),
        is_due,
    };
    assert_eq!(one.look(&rollout, "a", at(6_100)), leads(1_000, false));
    assert_eq!(one.look(&rollout, "a", at(8_400)), leads(3_300, true));
    // Another process has another clock.
    assert_eq!(other.look(&rollout, "b", at(900_000)), Role::Follows);
    assert_eq!(other.look(&rollout, "b", at(909_999)), Role::Follows);
    let _ = rollout.renew(at(3_300), LeaderSays::default());
    one.wrote(&rollout.lease, at(8_400), at(8_400));
    assert_eq!(other.look(&rollout, "b", at(910_000)), Role::Follows);
    assert_eq!(other.look(&rollout, "b", at(919_999)), Role::Follows);
    // Who was not renewed does nothing more, also before anybody else has taken the lease.
    assert_eq!(one.look(&rollout, "a", at(18_399)), leads(9_999, true));
    assert_eq!(one.look(&rollout, "a", at(18_400)), Role::Takes);
    assert_eq!(other.look(&rollout, "b", at(920_000)), Role::Takes);
    rollout.take("b");
    assert!(!rollout.is_led_by("a", 1) && rollout.is_led_by("b", 2));
    assert_eq!(one.look(&rollout, "a", at(18_500)), Role::Follows);
    // A person takes it from both.
    other.wrote(&rollout.lease, at(920_000), at(920_000));
    rollout.seize();
    assert_eq!(other.look(&rollout, "b", at(920_100)), Role::Takes);
}

#[test]
fn a_renewal_counts_for_the_very_turn_and_lease_that_it_is_of() {
    let mut led = rollout();
    led.take("a");
    let mut renewed = led.clone();
    let says = LeaderSays {
        verdict: Some("0 of 7 requests".to_owned()),
        waits_for: Some("time".to_owned()),
    };
    let _ = renewed.renew(Duration::from_secs(3), LeaderSays::default());
    let renewal = renewed.renew(Duration::from_secs(3), says);
    let renewal = renewal.to_json().to_string();
    let state = |rollout: &Rollout| {
        let mut state = Map::new();
        state.insert("epoch".to_owned(), json!("e"));
        state.insert(ROLLOUT.to_owned(), rollout.to_json());
        state
    };
    let with = |rollout: &Rollout, text: &str| {
        let mut state = state(rollout);
        add_renewal(&mut state, text.as_bytes());
        assert_eq!(state["epoch"], "e");
        rollout_in(&state).unwrap()
    };
    assert_eq!(with(&led, &renewal), renewed);
    let mut turned = led.clone();
    turned.turn(Course::Paused, None, "then");
    let (mut other, mut anew, mut seized) = (led.clone(), led.clone(), led.clone());
    other.id = "fedcba9876543210".to_owned();
    anew.take("a");
    seized.seize();
    let mut later = renewed.clone();
    let _ = later.renew(Duration::from_secs(3), LeaderSays::default());
    for rollout in [turned, other, anew, seized, later] {
        assert_eq!(with(&rollout, &renewal), rollout);
    }
    for text in ["", "x", "{}", "7", "{\"beat\":9}"] {
        assert_eq!(with(&led, text), led);
    }
    let mut none = Map::new();
    add_renewal(&mut none, renewal.as_bytes());
    assert!(none.is_empty());
}

/// A store with a rollout, and what happens to it.
#[derive(Clone, Debug)]
struct World {
    /// As the state has it.
    rollout: Rollout,
    /// What is beside it, and was there before.
    renewal: Option<String>,
    old_renewal: Option<String>,
    /// The share on `gray`.
    on_gray: Option<u16>,
    pre: &'static str,
    is_tripped: bool,
    is_frozen: bool,
    /// Counts writes of the state, as WATCH does.
    version: u64,
    now: Duration,
    /// When which step was taken.
    taken: Vec<(usize, Duration)>,
}

/// A write that is under way.
#[derive(Clone, Debug)]
enum Intent {
    Take(Rollout),
    Renew(Renewal, Lease),
    CarryOn(Duration, u64),
}

/// A gateway.
#[derive(Debug, Default)]
struct Actor {
    name: String,
    candidacy: Candidacy,
    /// Its clock has begun by so much earlier.
    clock: Duration,
    /// What it has read: the version, and when; and what it is to write.
    pending: Option<(u64, Duration, Intent)>,
    /// What it has sent and given up, and may arrive yet.
    late: Vec<(u64, Duration, Intent)>,
    lives: u32,
}

#[derive(Clone, Debug)]
enum Happening {
    /// A look and, at once, the write that follows.
    Act(usize),
    Look(usize),
    Write(usize, bool),
    /// What is to be written is under way for longer than anybody waits for it.
    GiveUp(usize),
    Arrive(usize),
    /// What is beside the state is lost, or what was there before comes back.
    Evict,
    Revive,
    Crash(usize),
    Passes(u64),
    Trip,
    OtherPre,
    Freeze,
    Thaw,
    Pause,
    Resume,
    Abort,
    ByHand,
    Restage,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        400 => (0..2usize).prop_map(Act),
        200 => (0..2usize).prop_map(Look),
        200 => (0..2usize, any::<bool>()).prop_map(|(it, is_heard)| Write(it, is_heard)),
        40 => (0..2usize).prop_map(GiveUp),
        40 => (0..2usize).prop_map(Arrive),
        4 => Just(Evict),
        4 => Just(Revive),
        20 => (0..2usize).prop_map(Crash),
        400 => (0..4_000u64).prop_map(Passes),
        30 => (6_000..40_000u64).prop_map(Passes),
        1 => Just(Trip),
        1 => Just(OtherPre),
        4 => Just(Freeze),
        30 => Just(Thaw),
        4 => Just(Pause),
        60 => Just(Resume),
        1 => Just(Abort),
        4 => Just(ByHand),
        30 => Just(Restage),
    ]
}

impl World {
    fn new() -> Self {
        let rollout = rollout();
        Self {
            on_gray: Some(rollout.steps[0]),
            rollout,
            renewal: None,
            old_renewal: None,
            pre: "00000000000000aa",
            is_tripped: false,
            is_frozen: false,
            version: 0,
            now: Duration::from_secs(1),
            taken: vec![(0, Duration::from_secs(1))],
        }
    }

    fn facts<'a>(
        &self,
        opinion: &'a Opinion,
        seen: SeenTurn,
        unwritten: Duration,
    ) -> Circumstances<'a> {
        Circumstances {
            pre: self.pre,
            trip: self.is_tripped.then_some("worse"),
            frozen: self.is_frozen.then_some("frozen"),
            has_share: self.on_gray == Some(self.rollout.steps[self.rollout.at]),
            seen,
            opinion,
            unwritten,
        }
    }

    /// The rollout, as whoever looks sees it.
    fn read(&self) -> Rollout {
        let mut state = Map::new();
        state.insert(ROLLOUT.to_owned(), self.rollout.to_json());
        if let Some(text) = &self.renewal {
            add_renewal(&mut state, text.as_bytes());
        }
        rollout_in(&state).unwrap()
    }

    fn by_person(&mut self, course: Course) {
        self.version += 1;
        self.rollout = self.read();
        self.rollout.seize();
        self.rollout.turn(course, None, "now");
    }

    fn look(&self, actor: &mut Actor) {
        let now = self.now + actor.clock;
        let mut rollout = self.read();
        let role = actor.candidacy.look(&rollout, &actor.name, now);
        let intent = match role {
            Role::Follows => None,
            Role::Takes => {
                rollout.take(&actor.name);
                Some(Intent::Take(rollout))
            }
            Role::Leads {
                fence, unwritten, ..
            } => {
                let facts = self.facts(&Opinion::Good, actor.candidacy.seen(), unwritten);
                Some(match rollout.next(&facts) {
                    NextTurn::Wait(_) | NextTurn::Over => {
                        let renewal = rollout.renew(unwritten, LeaderSays::default());
                        Intent::Renew(renewal, rollout.lease)
                    }
                    _ => Intent::CarryOn(unwritten, fence),
                })
            }
        };
        actor.pending = intent.map(|it| (self.version, now, it));
    }

    fn write(&mut self, actor: &mut Actor, is_heard: bool) {
        if let Some(sent) = actor.pending.take() {
            self.execute(actor, sent, is_heard);
        }
    }

    /// What an actor has sent is executed, if the state is as it was read.
    fn execute(
        &mut self,
        actor: &mut Actor,
        (version, begun, intent): (u64, Duration, Intent),
        is_heard: bool,
    ) {
        if version != self.version {
            return;
        }
        let lease = match intent {
            Intent::Take(rollout) => {
                (self.rollout, self.version) = (rollout, self.version + 1);
                self.rollout.lease.clone()
            }
            Intent::Renew(renewal, lease) => {
                assert!(self.rollout.is_led_by(&actor.name, lease.fence));
                self.old_renewal = self.renewal.replace(renewal.to_json().to_string());
                lease
            }
            Intent::CarryOn(unwritten, fence) => {
                let mut rollout = self.read();
                assert!(rollout.is_led_by(&actor.name, fence));
                let facts = self.facts(&Opinion::Good, actor.candidacy.seen(), unwritten);
                match rollout.next(&facts) {
                    NextTurn::Step(at) => {
                        assert!(!self.is_tripped && !self.is_frozen);
                        assert!(Some(rollout.steps[at]) > self.on_gray, "up");
                        self.on_gray = Some(rollout.steps[at]);
                        self.taken.push((at, self.now));
                        rollout.step("share".to_owned(), "now");
                    }
                    NextTurn::Finish => rollout.turn(Course::Done, None, "now"),
                    NextTurn::Pause(_) => rollout.turn(Course::Paused, None, "now"),
                    NextTurn::Abort { rolls_back, .. } => {
                        if rolls_back {
                            self.on_gray = None;
                        }
                        rollout.turn(Course::Aborted, None, "now");
                    }
                    NextTurn::Wait(_) | NextTurn::Over => {}
                }
                (self.rollout, self.version) = (rollout, self.version + 1);
                self.rollout.lease.clone()
            }
        };
        if is_heard {
            let known = self.now + actor.clock;
            actor.candidacy.wrote(&lease, begun, known);
        }
    }

    fn happen(&mut self, what: &Happening, actors: &mut [Actor; 2]) {
        match *what {
            Happening::Act(it) => {
                self.look(&mut actors[it]);
                self.write(&mut actors[it], true);
            }
            Happening::Look(it) => self.look(&mut actors[it]),
            Happening::Write(it, is_heard) => self.write(&mut actors[it], is_heard),
            Happening::GiveUp(it) => {
                let sent = actors[it].pending.take();
                actors[it].late.extend(sent);
            }
            Happening::Arrive(it) => {
                if let Some(sent) = actors[it].late.pop() {
                    self.execute(&mut actors[it], sent, false);
                }
            }
            Happening::Evict => self.old_renewal = self.renewal.take(),
            Happening::Revive => std::mem::swap(&mut self.renewal, &mut self.old_renewal),
            Happening::Crash(it) => {
                let lives = actors[it].lives + 1;
                actors[it] = Actor {
                    name: format!("{it}/{lives}"),
                    clock: Duration::from_secs(u64::from(lives) * 100_000),
                    lives,
                    ..Actor::default()
                };
            }
            Happening::Passes(millis) => self.now += Duration::from_millis(millis),
            Happening::Trip => (self.is_tripped, self.version) = (true, self.version + 1),
            Happening::OtherPre => {
                (self.pre, self.version) = ("00000000000000bb", self.version + 1)
            }
            Happening::Freeze => (self.is_frozen, self.version) = (true, self.version + 1),
            Happening::Thaw => (self.is_frozen, self.version) = (false, self.version + 1),
            Happening::Pause if self.rollout.course == Course::Running => {
                self.by_person(Course::Paused)
            }
            Happening::Resume if self.rollout.course == Course::Paused && !self.is_frozen => {
                self.by_person(Course::Running);
            }
            Happening::Abort if !self.rollout.course.is_over() => {
                self.on_gray = None;
                self.by_person(Course::Aborted);
            }
            Happening::ByHand => (self.on_gray, self.version) = (None, self.version + 1),
            Happening::Restage if !self.rollout.course.is_over() => {
                self.on_gray = Some(self.rollout.steps[self.rollout.at]);
                self.version += 1;
            }
            _ => {}
        }
    }
}

/// How many rollouts have come to each of their ends.
static ENDS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Of what has been tried enough comes to an end, so that the rules are put to the test.
#[test]
fn whatever_happens_no_step_is_taken_twice_or_too_early_or_after_the_end() {
    whatever_happens();
    let [done, aborted] = [0, 1].map(|it: usize| ENDS[it].load(Ordering::Relaxed));
    assert!(done >= 20 && aborted >= 20, "{done} {aborted}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    fn whatever_happens(
        all in proptest::collection::vec(happening(), 1..300),
    ) {
        let mut world = World::new();
        let named = |name: &str| Actor { name: name.to_owned(), ..Actor::default() };
        let mut actors = [named("0/0"), named("1/0")];
        for what in &all {
            let before = world.clone();
            world.happen(what, &mut actors);
            let (old, new) = (&before.rollout, &world.rollout);
            prop_assert!(new.at == old.at || new.at == old.at + 1, "{what:?}");
            prop_assert!(new.lease.fence >= old.lease.fence && new.turns >= old.turns);
            prop_assert!(!old.course.is_over() || new.course == old.course, "{what:?}");
            if new.at != old.at {
                prop_assert!(old.course == Course::Running && !before.is_tripped && before.pre == old.pre);
                prop_assert!(matches!(
                    what,
                    Happening::Write(..) | Happening::Act(_) | Happening::Arrive(_)
                ));
            }
            // A share that has gone does not come back but by hand.
            if before.on_gray.is_none() && world.on_gray.is_some() {
                prop_assert!(matches!(what, Happening::Restage));
            }
        }
        match world.rollout.course {
            Course::Done => ENDS[0].fetch_add(1, Ordering::Relaxed),
            Course::Aborted => ENDS[1].fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let steps: BTreeSet<usize> = world.taken.iter().map(|(at, _)| *at).collect();
        prop_assert_eq!(steps.len(), world.taken.len());
        for two in world.taken.windows(2) {
            prop_assert!(two[1].1 - two[0].1 >= EVERY, "too early: {:?}", world.taken);
        }
    }
}

/// Undisturbed, it comes to its end; led by whoever is there.
#[test]
fn it_comes_to_its_end_also_when_its_leader_has_died() {
    for dies in [None, Some(7), Some(40)] {
        let mut world = World::new();
        let named = |name: &str| Actor {
            name: name.to_owned(),
            ..Actor::default()
        };
        let mut actors = [named("0/0"), named("1/0")];
        for second in 0..150 {
            world.now += Duration::from_secs(1);
            for (at, actor) in actors.iter_mut().enumerate() {
                if at == 0 && dies.is_some_and(|it| second >= it) {
                    continue;
                }
                world.look(actor);
                world.write(actor, true);
            }
        }
        assert_eq!(world.rollout.course, Course::Done, "{dies:?}");
        assert_eq!(world.taken.len(), 3);
    }
}
