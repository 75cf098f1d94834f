//! `rollout`: what people and the leader make of a rollout, and of the lists with it. The rules are in
//! [`crate::release::rollout`].

use std::time::Duration;

use serde_json::{Map, Value};

use super::basis::{EPOCH, STAGE, WantedChange, Work, frozen};
use super::stage::{self, ShareBy, Staging};
use super::{back, promote};
use crate::release::rollout::{
    Circumstances, Course, LOST, LeaderSays, Lease, NextTurn, Opinion, ROLLOUT, Rollout, SeenTurn,
    rollout_in,
};

/// What is done to a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RolloutVerb {
    Start(RolloutPlan),
    Pause,
    Resume,
    /// It ends, and nobody gets `pre` any more.
    Abort,
    /// What is due, by its leader.
    CarryOn(LeaderWord),
}

/// What a rollout is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RolloutPlan {
    /// The shares, in hundredths of a percent.
    pub(crate) steps: Vec<u16>,
    /// By what it is told who is in a share, if that is said.
    pub(crate) by: Option<ShareBy>,
    pub(crate) every: Duration,
    pub(crate) promotes: bool,
    pub(crate) without_verdict: bool,
}

/// What the leader knows that the store does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaderWord {
    /// By what it is known as the leader.
    pub(crate) holder: String,
    pub(crate) fence: u64,
    /// The name of the gateway, for the history.
    pub(crate) node: String,
    pub(crate) seen: SeenTurn,
    /// What it finds of this `PREDIGEST/EPOCH`; of another one, it knows nothing.
    pub(crate) release: String,
    pub(crate) opinion: Opinion,
    pub(crate) unwritten: Duration,
    /// Why it has taken the version of this digest back, which the store need not know yet.
    pub(crate) trip: Option<(String, String)>,
    /// What speaks against a promotion.
    pub(crate) against_promotion: Option<String>,
}

/// The steps as they are said: `1,5%,25,50,100`.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn steps(text: &str) -> Result<Vec<u16>, String> {
    let all = text.split(',').map(|it| stage::share(it.trim()));
    let all: Vec<u16> = all.collect::<Result<_, _>>()?;
    match all.windows(2).all(|it| it[0] < it[1]) && all[0] > 0 {
        true => Ok(all),
        false => {
            Err("each step is a larger share than the one before, such as 1,5,25,50,100".to_owned())
        }
    }
}

pub(super) fn rollout(work: &Work<'_>, verb: &RolloutVerb) -> Result<WantedChange, String> {
    let known = rollout_in(&work.found.state);
    if let RolloutVerb::Start(plan) = verb {
        return start(work, plan, known);
    }
    let Some(rollout) = known else {
        return Err("there is no rollout".to_owned());
    };
    if let RolloutVerb::CarryOn(word) = verb {
        return Ok(carry_on(work, rollout, word));
    }
    if rollout.course.is_over() {
        return Err(format!("the rollout is {}", in_words(&rollout)));
    }
    match verb {
        RolloutVerb::Pause => Ok(pause(work, rollout)),
        RolloutVerb::Resume => resume(work, rollout),
        _ => {
            let why = said(work, "aborted");
            let wanted = back::emptied(work)?;
            Ok(by_person(work, wanted, rollout, Course::Aborted, Some(why)))
        }
    }
}

/// How a rollout stands: `aborted: rolled back by …`, `paused by …`.
fn in_words(rollout: &Rollout) -> String {
    let name = rollout.course.name();
    match &rollout.why {
        // It begins with that itself.
        Some(why) if why.starts_with(name) => why.clone(),
        Some(why) => format!("{name}: {why}"),
        None => name.to_owned(),
    }
}

/// `paused by ann@vm1: …`
fn said(work: &Work<'_>, what: &str) -> String {
    let by = &work.drawn.by;
    match &work.drawn.reason {
        Some(reason) => format!("{what} by {by}: {reason}"),
        None => format!("{what} by {by}"),
    }
}

