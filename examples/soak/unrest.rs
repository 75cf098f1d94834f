//! What happens meanwhile: lists change, Redis and servers come and go, settings are read again, logs are
//! rotated.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::acts::GRAY;
use crate::origin::Origin;
use crate::selected::{ENDED, SHOP};
use crate::site::{Gateway, Redis, Weather};

/// Twenty changes of the lists a second.
const CHANGE: Duration = Duration::from_millis(50);

/// Redis is restarted so often at most: it takes a while, in which there are no changes.
const RESTART: Duration = Duration::from_secs(4);

/// Lets it all happen until `until`; afterwards everything is there, and as it was.
pub(crate) fn until(
    until: Instant,
    redis: &mut Redis,
    weather: &Weather,
    gateways: &[Gateway],
    flaky: &Origin,
    mut random: Rng,
) -> Result<(), String> {
    let mut connection = None;
    // Once a round at least.
    let mut restart =
        Instant::now() + RESTART.min(until.saturating_duration_since(Instant::now()) / 2);
    for at in 0_usize.. {
        let now = Instant::now();
        if now >= until {
            break;
        }
        if now >= restart {
            connection = None;
            weather.turn_bad();
            redis.restart()?;
            weather.turn_good();
            restart = Instant::now() + 5 * RESTART;
        }
        // Without a connection there is another try at the next change.
        connection = connection.or_else(|| redis.connect().ok());
        let changed = connection
            .as_mut()
            .map(|it| change(it, flaky, at, &mut random));
        if changed.is_some_and(|it| it.is_err()) {
            connection = None;
        }
        if at % 12 == 0 {
            flaky.turn(random.usize(..));
        }
        for (gateway, offset) in gateways.iter().zip([0, 7, 14]) {
            if (at + offset) % 40 == 0 {
                gateway.reload(at / 40);
            }
            if (at + offset) % 60 == 0 {
                gateway.rotate();
            }
        }
        std::thread::sleep(CHANGE);
    }
    flaky.turn(0);
    let mut connection = redis.connect().map_err(|it| format!("redis: {it}"))?;
    settle(&mut connection, flaky).map_err(|it| format!("redis: {it}"))
}

/// One change: of the gray list, or of the servers.
fn change(
    connection: &mut redis::Connection,
    flaky: &Origin,
    at: usize,
    random: &mut Rng,
) -> redis::RedisResult<()> {
    // Nobody who asks has such an address.
    let entry = format!("127.9.{}.{}", random.u8(..), random.u8(..));
    let mut lists = redis::pipe();
    match at % 10 {
        0 => lists
            .cmd("LREM")
            .arg("prod")
            .arg(0)
            .arg(flaky.address.to_string()),
        5 => lists
            .cmd("RPUSH")
            .arg("prod")
            .arg(flaky.address.to_string()),
        1 => lists
            .cmd("SADD")
            .arg("gray")
            .arg(format!("header:X-Nobody={entry}")),
        2 => lists
            .cmd("SADD")
            .arg("shop:gray")
            .arg(format!("cookie:nobody={entry} path:/x*")),
        3 | 4 => lists.cmd("SADD").arg("gray").arg(entry),
        _ => lists
            .cmd("SPOP")
            .arg("others")
            .cmd("SREM")
            .arg("gray")
            .arg(entry),
    };
    lists.exec(connection)
}

/// The lists of the begin.
fn settle(connection: &mut redis::Connection, flaky: &Origin) -> redis::RedisResult<()> {
    let mut lists = redis::pipe();
    lists.atomic();
    lists.cmd("DEL").arg("gray");
    lists.cmd("SADD").arg("gray").arg(GRAY).arg(ENDED);
    lists.cmd("DEL").arg("shop:gray");
    lists.cmd("SADD").arg("shop:gray").arg(&SHOP);
    lists
        .cmd("LREM")
        .arg("prod")
        .arg(0)
        .arg(flaky.address.to_string());
    lists
        .cmd("RPUSH")
        .arg("prod")
        .arg(flaky.address.to_string());
    lists.exec(connection)
}
