//! The HTTP interface over TLS: certificates that are renewed, commands, and who does not shake
//! hands.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::certificates::Authority;
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::{Deadline, eventually};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(120);
/// Less than the time-outs that would free a place by themselves.
const PROMPT: Duration = Duration::from_secs(9);

fn configure(site: &Site, tls: &str, more: &str) -> Result<()> {
    site.configure(&format!(
        "[broker]\ndata_dir = \"data\"\nmin_free_disk = \"64MiB\"\n[admin]\nlisten = \"{}\"\n\
         token = {{ file = \"token\" }}\n{tls}\n{more}\n[topics.orders]\npartitions = 1\n",
        site.admin()
    ))
}

const TLS: &str = "tls = { certificate = \"server.pem\", key = { file = \"key.pem\" } }";

fn install(site: &Site, authority: &Authority, names: &[&str]) -> Result<()> {
    let issued = authority.issue(names)?;
    site.write("key.pem", issued.key.as_bytes())?;
    site.write("server.pem", issued.certificate.as_bytes())?;
    Ok(())
}

fn site(authority: &Authority, names: &[&str], more: &str) -> Result<Site> {
    let mut site = Site::new()?;
    site.write("token", b"hunter2")?;
    site.write("ca.pem", authority.pem().as_bytes())?;
    install(&site, authority, names)?;
    configure(&site, TLS, more)?;
    // The machine that tests run on may have no certificates of its own.
    let stranger = Authority::new()?;
    let stranger = site.write("stranger.pem", stranger.pem().as_bytes())?;
    site.set("SSL_CERT_FILE", stranger);
    Ok(site)
}