fn start(
    work: &Work<'_>,
    plan: &RolloutPlan,
    known: Option<Rollout>,
) -> Result<WantedChange, String> {
    if let Some(known) = known.filter(|it| !it.course.is_over()) {
        let words = in_words(&known);
        return Err(format!(
            "a rollout by {} is under way, and {words}; `graygate rollout abort` ends it",
            known.by
        ));
    }
    let first = plan.steps[0];
    let mut wanted = match stage::staging(work, first, plan.by.as_ref())? {
        Staging::Wanted(wanted) => *wanted,
        // The rollout begins with what is there.
        Staging::Present(_) => WantedChange::default(),
    };
    if let Some(before) = stage::staged(work).filter(|it| *it > first) {
        let before = stage::percent(before);
        return Err(format!(
            "gray has a share of {before}% already, and a rollout takes no step back: begin with --steps {before},…"
        ));
    }
    let mut state = wanted.state.take().unwrap_or_else(|| work.next_state());
    let at = &work.drawn.at;
    let rollout = Rollout {
        id: work.drawn.epoch.clone(),
        pre: work.release(),
        steps: plan.steps.clone(),
        at: 0,
        share: share_in(&state),
        every: plan.every,
        waited: Duration::ZERO,
        promotes: plan.promotes,
        without_verdict: plan.without_verdict,
        course: Course::Running,
        why: None,
        by: work.drawn.by.clone(),
        started: at.clone(),
        reason: work.drawn.reason.clone(),
        since: at.clone(),
        turns: 1,
        lease: Lease::default(),
        says: LeaderSays::default(),
    };
    state.insert(ROLLOUT.to_owned(), rollout.to_json());
    wanted.state = Some(state);
    if plan.promotes
        && let Some(others) = promote::others_of_gray(work)
    {
        let note = format!("with the promotion at its end, gray is emptied for {others} as well");
        wanted.notes.push(note);
    }
    wanted
        .more
        .push(format!("+ rollout {}", step_in_words(&rollout)));
    Ok(wanted)
}

/// `step 2 of 5 (5%)`
pub(crate) fn step_in_words(rollout: &Rollout) -> String {
    let share = stage::percent(rollout.steps[rollout.at]);
    format!(
        "step {} of {} ({share}%)",
        rollout.at + 1,
        rollout.steps.len()
    )
}

fn share_in(state: &Map<String, Value>) -> String {
    let share = state.get(STAGE).and_then(|it| it["share"].as_str());
    share.unwrap_or_default().to_owned()
}

fn has_share(work: &Work<'_>, rollout: &Rollout) -> bool {
    share_in(&work.found.state) == rollout.share && stage::is_on_gray(work, &rollout.share)
}

fn pause(work: &Work<'_>, rollout: Rollout) -> WantedChange {
    if rollout.course == Course::Paused {
        return WantedChange {
            notes: vec![format!("the rollout is {}", in_words(&rollout))],
            ..WantedChange::default()
        };
    }
    let why = said(work, "paused");
    by_person(
        work,
        WantedChange::default(),
        rollout,
        Course::Paused,
        Some(why),
    )
}

fn resume(work: &Work<'_>, rollout: Rollout) -> Result<WantedChange, String> {
    if rollout.course == Course::Running {
        return Ok(WantedChange {
            notes: vec!["the rollout is running".to_owned()],
            ..WantedChange::default()
        });
    }
    if let Some(trip) = work.trip() {
        return Err(trip);
    }
    if rollout.pre != work.release() {
        return Err("pre is another one than that of the rollout".to_owned());
    }
    if !has_share(work, &rollout) {
        let share = &rollout.share;
        let percent = stage::percent(rollout.steps[rollout.at]);
        return Err(format!(
            "gray was changed: the share of the rollout, {share}, is not there; `graygate stage \
             {percent}%` puts it there, and `graygate rollout abort` ends the rollout"
        ));
    }
    let step = step_in_words(&rollout);
    let mut wanted = by_person(
        work,
        WantedChange::default(),
        rollout,
        Course::Running,
        None,
    );
    // Not as if it had taken that step now.
    wanted.more = vec![format!("+ rollout resumed at {step}")];
    Ok(wanted)
}

