//! A release of a service of its own that is moved all the time, by the commands that people type: a share
//! that grows and is promoted and rolled back, and a version that breaks, is taken back and may be tried
//! again. Tunnels to the new version are open meanwhile, clients ask for the service, and a receiver is told.
//!
//! Each part ends as it began, with nobody on the gray list: so what is idle can be compared.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::acts::{Stage, get};
use crate::client::{Answer, Client};
use crate::origin::{Mood, Origin};
use crate::receiver::Receiver;
use crate::sample;
use crate::site::{Gateway, Weather};
use crate::tally::{Outcome, Tallies, Tally};

/// What the gateways' ini files say of the service. Its clients are told by a cookie, since they are many.
pub(crate) const BASKET: &str = "\
[service basket]\nhosts = basket.soak\n\
[service basket verdict]\nmode = enforce\nclient = cookie:uid\ntolerate = 10%\n";

/// Time in which its tunnels end, in the ini files; the shipped one is longer than a round.
pub(crate) const TUNNEL_GRACE: Duration = Duration::from_secs(1);

/// How long a machine that is busy may take for what has to come: a step, a trip, an end.
const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(50);

/// A part is begun so long before the end of a round at the latest.
const PART: Duration = Duration::from_secs(3);

/// The client whom a list names.
const TESTER: &str = "cookie:uid=tester";

/// What moves, and what it is moved by.
pub(crate) struct Release<'a> {
    pub(crate) program: &'a Path,
    pub(crate) gateways: &'a [Gateway],
    pub(crate) tallies: &'a Tallies,
    /// A server of the new version.
    pub(crate) new: &'a Origin,
    pub(crate) weather: &'a Weather,
    pub(crate) receiver: &'a Receiver,
    /// The new version fails, as it has been told to.
    pub(crate) broken: AtomicBool,
    /// Nothing moves any more.
    pub(crate) over: AtomicBool,
}

/// What has to be so, and was not.
type Wrong = String;

