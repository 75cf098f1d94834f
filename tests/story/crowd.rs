//! Clients that ask on and on at a bounded pace, each by its own name, and all that they were answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{Client, DEADLINE, wait_until};

/// Who has asked whom, when, and what came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) uid: String,
    pub(crate) gateway: usize,
    pub(crate) sent: Instant,
    pub(crate) got: Instant,
    /// Or why there was no answer.
    pub(crate) said: Result<Said, String>,
}

/// An answer's contents.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    /// The server's name.
    pub(crate) server: String,
    /// What the gateway says of its choice.
    pub(crate) exposed: String,
}

/// Threads that ask for a crowd.
const THREADS: usize = 4;

/// Each client asks once in such a time, if the machine lets it.
const PACE: Duration = Duration::from_millis(700);

/// One in so many requests goes to another gateway than the client's own.
const ROAMS: usize = 7;

/// A crowd, which asks until it is dismissed.
pub(crate) struct Crowd {
    answers: Arc<Mutex<Vec<Answer>>>,
    /// How often each thread has been through all of its clients.
    rounds: Arc<[AtomicUsize; THREADS]>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// These clients begin to ask these gateways.
    pub(crate) fn gather(uids: &[String], gateways: &[SocketAddr]) -> Self {
        let mut crowd = Self {
            answers: Arc::default(),
            rounds: Arc::default(),
            done: Arc::default(),
            threads: Vec::new(),
        };
        for thread in 0..THREADS {
            let own = uids.iter().skip(thread).step_by(THREADS).cloned();
            let own: Vec<String> = own.collect();
            let gateways = gateways.to_vec();
            let (answers, done) = (Arc::clone(&crowd.answers), Arc::clone(&crowd.done));
            let rounds = Arc::clone(&crowd.rounds);
            let mut asker = Asker::new(gateways);
            crowd.threads.push(std::thread::spawn(move || {
                let gap = PACE / u32::try_from(own.len()).unwrap();
                let mut next = Instant::now();
                for round in 0.. {
                    for (number, uid) in own.iter().enumerate() {
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                        // What was missed is not made up for.
                        next = (next + gap).max(Instant::now());
                        let is_away = (number + round) % ROAMS == 0;
                        let home = thread + THREADS * number;
                        let answer = asker.ask(uid, home + usize::from(is_away) * (1 + round % 2));
                        answers.lock().unwrap().push(answer);
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                    rounds[thread].store(round + 1, Ordering::Relaxed);
                }
            }));
        }
        crowd
    }

    /// Waits until each client has asked, and was answered, once more.
    #[track_caller]
    pub(crate) fn wait_for_all(&self) {
        let now = || self.rounds.iter().map(|it| it.load(Ordering::Relaxed));
        let until: Vec<usize> = now().map(|it| it + 2).collect();
        wait_until("everybody has asked", 2 * DEADLINE, || {
            now().zip(&until).all(|(now, until)| now >= *until)
        });
    }

    /// Sends it home; all that it was answered.
    pub(crate) fn dismiss(mut self) -> Vec<Answer> {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// Asks for clients, each on connections of its own.
struct Asker {
    gateways: Vec<SocketAddr>,
    connections: BTreeMap<(String, usize), Client>,
}

impl Asker {
    fn new(gateways: Vec<SocketAddr>) -> Self {
        Self {
            gateways,
            connections: BTreeMap::new(),
        }
    }

    fn ask(&mut self, uid: &str, number: usize) -> Answer {
        let gateway = number % self.gateways.len();
        let address = self.gateways[gateway];
        let client = self.connections.entry((uid.to_owned(), gateway));
        let client = client.or_insert_with(|| Client::from_another(address));
        let request = format!("GET / HTTP/1.1\r\nHost: shop\r\nCookie: uid={uid}\r\n\r\n");
        let sent = Instant::now();
        client.send_if_open(request);
        let response = client.try_response_to("GET");
        let got = Instant::now();
        let said = response.map(|it| Said {
            status: it.status(),
            server: it.text(),
            exposed: it.field("X-Graygate").unwrap_or_default(),
        });
        Answer {
            uid: uid.to_owned(),
            gateway,
            sent,
            got,
            said: said.map_err(|it| it.to_string()),
        }
    }
}