/// What a person makes of it: no leader knows of that yet.
fn by_person(
    work: &Work<'_>,
    wanted: WantedChange,
    mut rollout: Rollout,
    course: Course,
    why: Option<String>,
) -> WantedChange {
    rollout.seize();
    rollout.turn(course, why, &work.drawn.at);
    written(work, wanted, &rollout)
}

/// With what has become of the rollout.
fn written(work: &Work<'_>, mut wanted: WantedChange, rollout: &Rollout) -> WantedChange {
    let state = wanted.state.take();
    let mut state = state.unwrap_or_else(|| work.found.state.clone());
    state.insert(ROLLOUT.to_owned(), rollout.to_json());
    wanted.state = Some(state);
    wanted.more.push(match (&rollout.course, &rollout.why) {
        (Course::Running, None) => format!("+ rollout {}", step_in_words(rollout)),
        _ => format!("+ rollout {}", in_words(rollout)),
    });
    wanted
}

/// What is due, if whoever says so leads.
fn carry_on(work: &Work<'_>, mut rollout: Rollout, word: &LeaderWord) -> WantedChange {
    let leads = rollout.is_led_by(&word.holder, word.fence);
    let is_lost = rollout.course == Course::Running && word.seen.is_ahead_of(&rollout);
    let next = match (leads, is_lost) {
        (true, _) => due(work, &rollout, word),
        // Who leads need not know of it, so all that is needed is to have seen more than there is.
        (false, true) => {
            rollout.seize();
            NextTurn::Pause(LOST.to_owned())
        }
        (false, false) => return WantedChange::default(),
    };
    rollout.turns = rollout.turns.max(word.seen.turns);
    let Some((verb, outcome)) = turned(work, &mut rollout, next, word) else {
        return WantedChange::default();
    };
    let (verb, wanted) = match outcome {
        Ok(wanted) => (verb, wanted),
        Err(why) => {
            if rollout.course == Course::Running {
                rollout.turn(Course::Paused, Some(why), &work.drawn.at);
            }
            ("rollout", WantedChange::default())
        }
    };
    by_leader(work, wanted, &rollout, (verb, word))
}

/// What is to become of a rollout, by what its leader and the store know.
fn due(work: &Work<'_>, rollout: &Rollout, word: &LeaderWord) -> NextTurn {
    let (pre, trip) = (work.release(), work.trip());
    let own = word.trip.as_ref().filter(|(of, _)| *of == pre);
    let trip = trip.or_else(|| own.map(|(_, why)| why.clone()));
    // It is paused by that also when they are no longer.
    let frozen = frozen(&work.found.state).map(|it| it.replacen(" are ", " were ", 1));
    let epoch = work.found.state.get(EPOCH).and_then(Value::as_str);
    let unknown = Opinion::Open("nothing of this step has been counted yet".to_owned());
    let is_of_it = word.release == format!("{pre}/{}", epoch.unwrap_or_default());
    rollout.next(&Circumstances {
        pre: &pre,
        trip: trip.as_deref(),
        frozen: frozen.as_deref(),
        has_share: has_share(work, rollout),
        seen: word.seen,
        opinion: if is_of_it { &word.opinion } else { &unknown },
        unwritten: word.unwritten,
    })
}

