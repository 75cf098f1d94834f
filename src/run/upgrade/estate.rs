//! What goes over besides sockets, so that nothing is judged anew: lists, what is held, how servers do, and
//! the history of upgrades. Of each, how it stands in messages.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::Checked;
use crate::lists::{ListName, ServiceName};
use crate::process::handover::{
    Channel, CheckNote, GateNote, HistoryNote, ListsNote, Message, PeerNote, ServiceNote,
    WaitingNote, carried, carry,
};
use crate::process::lineage::{Lineage, of_millis, to_millis};
use crate::store::gate::guard::{GateRecord, WaitingRecord};
use crate::store::{HandedLists, HandedService, Publisher, StoreName};
use crate::upstream::health::{HealthRecord, RecordedCheck, RecordedState};
use crate::upstream::in_force::InForce;

/// Most peers, and most services, in one message: far below the longest one.
const PEERS: usize = 100;
const SERVICES: usize = 100;

/// What the old process has said of itself.
#[derive(Clone, Debug, Default)]
pub(in crate::run) struct Estate {
    pub(in crate::run) lists: HandedLists,
    pub(in crate::run) peers: BTreeMap<SocketAddr, HealthRecord>,
    pub(in crate::run) history: HistoryNote,
}

/// Sends all of it.
pub(super) fn send(
    channel: &Channel,
    publisher: &Publisher,
    in_force: &InForce,
    config: &Config,
    lineage: &Lineage,
) -> io::Result<()> {
    let lists = publisher.hand_over(&StoreName::of(&config.store));
    let note = ListsNote {
        generation: lists.generation,
        changed_ms: lists.changed.map(to_millis),
        age_ms: lists.age.map(millis),
        error: lists.error,
        trips: lists.trips,
    };
    let copy = lists.copy.map(|it| carry(&it)).transpose()?;
    send_with(channel, &Message::Lists(note), copy)?;
    for (list, record) in &lists.gates {
        send_gate(channel, record, Message::Gate(gate_note(*list, record)))?;
    }
    send_services(channel, &lists.services, lists.services_copy.as_deref())?;
    let peers = in_force.record_health(Instant::now());
    let notes: Vec<PeerNote> = peers
        .iter()
        .map(|(peer, it)| peer_note(*peer, it))
        .collect();
    for notes in notes.chunks(PEERS) {
        channel.send(&Message::Peers(notes.to_vec()), &[])?;
    }
    channel.send(&Message::History(lineage.history()), &[])
}

/// Sends what is known of the services besides the default one, with the `copy` of their lists.
fn send_services(
    channel: &Channel,
    services: &[HandedService],
    copy: Option<&[u8]>,
) -> io::Result<()> {
    let note = |it: &HandedService| ServiceNote {
        service: it.service.to_string(),
        generation: it.generation,
        changed_ms: it.changed.map(to_millis),
    };
    let mut copy = copy.map(carry).transpose()?;
    for some in services.chunks(SERVICES) {
        let notes = some.iter().map(note).collect();
        send_with(channel, &Message::Services(notes), copy.take())?;
    }
    for it in services {
        let gates = it.gates.iter();
        for (list, record) in gates.filter(|(_, record)| *record != GateRecord::default()) {
            let note = gate_note(*list, record);
            let message = Message::ServiceGate(it.service.to_string(), note);
            send_gate(channel, record, message)?;
        }
    }
    Ok(())
}

/// Sends what says this of a gate, with the entries of its lists.
fn send_gate(channel: &Channel, record: &GateRecord, message: Message) -> io::Result<()> {
    let texts = [
        record.waiting.as_ref().map(|it| &it.entries),
        record.baseline.as_ref(),
    ];
    let texts = texts.into_iter().flatten().map(|it| carry(it));
    let texts = texts.collect::<io::Result<Vec<_>>>()?;
    send_with(channel, &message, texts)
}

fn send_with(
    channel: &Channel,
    message: &Message,
    files: impl IntoIterator<Item = OwnedFd>,
) -> io::Result<()> {
    let files: Vec<OwnedFd> = files.into_iter().collect();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    channel.send(message, &files)
}