/// The answer to a request over TLS, from a server that is valid for `name`.
fn ask(site: &Site, client: &Arc<ClientConfig>, name: &str, head: &str) -> Result<String> {
    let stream = TcpStream::connect(site.admin())?;
    stream.set_read_timeout(Some(PROMPT))?;
    stream.set_write_timeout(Some(PROMPT))?;
    let name = ServerName::try_from(name.to_owned())?;
    let connection = ClientConnection::new(client.clone(), name)?;
    let mut stream = StreamOwned::new(connection, stream);
    let request = format!("{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(_) if !answer.is_empty() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn until_served(site: &Site, client: &Arc<ClientConfig>, running: &mut Running) -> Result<()> {
    let served = eventually("an answer over TLS", PATIENCE, || {
        ask(site, client, "localhost", "GET /readyz").is_ok_and(|answer| answer.contains(" 200 "))
    });
    served.with_context(|| running.logs())?;
    ensure!(running.running(), "{}", running.logs());
    Ok(())
}

/// A certificate lasts for weeks, a runtime for months.
#[test]
fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() -> Result<()> {
    let (old, new) = (Authority::new()?, Authority::new()?);
    let site = site(&old, &["localhost", "127.0.0.1"], "")?;
    let mut running = site.start(&[])?;
    let (knows_old, knows_new) = (old.client()?, new.client()?);
    until_served(&site, &knows_old, &mut running)?;
    ensure!(ask(&site, &knows_new, "localhost", "GET /healthz").is_err());

    site.write("server.pem", b"no certificate")?;
    eventually("the broken file is noticed", PATIENCE, || {
        running.logs().contains("cannot be used, the old one stays")
    })?;
    ensure!(ask(&site, &knows_old, "localhost", "GET /healthz")?.contains(" 200 "));

    install(&site, &new, &["localhost", "127.0.0.1"])?;
    until_served(&site, &knows_new, &mut running)?;
    ensure!(ask(&site, &knows_old, "localhost", "GET /healthz").is_err());
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// Nobody can speak to it, and neither its key nor its name says why.
#[test]
fn a_certificate_that_has_expired_is_told_with_its_place() -> Result<()> {
    let authority = Authority::new()?;
    let site = site(&authority, &["localhost"], "")?;
    let checked = site.command(&["validate", "--json"])?;
    ensure!(!checked.stdout.contains("expired"), "{checked:?}");
    let issued = authority.issue_expired(&["localhost"])?;
    site.write("key.pem", issued.key.as_bytes())?;
    site.write("server.pem", issued.certificate.as_bytes())?;
    let checked = site.command(&["validate", "--json"])?;
    // The files may be renewed at any moment: a warning.
    ensure!(checked.status.success(), "{checked:?}");
    let told: serde_json::Value = serde_json::from_str(&checked.stdout)?;
    let problems = told["problems"].as_array().context("no problems")?;
    let wanted = |problem: &&serde_json::Value| problem["line"] == 7 && problem["column"] == 23;
    let problem = problems.iter().find(wanted).context("no problem there")?;
    let label = problem["label"].as_str().unwrap_or_default();
    ensure!(label.contains("expired at 2002-01-01T00:00:00Z"), "{told}");
    let mut running = site.start(&[])?;
    eventually("the log says it, too", PATIENCE, || {
        running.logs().contains("expired at 2002-01-01")
    })?;
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// Commands speak TLS to a runtime that does, and to no other that only says so.
#[test]
fn commands_check_the_certificate() -> Result<()> {
    let authority = Authority::new()?;
    // A name that no system knows: where it leads is known by the configuration.
    let hosts = "hosts = [\"mill.example.com\"]";
    let mut site = site(&authority, &["mill.example.com"], hosts)?;
    let mut running = site.start(&[])?;
    let client = authority.client()?;
    eventually("an answer over TLS", PATIENCE, || {
        ask(&site, &client, "mill.example.com", "GET /readyz")
            .is_ok_and(|answer| answer.contains(" 200 "))
    })?;
    let refused = site.command(&["topics"])?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("--ca"),
        "{refused:?}"
    );
    let shown = site.succeed(&["topics", "--ca", "ca.pem"])?;
    ensure!(shown.contains("orders"), "{shown}");
    site.write("line", b"hello\n")?;
    site.succeed(&["produce", "orders", "--file", "line", "--ca", "ca.pem"])?;
    let with_ca = TLS.replace("{ certificate", "{ ca = \"ca.pem\", certificate");
    configure(&site, &with_ca, hosts)?;
    let events = site.succeed(&["consume", "orders"])?;
    ensure!(events.contains("hello"), "{events}");
    configure(&site, TLS, hosts)?;
    site.set("MILLSTREAM_CA", "ca.pem");
    let lag = site.command(&["lag"])?;
    ensure!(lag.status.success(), "{lag:?}");
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// Who connects and does not shake hands takes a place, and no longer than it is wanted.
#[test]
fn a_handshake_that_never_comes_keeps_nobody_out() -> Result<()> {
    let authority = Authority::new()?;
    let site = site(&authority, &["localhost"], "")?;
    let mut running = site.start(&[])?;
    let client = authority.client()?;
    until_served(&site, &client, &mut running)?;
    for bytes in [
        &b""[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut crowd = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(site.admin())?;
            let _ = stream.write_all(bytes);
            crowd.push(stream);
        }
        for _ in 0..3 {
            let within = Deadline::after(PROMPT);
            let answer = ask(&site, &client, "localhost", "GET /healthz")?;
            ensure!(answer.contains(" 200 "), "{answer}");
            ensure!(!within.passed(), "good requests had to wait");
        }
    }
    // Plain HTTP is told what is spoken here, and gets nothing else.
    let (status, body) = running.get("/metrics")?;
    ensure!(
        status == 400 && body.contains("https://"),
        "{status}: {body}"
    );
    let no_token = ask(&site, &client, "localhost", "GET /topics/orders")?;
    ensure!(no_token.contains(" 401 "), "{no_token}");
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// What cannot be used is told before anything starts, and no byte of a key with it.
#[test]
fn what_cannot_be_used_is_told_at_validate() -> Result<()> {
    let authority = Authority::new()?;
    let site = site(&authority, &["localhost"], "")?;
    ensure!(site.command(&["validate"])?.status.success());
    let good = std::fs::read_to_string(site.path().join("key.pem"))?;
    let secret = good.lines().nth(1).context("no key")?;
    let other = authority.issue(&["localhost"])?;
    for (key, wanted) in [
        (other.key.as_str(), "belongs to another certificate"),
        (&good[..good.len() / 2], "no PEM text of a private key"),
        ("", "no PEM text of a private key"),
    ] {
        site.write("key.pem", key.as_bytes())?;
        for command in ["validate", "run"] {
            let refused = site.command(&[command])?;
            ensure!(refused.status.code() == Some(78), "{refused:?}");
            let text = refused.stderr;
            ensure!(
                text.contains(wanted) && text.contains("millstream.toml:"),
                "{text}"
            );
            ensure!(!text.contains(secret), "{text}");
        }
    }
    install(&site, &authority, &["other.example.com"])?;
    let warned = site.command(&["validate"])?;
    ensure!(warned.status.success(), "{warned:?}");
    ensure!(
        warned.stderr.contains("commands cannot check"),
        "{warned:?}"
    );
    configure(&site, "tls = { certificate = \"server.pem\" }", "")?;
    let refused = site.command(&["validate"])?;
    ensure!(
        refused.stderr.contains("`admin.tls.key` is missing"),
        "{refused:?}"
    );
    Ok(())
}
