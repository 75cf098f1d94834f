//! TLS to Redis: a certificate that is trusted as itself, the name that is expected, and what an
//! operator is told where something is wrong. The certificates are made by `openssl`.

// Helpers outside of the tests fail by unwrapping, too.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Authority, Redis, Setup, Validity, run_to_exit};

/// Makes a certificate that vouches for itself, as the manuals say.
#[track_caller]
fn self_made(folder: &Path, name: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let [cert, key] = ["pem", "key"].map(|it| folder.join(format!("{name}.{it}")));
    let output = Command::new("openssl")
        .args([
            "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    (cert, key)
}

/// A server with TLS, and one entry in its lists.
struct Secure {
    redis: Redis,
    address: SocketAddr,
}

impl Secure {
    #[track_caller]
    fn start(cert: &Path, key: &Path, options: &[&str]) -> Self {
        let mut redis = Redis::stopped();
        let free = TcpListener::bind((redis.address().ip(), 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let port = address.port().to_string();
        let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
        let files = [
            "--tls-port",
            &port,
            "--tls-cert-file",
            cert,
            "--tls-key-file",
            key,
            "--tls-ca-cert-file",
            cert,
        ];
        redis.set_options(&[&files[..], options].concat());
        redis.restart();
        redis.push("prod", &[&"127.0.0.1:1"]);
        Self { redis, address }
    }

    fn setup(&self, ca: &Path) -> Setup {
        setup(format!("rediss://{}", self.address)).set("redis.tls_ca", ca.display())
    }
}

const NO_CLIENTS: [&str; 2] = ["--tls-auth-clients", "no"];

fn setup(url: String) -> Setup {
    Setup::new().redis(url).set("redis.timeout", "1s")
}

/// What comes of reading the lists once.
#[track_caller]
fn read(setup: &Setup) -> Result<(), String> {
    let ini = setup.write_ini();
    let output = run_to_exit(&["lists", "show", "--offline", "-c", ini.to_str().unwrap()]);
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[track_caller]
fn assert_told(setup: &Setup, parts: &[&str]) {
    let told = read(setup).unwrap_err();
    for part in parts {
        assert!(told.contains(part), "{told}\nexpected: {part}");
    }
}

#[test]
fn the_very_certificate_in_tls_ca_is_trusted_if_time_and_name_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let named = "subjectAltName=DNS:redis.example,DNS:*.redis.example";
    let alt: &[&str] = &["-subj", "/CN=any", "-addext", named];
    let (cert, key) = self_made(folder, "alt", alt);
    let secure = Secure::start(&cert, &key, &NO_CLIENTS);

    // The host in the URL is an address, which the certificate does not hold.
    let by_address = secure.setup(&cert);
    let (ip, names) = (
        secure.address.ip().to_string(),
        "redis.example, *.redis.example",
    );
    assert_told(
        &by_address,
        &["is for", names, &format!("and not for {ip}"), "tls_name"],
    );
    for name in ["redis.example", "one.redis.example"] {
        let setup = secure.setup(&cert).set("redis.tls_name", name);
        assert_eq!(read(&setup), Ok(()), "{name}");
    }
    let gateway = secure
        .setup(&cert)
        .set("redis.tls_name", "redis.example")
        .start();
    gateway.wait_for_lists("they are read", |it| it["prod"][0] == "127.0.0.1:1");

    // Another one of the same name and names is not this one.
    let (other, _) = self_made(folder, "other", alt);
    let setup = secure.setup(&other).set("redis.tls_name", "redis.example");
    assert!(read(&setup).is_err());
    // Nor is one that somebody has signed with it.
    let authority = Authority::new(folder, "ca");
    let setup = secure.setup(&authority.file());
    assert_told(&setup.set("redis.tls_name", "redis.example"), &["tls_ca"]);
}

#[test]
fn without_other_names_the_common_name_of_the_very_certificate_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = self_made(folder.path(), "cn", &["-subj", "/O=o/CN=redis.example"]);
    let secure = Secure::start(&cert, &key, &NO_CLIENTS);
    let right = secure.setup(&cert).set("redis.tls_name", "Redis.example");
    assert_eq!(read(&right), Ok(()));
    let wrong = secure.setup(&cert).set("redis.tls_name", "example");
    assert_told(&wrong, &["is for redis.example, and not for example"]);

    // Of one that an authority has signed it does not count.
    let authority = Authority::new(folder.path(), "ca");
    let (cert, key) = authority.vouch("redis.example", &[], Validity::Now);
    let secure = Secure::start(&cert, &key, &NO_CLIENTS);
    let setup = secure.setup(&authority.file());
    let setup = setup.set("redis.tls_name", "redis.example");
    assert_told(&setup, &["no subjectAltName", "redis.example is expected"]);
    // Unless it is named itself.
    let setup = secure.setup(&cert).set("redis.tls_name", "redis.example");
    assert_eq!(read(&setup), Ok(()));
}

#[test]
fn a_named_certificate_that_has_expired_or_is_not_yet_valid_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    for (validity, told) in [
        (Validity::Past, "certificate has expired: renew it"),
        (Validity::Future, "is not valid yet: renew it"),
    ] {
        let (cert, key) = authority.vouch("server", &["redis.example".to_owned()], validity);
        let secure = Secure::start(&cert, &key, &NO_CLIENTS);
        let setup = secure.setup(&cert).set("redis.tls_name", "redis.example");
        assert_told(&setup, &[told, "the clock of this machine"]);
    }
}

#[test]
fn what_is_wrong_with_tls_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new(folder, "ca");
    let (cert, key) = self_made(
        folder,
        "server",
        &[
            "-subj",
            "/CN=any",
            "-addext",
            "subjectAltName=DNS:redis.example",
        ],
    );
    let named = |secure: &Secure, ca: &Path| {
        let setup = secure.setup(ca);
        setup.set("redis.tls_name", "redis.example")
    };

    let secure = Secure::start(&cert, &key, &NO_CLIENTS);
    assert_told(
        &named(&secure, &authority.file()),
        &[
            "certificate is that of an authority (CA:TRUE)",
            "name this very file in tls_ca",
        ],
    );
    let plain = format!("redis://{}", secure.address);
    assert_told(
        &setup(plain),
        &["does the server speak TLS on this port?", "rediss://"],
    );
    let tls = format!("rediss://{}", secure.redis.address());
    assert_told(&setup(tls), &["timed out in the TLS handshake", "redis://"]);

    let secure = Secure::start(&cert, &key, &["--tls-auth-clients", "yes"]);
    assert_told(
        &named(&secure, &cert),
        &["asks for a certificate", "tls_cert"],
    );
    let (own, own_key) = authority.vouch("client", &[], Validity::Now);
    let setup = named(&secure, &cert)
        .set("redis.tls_cert", own.display())
        .set("redis.tls_key", own_key.display());
    assert_told(&setup, &["the certificate in tls_cert"]);

    let secure = Secure::start(
        &cert,
        &key,
        &["--tls-auth-clients", "no", "--tls-protocols", "TLSv1.1"],
    );
    assert_told(&named(&secure, &cert), &["no version of TLS", "1.2 or 1.3"]);
}

/// A peer that says these bytes to everybody.
fn peer_that_says(bytes: &'static [u8]) -> SocketAddr {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Who was not heard out is reset.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

#[test]
fn what_speaks_something_else_is_named() {
    let redis = peer_that_says(b"-ERR Protocol error: unauthenticated multibulk length\r\n");
    let alert = peer_that_says(b"\x15\x03\x01\x00\x02\x02\x46");
    assert_told(
        &setup(format!("rediss://{redis}")),
        &["does not speak TLS on this port", "redis://"],
    );
    assert_told(
        &setup(format!("redis://{alert}")),
        &["the server speaks TLS on this port", "rediss://"],
    );
}