impl Estate {
    /// Takes down what a message says of it, with the files that have come with the message.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take_down(&mut self, message: Message, files: Vec<OwnedFd>) -> io::Result<()> {
        let mut texts = files.into_iter().map(carried);
        match message {
            Message::Lists(note) => {
                self.lists.copy = texts.next().transpose()?;
                self.lists.generation = note.generation;
                self.lists.changed = note.changed_ms.map(of_millis);
                self.lists.age = note.age_ms.map(Duration::from_millis);
                self.lists.error = note.error;
                self.lists.trips = note.trips;
            }
            Message::Gate(note) => self.lists.gates.extend(gate_record(note, texts)?),
            Message::Services(notes) => {
                if let Some(copy) = texts.next().transpose()? {
                    self.lists.services_copy = Some(copy);
                }
                let services = notes.into_iter().filter_map(|it| {
                    Some(HandedService {
                        service: ServiceName::parse(&it.service)?,
                        generation: it.generation,
                        changed: it.changed_ms.map(of_millis),
                        gates: Vec::new(),
                    })
                });
                self.lists.services.extend(services);
            }
            Message::ServiceGate(service, note) => {
                let mut services = self.lists.services.iter_mut();
                let service = services.find(|it| it.service.as_str() == service);
                if let Some(service) = service {
                    service.gates.extend(gate_record(note, texts)?);
                }
            }
            Message::Peers(notes) => self.peers.extend(notes.iter().map(peer_record)),
            Message::History(history) => self.history = history,
            _ => {}
        }
        Ok(())
    }
}

/// What a note says of the gate of a list, whose entries are the next of these texts.
fn gate_record(
    note: GateNote,
    mut texts: impl Iterator<Item = io::Result<Vec<u8>>>,
) -> io::Result<Option<(ListName, GateRecord)>> {
    let mut lists = ListName::ALL.into_iter();
    let Some(list) = lists.find(|it| it.name() == note.list) else {
        return Ok(None);
    };
    let entries = note.waiting.as_ref().and_then(|_| texts.next());
    let entries = entries.transpose()?;
    let baseline = texts.next().filter(|_| note.baseline).transpose()?;
    let waiting = note.waiting.zip(entries);
    let record = GateRecord {
        doubtful: note.doubtful,
        changed: note.changed_ms.map(Duration::from_millis),
        waiting: waiting.map(|(it, entries)| WaitingRecord {
            entries,
            reason: it.reason,
            since: of_millis(it.since_ms),
            stood: it.stood_ms.map(Duration::from_millis),
        }),
        baseline,
    };
    Ok(Some((list, record)))
}

fn gate_note(list: ListName, record: &GateRecord) -> GateNote {
    GateNote {
        list: list.name().to_owned(),
        doubtful: record.doubtful,
        changed_ms: record.changed.map(millis),
        waiting: record.waiting.as_ref().map(|it| WaitingNote {
            reason: it.reason.clone(),
            since_ms: to_millis(it.since),
            stood_ms: it.stood.map(millis),
        }),
        baseline: record.baseline.is_some(),
    }
}

fn peer_note(peer: SocketAddr, record: &HealthRecord) -> PeerNote {
    let (state, time, why) = record.state.parts();
    PeerNote {
        peer,
        state: state.to_owned(),
        state_ms: millis(time),
        why: why.to_owned(),
        in_a_row: record.in_a_row.into(),
        cuts_in_a_row: record.cuts_in_a_row.into(),
        strikes: record.strikes.into(),
        out_ms: millis(record.out_for),
        proven: record.is_proven,
        check_failing: record.fails_checks,
        check: record.last_check.map(|check| CheckNote {
            ago_ms: millis(check.ago),
            outcome: check.outcome.name().to_owned(),
            status: check.status,
        }),
    }
}

fn peer_record(note: &PeerNote) -> (SocketAddr, HealthRecord) {
    let count = |it: u64| u32::try_from(it).unwrap_or(u32::MAX);
    let time = Duration::from_millis;
    let check = note.check.as_ref().and_then(|it| {
        let mut outcomes = Checked::ALL.iter();
        let outcome = outcomes.find(|outcome| outcome.name() == it.outcome)?;
        Some(RecordedCheck {
            ago: time(it.ago_ms),
            outcome: *outcome,
            status: it.status,
        })
    });
    let record = HealthRecord {
        state: RecordedState::of_parts(&note.state, time(note.state_ms), &note.why),
        in_a_row: count(note.in_a_row),
        cuts_in_a_row: count(note.cuts_in_a_row),
        strikes: count(note.strikes),
        out_for: time(note.out_ms),
        is_proven: note.proven,
        fails_checks: note.check_failing,
        last_check: check,
    };
    (note.peer, record)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