impl Release<'_> {
    /// Moves it until `until`, and until the last part has ended: one at least.
    pub(crate) fn run(&self, until: Instant, round: u64, mut random: Rng) {
        for part in round.. {
            let outcome = match part % 2 {
                0 => self.grows(part / 2, &mut random),
                _ => self.breaks(&mut random),
            };
            self.new.be(Mood::Sound);
            self.broken.store(false, Ordering::SeqCst);
            let outcome = match outcome {
                Ok(()) => Outcome::Right(0),
                Err(wrong) => Outcome::Wrong(wrong),
            };
            let name = ["release that grows", "release that breaks"][(part % 2) as usize];
            self.tallies.of(0).note(name, outcome);
            if Instant::now() + PART > until {
                break;
            }
        }
        self.over.store(true, Ordering::SeqCst);
    }

    /// A rollout to its end, a promotion, and back.
    fn grows(&self, at: u64, random: &mut Rng) -> Result<(), Wrong> {
        let told = self.receiver.count("promoted");
        self.begin("20%", random)?;
        let tunnels = self.tunnels()?;
        let promotes = at.is_multiple_of(2);
        let mut start = vec!["rollout", "start", "--steps", "50,90", "--every", "1s"];
        start.extend(promotes.then_some("--promote"));
        self.command(&start, random)?;
        self.wait("the rollout is not done", || {
            let said = self.command(&["rollout", "status"], random)?;
            let stands = said.split(' ').next().unwrap_or_default();
            match stands {
                "running" => Ok(false),
                "done" => Ok(true),
                _ => Err(format!("the rollout: {said}")),
            }
        })?;
        if !promotes {
            self.command(&["promote", "--swap", "--yes", "--wait"], random)?;
        }
        self.wait("nobody was told of the promotion", || {
            Ok(self.receiver.count("promoted") > told)
        })?;
        // The lists of before, with the tester.
        self.command(&["rollback", "--yes", "--wait"], random)?;
        self.command(&["remove", TESTER, "--yes", "--wait"], random)?;
        tunnels.into_iter().try_for_each(ended)
    }

    /// The new version breaks: it is taken back, and may be tried again.
    fn breaks(&self, random: &mut Rng) -> Result<(), Wrong> {
        let told = self.receiver.count("tripped");
        self.begin("50%", random)?;
        let tunnels = self.tunnels()?;
        self.broken.store(true, Ordering::SeqCst);
        self.new.be(Mood::Fails);
        let is_taken_back = |gateway: &Gateway| -> Result<bool, Wrong> {
            let metrics = sample::metrics(gateway)?;
            Ok(sample::sum(&metrics, "graygate_tripped{service=\"basket\"}") > 0.0)
        };
        self.wait("the version was not taken back", || {
            let mut gateways = self.gateways.iter().map(is_taken_back);
            gateways.try_fold(true, |all, it| Ok(all & it?))
        })?;
        tunnels.into_iter().try_for_each(ended)?;
        self.wait("nobody was told of the trip", || {
            Ok(self.receiver.count("tripped") > told)
        })?;
        self.new.be(Mood::Sound);
        self.broken.store(false, Ordering::SeqCst);
        self.command(&["verdict", "reset", "--wait"], random)?;
        self.command(&["rollback", "--yes", "--wait"], random)?;
        Ok(())
    }

    /// A tester and a share get the new version.
    fn begin(&self, share: &str, random: &mut Rng) -> Result<(), Wrong> {
        self.command(&["admit", TESTER, "--wait"], random)?;
        self.command(&["stage", share, "--by-cookie", "uid", "--wait"], random)?;
        Ok(())
    }

    /// A command at one of the gateways. While Redis is away it may fail, and is given once more.
    fn command(&self, arguments: &[&str], random: &mut Rng) -> Result<String, Wrong> {
        let at = random.usize(..self.gateways.len());
        let (start, tally) = (Instant::now(), self.tallies.of(at));
        loop {
            let begun = Instant::now();
            let mut command = Command::new(self.program);
            command.args(arguments).args(["--service", "basket", "-c"]);
            command.arg(self.gateways[at].ini()).stdin(Stdio::null());
            let output = command.output();
            let output = output.map_err(|it| format!("{arguments:?}: {it}"))?;
            if output.status.success() {
                tally.note("command", Outcome::Right(0));
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            if !self.weather.was_bad_after(begun) || start.elapsed() > PATIENCE {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                return Err(format!("{arguments:?}: {}", said.trim()));
            }
            tally.note("command", Outcome::Allowed("Redis is away"));
            std::thread::sleep(PAUSE);
        }
    }

    fn wait(
        &self,
        otherwise: &str,
        mut is_so: impl FnMut() -> Result<bool, Wrong>,
    ) -> Result<(), Wrong> {
        let start = Instant::now();
        while !is_so()? {
            if start.elapsed() > PATIENCE {
                return Err(otherwise.to_owned());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// One of the tester at each gateway, to the new version.
    fn tunnels(&self) -> Result<Vec<Client>, Wrong> {
        let open = |gateway: &Gateway| -> io::Result<(Client, Answer)> {
            let mut client = Client::connect(gateway.listen[0])?;
            let upgrade = "Connection: Upgrade\r\nUpgrade: soak\r\nCookie: uid=tester\r\n";
            let answer = client.ask(of_basket("/tunnel", upgrade))?;
            client.send("hello")?;
            client.exactly("hello".len())?;
            Ok((client, answer))
        };
        let tunnels = self.gateways.iter().map(|gateway| {
            let (client, answer) = open(gateway).map_err(|it| format!("a tunnel: {it}"))?;
            let is_new = (answer.disclosed.as_deref()).is_some_and(|it| it.starts_with("pool=pre"));
            match answer.status == 101 && is_new {
                true => Ok(client),
                false => Err(format!("a tunnel of the tester: {}", answer.brief())),
            }
        });
        tunnels.collect()
    }

    /// A client of the service, until nothing moves any more.
    pub(crate) fn ask(&self, stage: &mut Stage, tally: &Tally) {
        while !self.over.load(Ordering::SeqCst) {
            let outcome = self.connection(stage);
            let outcome = outcome.unwrap_or_else(|error| Outcome::Wrong(error.to_string()));
            tally.note("release under way", outcome);
        }
    }

    /// A hundred requests of anybody on one connection; only the new version's own failures are allowed.
    fn connection(&self, stage: &mut Stage) -> io::Result<Outcome> {
        let mut client = stage.plain()?;
        let mut right = 0;
        for _ in 0..100 {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            let person = format!("Cookie: uid={}\r\n", stage.random.u16(..2000));
            let before = self.broken.load(Ordering::SeqCst);
            let answer = client.ask(of_basket("/plain/100", &person))?;
            let is_broken = before || self.broken.load(Ordering::SeqCst);
            match answer.status {
                200 => right += 1,
                500 if is_broken => {}
                _ => return Ok(Outcome::Wrong(answer.brief())),
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        Ok(Outcome::Right(right))
    }
}

fn of_basket(target: &str, more: &str) -> String {
    get(target, more).replace("Host: soak", "Host: basket.soak")
}

/// The gateway has to end this tunnel, within its grace.
fn ended(mut tunnel: Client) -> Result<(), Wrong> {
    let start = Instant::now();
    let limit = Some(TUNNEL_GRACE + PATIENCE / 2);
    let end = tunnel.stream.set_read_timeout(limit);
    match end.and_then(|()| tunnel.rest()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(format!(
            "a tunnel to what was taken back, after {:?}: {error}",
            start.elapsed()
        )),
    }
}
