//! What a server has lost, nobody has removed: at whatever moment it was lost, and whatever of it is back.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use support::{DEADLINE, Gateway, Origin, Redis, ScriptedRedis, Setup, texts, wait_until};

/// What a replica has that gets other data now and then.
#[derive(Debug, Default)]
struct World {
    /// How often it got other data.
    history: usize,
    has_lists: bool,
    has_trip: bool,
    /// Other data come just before this many more commands were answered.
    left: Option<usize>,
    /// The lists are among what is lost then; the trip always is.
    lists_too: bool,
}

impl World {
    fn comes_to(&mut self) {
        match self.left {
            Some(0) => {
                self.left = None;
                self.history += 1;
                self.has_lists &= !self.lists_too;
                self.has_trip = false;
            }
            Some(left) => self.left = Some(left - 1),
            None => {}
        }
    }

    fn list(&self, key: &str) -> String {
        match key {
            _ if !self.has_lists => texts(&[]),
            "gray" => texts(&["127.0.0.5"]),
            "pre" => texts(&["127.0.3.1:9"]),
            _ => texts(&["127.0.4.1:9"]),
        }
    }

    fn info(&self) -> String {
        let history = self.history;
        let text = format!(
            "run_id:one\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n\
             master_link_status:up\r\nmaster_replid:history{history}\r\n\
             master_replid2:{:040}\r\n",
            0
        );
        format!("${}\r\n{text}", text.len())
    }

    fn trip(&self) -> String {
        let why = "worse";
        match self.has_trip {
            true => format!("${}\r\n{why}", why.len()),
            false => "$-1".to_owned(),
        }
    }
}

/// A replica, and a gateway that looks at it all the time.
struct Replica {
    world: Arc<Mutex<World>>,
    gateway: Gateway,
}

impl Replica {
    fn start(world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let (said, mut queued) = (Arc::clone(&world), None::<Vec<[String; 2]>>);
        let redis = ScriptedRedis::start(move |command| {
            let mut world = said.lock().unwrap_or_else(PoisonError::into_inner);
            world.comes_to();
            match (command, &mut queued) {
                (["ROLE"], _) => texts(&["slave", "10.0.0.1", "6379", "connected", "1"]),
                (["INFO", ..], _) => world.info(),
                (["PING"], _) => "+PONG".to_owned(),
                (["MULTI"], _) => {
                    queued = Some(Vec::new());
                    "+OK".to_owned()
                }
                // What a transaction reads is of one moment.
                (["EXEC"], _) => {
                    let queued = queued.take().unwrap_or_default();
                    let replies = queued.iter().map(|[command, key]| match command.as_str() {
                        "GET" if key == "graygate:tripped" => world.trip(),
                        "GET" => "$-1".to_owned(),
                        _ => world.list(key),
                    });
                    let replies: Vec<String> = replies.collect();
                    format!("*{}\r\n{}", replies.len(), replies.join("\r\n"))
                }
                ([command @ ("GET" | "LRANGE" | "SMEMBERS"), key, ..], Some(queued)) => {
                    queued.push([command, key].map(|it| (*it).to_owned()));
                    "+QUEUED".to_owned()
                }
                (["WATCH" | "UNWATCH", ..], _) => "+OK".to_owned(),
                (["GET", ..], _) => "$-1".to_owned(),
                _ => "-ERR unknown command".to_owned(),
            }
        });
        let setup = Setup::new().redis(redis.url()).set("redis.notify", "poll");
        let setup = setup.set("redis.poll_interval", "100ms");
        let setup = setup.set("redis.check_interval", "100ms");
        let gateway = setup.set("redis.heartbeat", "off").start();
        Self { world, gateway }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other data come, at a moment that is another one for each number.
    fn lose_after(&self, commands: usize) {
        self.world().left = Some(commands);
    }
}

/// More than a reading takes, with all that is asked around it.
const MOMENTS: usize = 24;

#[test]
fn lists_that_a_replica_loses_at_any_moment_of_a_reading_are_kept() {
    let replica = Replica::start(World {
        has_lists: true,
        lists_too: true,
        ..World::default()
    });
    for commands in 0..MOMENTS {
        let page = replica.gateway.wait_for_lists("all is well", |it| {
            it["error"].is_null() && it["kept"] == json!([]) && it["generation"] == 1
        });
        assert_eq!(page["missed_events"], 0, "{page}");
        replica.lose_after(commands);
        let page = wait_kept(&replica.gateway, "without-data");
        assert_eq!(page["generation"], 1, "{commands}: {page}");
        replica.world().has_lists = true;
    }
}

#[test]
fn a_trip_that_a_replica_loses_at_any_moment_of_a_reading_holds_also_where_the_lists_are_back() {
    let replica = Replica::start(World {
        has_lists: true,
        has_trip: true,
        ..World::default()
    });
    for commands in 0..MOMENTS {
        let is_stored = |it: &Value| it["tripped"]["stored"] == true;
        replica.gateway.wait_for_lists("the trip", is_stored);
        replica.lose_after(commands);
        let page = replica
            .gateway
            .wait_for_lists("it is lost", |it| !is_stored(it));
        assert_eq!(page["tripped"]["stored"], false, "{commands}: {page}");
        replica.world().has_trip = true;
    }
}

#[track_caller]
fn wait_kept(gateway: &Gateway, fault: &str) -> Value {
    let kept = ["gray", "pre", "prod"].map(|list| json!({ "list": list, "fault": fault }));
    gateway.wait_for_lists(fault, |it| it["kept"] == json!(kept))
}

/// The lists of the default service, or of another one, in a Redis.
struct Lists {
    prefix: &'static str,
    host: &'static str,
    pre: Origin,
    prod: Origin,
}

impl Lists {
    fn of(prefix: &'static str, host: &'static str) -> Self {
        let (pre, prod) = Origin::pre_and_prod();
        Self {
            prefix,
            host,
            pre,
            prod,
        }
    }

