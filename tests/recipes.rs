//! Every recipe of docs/gray.md does what it says: its `redis-cli` lines are run on a real Redis, its `curl`
//! lines are sent to a real gateway with its settings, and who answers is who is named there. `graygate
//! explain` says the same.

#![allow(clippy::unwrap_used)]

mod cookbook;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use cookbook::{Act, Ask, Claim, Outcome, Recipe, Step, Wanted, recipes};
use support::{Client, DEADLINE, Gateway, Origin, Redis, Response, Setup, ok, poll, run_to_exit};

/// As many gateways at a time.
const COOKS: usize = 4;

/// How long a change may take to be read; some, as a salt that no share asks for, are never.
const READ_WITHIN: Duration = Duration::from_millis(300);

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gray.md")).unwrap()
}

fn recipes_of_the_page() -> Vec<Recipe> {
    recipes(&page()).unwrap_or_else(|why| panic!("docs/gray.md: {why}"))
}

#[test]
fn every_recipe_does_what_it_says() {
    cook(&recipes_of_the_page());
}

/// Tries all of them, some at a time; `RECIPE=Force` those under a heading with that word.
#[track_caller]
fn cook(recipes: &[Recipe]) {
    let only = std::env::var("RECIPE").unwrap_or_default();
    let databases = (recipes.len() + 1).to_string();
    let redis = Redis::start_with_options(&["--databases", &databases]);
    let open = Mutex::new(recipes.iter().enumerate());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..COOKS {
            scope.spawn(|| {
                loop {
                    let next = open.lock().unwrap().next();
                    let Some((db, recipe)) = next else {
                        return;
                    };
                    if !recipe.heading.contains(&only) {
                        continue;
                    }
                    let cooked = catch_unwind(AssertUnwindSafe(|| {
                        Kitchen::of(&redis, db, recipe).cook(recipe)
                    }));
                    let cooked = cooked.unwrap_or(Err("see above".to_owned()));
                    if let Err(why) = cooked {
                        let (heading, line) = (&recipe.heading, recipe.line);
                        let failure = format!("{heading}, line {line}: {why}");
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let (bad, all) = (failures.len(), recipes.len());
    assert!(bad == 0, "{bad} of {all}:\n{}", failures.join("\n\n"));
}

/// A service of the ini lines.
struct Stock {
    /// What its peers say before the name of their pool.
    prefix: String,
    /// Its peers by their keys.
    peers: BTreeMap<String, Origin>,
}

impl Stock {
    /// A service whose peers are in these keys.
    fn of(prefix: &str, pre: String, prod: String) -> Self {
        let origin = |pool: &str| {
            let name = format!("{prefix}{pool}");
            Origin::answering(move |_| ok(&name))
        };
        Self {
            prefix: prefix.to_owned(),
            peers: BTreeMap::from([(pre, origin("pre")), (prod, origin("prod"))]),
        }
    }
}

/// What a recipe is tried with.
struct Kitchen<'a> {
    redis: &'a Redis,
    db: u8,
    gateway: Gateway,
    services: Vec<Stock>,
    jar: BTreeMap<String, String>,
    /// Who answered last.
    last: String,
}

impl<'a> Kitchen<'a> {
    /// A gateway with the settings of `recipe`, and two versions of each service.
    fn of(redis: &'a Redis, db: usize, recipe: &Recipe) -> Self {
        let db = u8::try_from(db).unwrap();
        let mut setup = Setup::new()
            .redis(redis.url_of(db))
            .set("redis.check_interval", "1h");
        let mut services = vec![Stock::of("", "pre".into(), "prod".into())];
        for (section, keys) in sections(&recipe.settings) {
            if let Some(name) = section
                .strip_prefix("service ")
                .filter(|it| !it.contains(' '))
            {
                let key = |pool: &str| {
                    let own = keys.get(&format!("{pool}_key"));
                    own.cloned().unwrap_or(format!("{name}:{pool}"))
                };
                services.push(Stock::of(&format!("{name} "), key("pre"), key("prod")));
            }
            for (key, value) in keys {
                // Beside the ini file, as it is there.
                let value = value.strip_prefix("/etc/graygate/").unwrap_or(&value);
                setup = setup.set(&format!("{section}.{key}"), value);
            }
        }
        let mut connection = redis.connect(db);
        for (key, origin) in services.iter().flat_map(|it| &it.peers) {
            let mut push = redis::cmd("RPUSH");
            push.arg(key).arg(origin.to_string());
            push.exec(&mut connection).unwrap();
        }
        for step in &recipe.steps {
            if let Act::Install(name, content) = &step.act {
                setup = setup.file(name, &format!("{content}\n"));
            }
        }
        let gateway = setup.start();
        gateway.wait_for_lists("it hears of changes", |it| it["mode"] == "events");
        Self {
            redis,
            db,
            gateway,
            services,
            jar: BTreeMap::new(),
            last: String::new(),
        }
    }

    fn cook(&mut self, recipe: &Recipe) -> Result<(), String> {
        for step in &recipe.steps {
            let Step {
                line, text, act, ..
            } = step;
            let outcome = match act {
                Act::Install(..) => Ok(()),
                Act::Push(words) => self.push(words),
                Act::Ask(ask, wanted) => self.ask(ask, wanted),
                Act::Explain(words, pool) => self.explain(words, pool),
            };
            let outcome = outcome.and_then(|()| self.explain_says_the_same(step));
            outcome.map_err(|why| format!("line {line}: {text}\n  {why}"))?;
        }
        Ok(())
    }

    /// Runs `redis-cli`, and waits until the gateway has read what it has changed.
    fn push(&self, words: &[String]) -> Result<(), String> {
        let before = self.readings();
        let said = self.redis_cli(words)?;
        // As redis-cli shows an error: `ERR …`, `WRONGTYPE …`.
        let first = said.split_whitespace().next().unwrap_or_default();
        let is_error = first.len() > 2 && first.bytes().all(|it| it.is_ascii_uppercase());
        if is_error && !["OK", "PONG"].contains(&first) {
            return Err(format!("redis-cli says {said}"));
        }
        let _ = poll(READ_WITHIN, || (self.readings() > before).then_some(()));
        Ok(())
    }

    /// What `redis-cli` says.
    fn redis_cli(&self, words: &[String]) -> Result<String, String> {
        let address = self.redis.address();
        let output = Command::new("redis-cli")
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args(["-n", &self.db.to_string()])
            .args(words)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            // The server may be there without its tools.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut connection = self.redis.connect(self.db);
                let mut command = redis::cmd(&words[0]);
                let said = command
                    .arg(&words[1..])
                    .query::<redis::Value>(&mut connection);
                said.map(|_| String::new()).map_err(|it| it.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// How often the lists were read.
    fn readings(&self) -> f64 {
        let (_, page) = self.gateway.admin_get("/metrics");
        let counts = page
            .lines()
            .filter(|it| it.starts_with("graygate_lists_refreshes_total"));
        counts
            .map(|it| it.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Sends the request until what comes of it is what is wanted.
    fn ask(&mut self, ask: &Ask, wanted: &Wanted) -> Result<(), String> {
        let mut why = String::new();
        let jar = self.jar.clone();
        let last = self.last.clone();
        let good = poll(DEADLINE, || {
            self.jar.clone_from(&jar);
            self.last.clone_from(&last);
            let outcome = self.send(ask).and_then(|it| self.verify(&it, wanted));
            outcome.map_err(|it| why = it).ok()
        });
        good.ok_or(why)
    }

    fn send(&mut self, ask: &Ask) -> Result<Response, String> {
        let source = ask.source.as_deref().unwrap_or("127.0.0.1");
        let mut fields = ask.fields.clone();
        if ask.has_jar && !self.jar.is_empty() {
            let cookies: Vec<String> = self
                .jar
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            fields.push(("Cookie".into(), cookies.join("; ")));
        }
        let mut head = format!("{} {} HTTP/1.1\r\n", ask.method, ask.target);
        let has = |name: &str| fields.iter().any(|it| it.0.eq_ignore_ascii_case(name));
        for (name, value) in [
            ("Host", ask.authority.as_str()),
            ("User-Agent", "curl/8.5.0"),
            ("Accept", "*/*"),
        ] {
            if !has(name) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        for (name, value) in &fields {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &ask.body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let body = ask.body.as_deref().unwrap_or_default();
        let mut client = Client::from(source, self.gateway.addr());
        client.send(format!("{head}Connection: close\r\n\r\n{body}"));
        let response = client
            .try_response_to(&ask.method)
            .map_err(|it| it.to_string())?;
        if ask.has_jar {
            for cookie in response.head.all("set-cookie") {
                let pair = cookie.split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }

    /// Whether that is what was wanted.
    fn verify(&mut self, response: &Response, wanted: &Wanted) -> Result<(), String> {
        let (status, text) = (response.status(), response.text());
        let is_good = match &wanted.outcome {
            Outcome::Status(wanted) => status == *wanted,
            Outcome::By(name) => status == 200 && text == *name,
            Outcome::Either => status == 200 && ["pre", "prod"].contains(&text.as_str()),
            Outcome::AsBefore => status == 200 && text == self.last,
        };
        if !is_good {
            return Err(format!("answered by {status} {text:?}"));
        }
        for claim in &wanted.claims {
            self.verify_claim(response, &text, claim)?;
        }
        self.last = text;
        Ok(())
    }

    fn verify_claim(&self, response: &Response, text: &str, claim: &Claim) -> Result<(), String> {
        let (name, wanted, found) = match claim {
            Claim::AnswerHas(name, value) => {
                (name, Some(value), response.head.all(&name.to_lowercase()))
            }
            Claim::AnswerHasNo(name) => (name, None, response.head.all(&name.to_lowercase())),
            Claim::PeerGets(name, value) => (name, Some(value), self.received(text, name)),
            Claim::PeerGetsNo(name) => (name, None, self.received(text, name)),
        };
        let is_good = match wanted {
            Some(wanted) => found.iter().any(|it| is_like(it, wanted)),
            None => found.is_empty(),
        };
        let why = || format!("{name}: {found:?}");
        is_good.then_some(()).ok_or_else(why)
    }

    /// The values of a field that the peer which answered `text` got last.
    fn received(&self, text: &str, name: &str) -> Vec<String> {
        let service = self
            .services
            .iter()
            .rfind(|it| text.starts_with(&it.prefix))
            .unwrap();
        let pool = &text[service.prefix.len()..];
        let (_, origin) = service
            .peers
            .iter()
            .find(|it| it.0.ends_with(pool))
            .unwrap();
        origin.last().head.all(&name.to_lowercase())
    }

    /// Runs the `graygate explain` of a recipe.
    fn explain(&self, words: &[String], pool: &str) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let told = self.explained(&words)?;
        let said = told["pool"].as_str();
        let why = || format!("explain says {told}");
        (said == Some(pool)).then_some(()).ok_or_else(why)
    }

    fn explained(&self, words: &[&str]) -> Result<serde_json::Value, String> {
        let ini = self.gateway.path("graygate.ini");
        let own = ["explain", "--json", "-c", ini.to_str().unwrap()];
        let output = run_to_exit(&[&own[..], words].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).map_err(|_| format!("explain: {output:?}"))
    }

    /// That `graygate explain` names the same pool for this very command.
    fn explain_says_the_same(&self, step: &Step) -> Result<(), String> {
        let Act::Ask(ask, wanted) = &step.act else {
            return Ok(());
        };
        let Outcome::By(name) = &wanted.outcome else {
            return Ok(());
        };
        // Who is not known is somebody else each time.
        if ask.has_jar {
            return Ok(());
        }
        let pool = name.rsplit(' ').next().unwrap();
        let command = [vec!["--curl".to_owned()], step.words.clone()].concat();
        self.explain(&command, pool)
    }
}

/// The sections of these ini lines with their keys.
fn sections(text: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut sections: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for line in text.lines() {
        let line = line.split("  #").next().unwrap().trim();
        if let Some(name) = line.strip_prefix('[') {
            sections.push((name.trim_end_matches(']').to_owned(), BTreeMap::new()));
        } else if let Some((key, value)) = line.split_once('=') {
            let (_, keys) = sections.last_mut().unwrap();
            keys.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    sections
}

/// `…` is whatever is there.
fn is_like(found: &str, wanted: &str) -> bool {
    match wanted.split_once('…') {
        None => found == wanted,
        Some((begin, end)) => {
            let rest = found.strip_prefix(begin);
            rest.is_some_and(|it| {
                (0..=it.len()).any(|at| it.get(at..).is_some_and(|it| is_like(it, end)))
            })
        }
    }
}

/// A row of the table of buckets, as a recipe: whoever is in a share of a hundredth more than the bucket, and
/// not in one that ends there, is in that bucket.
fn recipe_of_a_bucket(row: &str) -> String {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [salt, key, bucket] = cells[..] else {
        panic!("not three cells: {row}");
    };
    let (kind, key) = key.split_once(' ').unwrap();
    let (salt, key) = (salt.trim_matches('`'), key.trim_matches('`'));
    let (by, ask) = match kind {
        "cookie" => (":cookie:uid", format!("-b uid={key}")),
        "visitor" => (":visitor", format!("-b graygate_visitor={key}")),
        // The gateway trusts 127.0.0.1.
        "address" => ("", format!("-H 'X-Forwarded-For: {key}'")),
        _ => panic!("what is a {kind}?"),
    };
    let next = (bucket.parse::<f64>().unwrap() * 100.0).round() as u32 + 1;
    let next = format!("{}.{:02}", next / 100, next % 100);
    let salt = match salt {
        "" => String::new(),
        salt => format!("redis-cli SET graygate:salt {salt}\n"),
    };
    format!(
        "# Bucket {row}\n```ini\n[gateway]\ntrusted_proxies = 127.0.0.1\n```\n```sh recipe\n{salt}\
         redis-cli SADD gray percent:{next}{by}\n\
         curl {ask} http://127.0.0.1:8080/  # pre\n\
         redis-cli SADD gray percent:{bucket}{by}\n\
         redis-cli SREM gray percent:{next}{by}\n\
         curl {ask} http://127.0.0.1:8080/  # prod\n```\n"
    )
}

#[test]
fn the_buckets_in_the_table_are_those_of_the_gateway() {
    let page = page();
    let (_, table) = page.split_once("<!-- begin: buckets -->\n").unwrap();
    let (table, _) = table.split_once("<!-- end: buckets -->").unwrap();
    let rows: String = table.lines().skip(2).map(recipe_of_a_bucket).collect();
    let recipes = recipes(&rows).unwrap();
    assert!(recipes.len() > 7, "{rows}");
    cook(&recipes);
}

#[test]
fn no_block_of_commands_is_anything_but_a_recipe() {
    let recipes = recipes_of_the_page();
    let marked = page().matches("\n```sh recipe\n").count();
    assert_eq!(recipes.len(), marked);
    assert!(recipes.len() > 20, "{}", recipes.len());
}

#[test]
fn what_cannot_be_read_as_a_recipe_is_an_error() {
    let block = |lines: &str| format!("# Of\n\n```sh recipe\n{lines}\n```\n");
    let good = "curl http://a/  # prod\ncurl -H 'X-A: b' http://a/  # pre (as it should)";
    assert_eq!(recipes(&block(good)).unwrap()[0].steps.len(), 2);
    let bad = [
        ("sleep 1", "neither redis-cli"),
        (
            "sudo install -m 640 -g graygate /dev/stdin /etc/graygate/a",
            "what is in that file",
        ),
        ("redis-cli", "neither redis-cli"),
        ("curl http://a/", "what is \"\"?"),
        ("curl http://a/  # gray", "what is \"gray\"?"),
        ("curl http://a  # pre", "no path"),
        ("curl  # pre", "no URL"),
        ("curl -k http://a/  # pre", "what is -k?"),
        ("curl http://a/ http://b/  # pre", "what is http://b/?"),
        ("curl -H X-A http://a/  # pre", "no field"),
        ("curl -b jar http://a/  # pre", "both -b and -c"),
        (
            "curl http://a/  # pre, the peer knows it",
            "what is \"the peer knows it\"?",
        ),
        ("curl http://a/?b  # pre", "needs quotes"),
        ("redis-cli SADD gray 'a", "does not end"),
        ("redis-cli SADD gray header:A>=2", "needs quotes"),
        ("redis-cli SADD gray \"!*\"", "would put something there"),
        ("sudo graygate explain 127.0.0.1", "neither pre nor prod"),
        (
            "curl http://a/  # pre\ncurl http://b/  # pre",
            "one outcome",
        ),
        ("redis-cli SADD gray 127.0.0.1", "one outcome"),
    ];
    for (lines, why) in bad {
        let outcome = recipes(&block(lines));
        let error = outcome.map(|_| ()).unwrap_err();
        assert!(error.contains(why), "{lines}: {error}");
    }
    let whole = block(good);
    let pages = [
        ("```sh\nredis-cli DEL gray\n```\n".to_owned(), "not run"),
        ("```\nredis-cli DEL gray\n```\n".to_owned(), "not run"),
        (format!("{whole}\n```ini\n[gray]\n```\n"), "no recipe uses"),
        (
            format!("# Of\n```ini\n[gray]\n```\n{whole}"),
            "no recipe uses",
        ),
    ];
    for (page, why) in pages {
        let error = recipes(&page).map(|_| ()).unwrap_err();
        assert!(error.contains(why), "{page}: {error}");
    }
    let why = "<!-- not run here: since -->\n```sh\nredis-cli DEL gray\n```\n";
    assert!(recipes(why).unwrap().is_empty());
}
