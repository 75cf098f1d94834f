//! The proxies under test: how each is configured and started. The configurations are the files in
//! `conf/`, with names in `@…@` for what differs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::children::{Running, free_address};
use crate::site::Site;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proxy {
    /// As shipped.
    Graygate,
    /// With more idle connections to servers than there are clients, however few are needed.
    GraygateTuned,
    /// Counts nothing for a verdict on the release.
    GraygateUnwatched,
    /// Another build of it.
    OtherBuild,
    Nginx,
    Haproxy,
    /// nginx with Lua that connects to Redis twice a request.
    OpenResty,
    /// The same, but with a pool of connections to Redis.
    OpenRestyPool,
    /// Copies bytes, knows no HTTP.
    Floor,
}

impl Proxy {
    /// As in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Graygate => "Graygate",
            Self::GraygateTuned => "… keepalive = 4096",
            Self::GraygateUnwatched => "… [verdict] mode = off",
            Self::OtherBuild => "other build",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::OpenResty => "OpenResty set-up",
            Self::OpenRestyPool => "… with Redis pool",
            Self::Floor => "floor",
        }
    }
}

/// A proxy and what differs between its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) proxy: Proxy,
    /// Threads or processes that serve; the floor has one.
    pub(crate) workers: u8,
    /// Key of the gray list; only Graygate is told.
    pub(crate) gray: &'static str,
}

impl Setting {
    /// Starts an instance on a port of its own.
    pub(crate) fn start(self, site: &Site) -> Result<Running, String> {
        let address = free_address()?;
        // The port makes it a name that no other instance has.
        let name = format!("{:?}-{}", self.proxy, address.port());
        let write = |file: &str, text: &str| {
            let path = site.scratch().join(format!("{name}-{file}"));
            let text = self.fill_in(text, &name, address, site);
            let written = std::fs::write(&path, text).map(|()| path);
            written.map_err(|it| format!("a configuration: {it}"))
        };
        let command = match self.proxy {
            Proxy::Graygate
            | Proxy::GraygateTuned
            | Proxy::GraygateUnwatched
            | Proxy::OtherBuild => {
                let file = write("graygate.ini", include_str!("conf/graygate.ini"))?;
                let programs = &site.programs;
                let program = match self.proxy {
                    Proxy::OtherBuild => programs.other_build.as_ref(),
                    _ => Some(&programs.graygate),
                };
                let mut command = Command::new(program.ok_or("no other build was named")?);
                command.args(["run", "-c"]).arg(file);
                command
            }
            Proxy::Nginx => nginx(&write("nginx.conf", include_str!("conf/nginx.conf"))?),
            Proxy::OpenResty | Proxy::OpenRestyPool => nginx(&write(
                "openresty.conf",
                include_str!("conf/openresty.conf"),
            )?),
            Proxy::Haproxy => {
                let file = write("haproxy.cfg", include_str!("conf/haproxy.cfg"))?;
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
            Proxy::Floor => {
                let mut command = Command::new(&site.programs.floor);
                let origins = site.origin.addresses.map(|it| it.to_string());
                command.arg(address.to_string()).args(origins);
                command
            }
        };
        let log = site.scratch().join(format!("{name}.out"));
        Running::start(with_sbin(command), address, &log)
    }

    fn fill_in(self, text: &str, name: &str, address: SocketAddr, site: &Site) -> String {
        let [a, b] = site.origin.addresses;
        let redis = site.redis();
        // The second is what the pool's documentation shows.
        let redis_done = match self.proxy {
            Proxy::OpenRestyPool => "connection:set_keepalive(10000, 100)",
            _ => "connection:close()",
        };
        let tuned = match self.proxy {
            Proxy::GraygateTuned => "keepalive = 4096",
            _ => "",
        };
        let verdict = match self.proxy {
            Proxy::GraygateUnwatched => "[verdict]\nmode = off",
            _ => "",
        };
        [
            ("@NAME@", name.to_owned()),
            ("@SCRATCH@", site.scratch().display().to_string()),
            ("@WORKERS@", self.workers.to_string()),
            ("@LISTEN@", address.to_string()),
            ("@ORIGIN_A@", a.to_string()),
            ("@ORIGIN_B@", b.to_string()),
            ("@REDIS_HOST@", redis.ip().to_string()),
            ("@REDIS_PORT@", redis.port().to_string()),
            ("@REDIS_DONE@", redis_done.to_owned()),
            ("@GRAY@", self.gray.to_owned()),
            ("@TUNED@", tuned.to_owned()),
            ("@VERDICT@", verdict.to_owned()),
            ("@MODULES@", "/usr/lib/nginx/modules".to_owned()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

fn nginx(file: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file);
    command
}

/// Debian keeps servers where not everybody looks for programs.
pub(crate) fn with_sbin(mut command: Command) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