    #[track_caller]
    fn fill(&self, redis: &Redis) {
        let prefix = self.prefix;
        redis.push(&format!("{prefix}pre"), &[&self.pre]);
        redis.push(&format!("{prefix}prod"), &[&self.prod]);
        redis.push(&format!("{prefix}gray"), &[&"127.0.0.5"]);
    }

    /// The pool that serves 127.0.0.5.
    #[track_caller]
    fn pool(&self, gateway: &Gateway) -> String {
        let host = self.host;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        gateway.connect_from("127.0.0.5").ask(request).text()
    }

    #[track_caller]
    fn wait_for_pool(&self, gateway: &Gateway, pool: &str) {
        let what = format!("{pool} of {}", self.host);
        wait_until(&what, DEADLINE, || self.pool(gateway) == pool);
    }
}

#[track_caller]
fn kept_of(gateway: &Gateway, service: &str) -> Value {
    let (status, page) = gateway.admin_get(&format!("/lists?service={service}"));
    assert_eq!(status, 200, "{page}");
    let page: Value = serde_json::from_str(&page).unwrap();
    page["kept"].clone()
}

#[test]
fn the_lists_of_a_service_that_were_lost_are_kept_while_another_one_is_filled_in_again() {
    for notify in ["events", "tracking", "poll"] {
        let mut redis = Redis::start();
        let [own, shop] = [("", "localhost"), ("shop:", "shop.test")]
            .map(|(prefix, host)| Lists::of(prefix, host));
        own.fill(&redis);
        shop.fill(&redis);
        let setup = Setup::new().redis(redis.url()).set("redis.notify", notify);
        let setup = setup.set("redis.check_interval", "300ms");
        let gateway = setup.set("service shop.hosts", "shop.test").start();
        shop.wait_for_pool(&gateway, "pre");
        redis.kill();
        redis.restart();
        wait_kept(&gateway, "without-data");
        own.fill(&redis);
        gateway.wait_for_lists("what is back", |it| it["kept"] == json!([]));
        let kept = json!([
            { "list": "gray", "fault": "without-data" },
            { "list": "pre", "fault": "without-data" },
            { "list": "prod", "fault": "without-data" },
        ]);
        wait_until("the others are kept", DEADLINE, || {
            kept_of(&gateway, "shop") == kept
        });
        // Whatever is done with the service that is back, also when nothing of it is left.
        redis.cli(&["DEL", "gray"]);
        own.wait_for_pool(&gateway, "prod");
        if notify == "events" {
            // The history says so of that alone.
            gateway.wait_for_log("changed-by-hand change=");
            assert_eq!(gateway.stderr.count("changed-by-hand service=shop"), 0);
        }
        redis.cli(&["DEL", "pre", "prod"]);
        gateway.wait_for_log("change-held list=prod");
        assert_eq!(shop.pool(&gateway), "pre");
        assert_eq!(kept_of(&gateway, "shop"), kept);
        assert_eq!(gateway.stderr.count("lists-event-missed"), 0);
        // The first of its own lists ends that.
        redis.push("shop:prod", &[&shop.prod]);
        shop.wait_for_pool(&gateway, "prod");
        shop.fill(&redis);
        shop.wait_for_pool(&gateway, "pre");
        redis.cli(&["DEL", "shop:gray", "shop:pre", "shop:prod"]);
        shop.wait_for_pool(&gateway, "prod");
    }
}

#[test]
fn a_replica_that_lost_the_lists_before_it_was_promoted_has_not_removed_them() {
    let mut master = Redis::start_with_options(&["--repl-diskless-sync-delay", "0"]);
    let lists = Lists::of("", "localhost");
    lists.fill(&master);
    let replica = Redis::start();
    let address = master.address();
    let follow = [
        "REPLICAOF",
        &address.ip().to_string(),
        &address.port().to_string(),
    ];
    let has = |count: i64| {
        wait_until("the replica has the same", DEADLINE, || {
            let info: String =
                redis::from_redis_value(replica.cli(&["INFO", "replication"])).unwrap();
            let is_up = info.contains("master_link_status:up");
            is_up && replica.cli(&["DBSIZE"]) == redis::Value::Int(count)
        });
    };
    replica.cli(&follow);
    has(3);
    // That is not announced, and nobody looks meanwhile.
    let setup = Setup::new().redis(replica.url());
    let setup = setup.set("redis.notify", "events");
    let setup = setup.set("redis.check_interval", "1h");
    let gateway = setup.set("redis.heartbeat", "off").start();
    lists.wait_for_pool(&gateway, "pre");
    master.kill();
    master.restart();
    has(0);
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    // Somebody touches a list, and leaves none.
    let mut touch = redis::pipe();
    touch
        .atomic()
        .cmd("RPUSH")
        .arg("gray")
        .arg("127.0.0.6")
        .ignore();
    touch.cmd("DEL").arg("gray").ignore();
    touch.query::<()>(&mut replica.connect(0)).unwrap();
    let page = wait_kept(&gateway, "without-data");
    assert_eq!(page["generation"], 1, "{page}");
    assert_eq!(lists.pool(&gateway), "pre");
}