/// What the lists need for that, and as which verb; the rollout has turned, unless that cannot be. `None` if
/// nothing is to become of it now.
fn turned(
    work: &Work<'_>,
    rollout: &mut Rollout,
    next: NextTurn,
    word: &LeaderWord,
) -> Option<(&'static str, Result<WantedChange, String>)> {
    let at = &work.drawn.at;
    let nothing = Ok(WantedChange::default());
    Some(match next {
        NextTurn::Over | NextTurn::Wait(_) => return None,
        NextTurn::Step(to) => {
            let staged = stage::stage(work, rollout.steps[to], None);
            let staged = staged.inspect(|wanted| {
                let state = wanted.state.as_ref().unwrap_or(&work.found.state);
                rollout.step(share_in(state), at);
            });
            ("rollout", staged)
        }
        NextTurn::Finish if rollout.promotes => {
            if word.against_promotion.is_some() {
                return None;
            }
            let promoted = promote::promote(work, false, false);
            let promoted = promoted.inspect(|_| rollout.turn(Course::Done, None, at));
            ("promote", promoted)
        }
        NextTurn::Finish => {
            rollout.turn(Course::Done, None, at);
            ("rollout", nothing)
        }
        NextTurn::Pause(why) => {
            rollout.turn(Course::Paused, Some(why), at);
            ("rollout", nothing)
        }
        NextTurn::Abort { why, rolls_back } => {
            rollout.turn(Course::Aborted, Some(why), at);
            match rolls_back {
                true => ("rollback", back::emptied(work)),
                false => ("rollout", nothing),
            }
        }
    })
}

/// What its leader makes of it: as this verb, in the name of whoever has started it, unless it is stopped.
fn by_leader(
    work: &Work<'_>,
    wanted: WantedChange,
    rollout: &Rollout,
    (verb, word): (&'static str, &LeaderWord),
) -> WantedChange {
    let reason = match rollout.course {
        Course::Running => step_in_words(rollout),
        _ => in_words(rollout),
    };
    let mut wanted = written(work, wanted, rollout);
    wanted.verb = Some(verb);
    // Nobody has asked for that.
    let is_stopped = matches!(rollout.course, Course::Paused | Course::Aborted);
    wanted.by = is_stopped.then(|| word.node.clone());
    wanted.reason = Some(format!("rollout: {reason}; carried on by {}", word.node));
    wanted
}

/// A share that was set by hand is not what a rollout goes by that is under way.
pub(super) fn note_share(work: &Work<'_>, wanted: &mut WantedChange) {
    let known = rollout_in(&work.found.state).filter(|it| !it.course.is_over());
    let Some(rollout) = known else {
        return;
    };
    let state = wanted.state.as_ref().unwrap_or(&work.found.state);
    let is_its_own = share_in(state) == rollout.share;
    let words = in_words(&rollout);
    wanted.notes.extend(match (is_its_own, rollout.course) {
        (true, Course::Paused) => Some(format!(
            "the rollout is {words}; `graygate rollout resume` has it go on"
        )),
        (true, _) => None,
        (false, Course::Paused) => Some(format!(
            "the rollout is {words}; it can go on only with its own share, {}, and `graygate rollout abort` ends it",
            rollout.share
        )),
        (false, _) => Some(
            "a rollout is under way, and pauses by this; `graygate rollout abort` ends it".to_owned(),
        ),
    });
}

/// Another verb has made this of a rollout that is under way: what was promoted or rolled back needs none.
pub(super) fn ended(work: &Work<'_>, wanted: &mut WantedChange, course: Course, what: &str) {
    let known = rollout_in(&work.found.state).filter(|it| !it.course.is_over());
    let Some(mut rollout) = known else {
        return;
    };
    // It is over also where the lists need no change any more.
    let state = wanted.state.get_or_insert_with(|| work.found.state.clone());
    rollout.seize();
    rollout.turn(course, Some(said(work, what)), &work.drawn.at);
    state.insert(ROLLOUT.to_owned(), rollout.to_json());
    wanted
        .more
        .push(format!("+ rollout {}", in_words(&rollout)));
}
