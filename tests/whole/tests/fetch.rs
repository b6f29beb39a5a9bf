//! Plugins from elsewhere: from a web server and a registry on loopback, good and bad ones.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_test_support::certificates::Authority;
use millstream_test_support::plugins;
use millstream_test_support::process::{Running, Site, post};
use millstream_test_support::web::{Reply, Request, Web};
use sha2::{Digest as _, Sha256};

const PATIENCE: Duration = Duration::from_secs(120);

/// The shop's plugin with a custom section of its own, so that each `build` has its own digest.
fn component(build: u8) -> Result<Vec<u8>> {
    let mut component = fs::read(plugins::component("enrich")?)?;
    component.extend([0, 3, 1, b'x', build]);
    Ok(component)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A configuration whose one consumer runs `plugin`, with a cache of its own.
fn configuration(site: &Site, plugin: &str, more: &str) -> String {
    format!(
        "[broker]\ndata_dir = \"data\"\nmin_free_disk = \"64MiB\"\n\
         [runtime]\ncache_dir = \"cache\"\n[admin]\nlisten = \"{}\"\n{more}\n\
         [[consumer]]\nname = \"enrich\"\nplugin = {plugin}\ntopics = [\"order-lines\"]\n\
         start = \"beginning\"\nconfig = {{ currency = \"EUR\", alert_above = 1000000000 }}\n\
         outputs = {{ default = \"orders\", alerts = \"alerts\" }}\n",
        site.admin()
    )
}

fn url(url: &str, digest: &str) -> String {
    format!("{{ url = \"{url}\", sha256 = \"{digest}\" }}")
}

/// The digest that the consumer runs.
fn running_digest(running: &Running) -> Result<String> {
    let (status, body) = running.get("/api/v1/consumers")?;
    ensure!(status == 200, "{status}: {body}");
    let json: serde_json::Value = body.parse()?;
    let digest = json[0]["digest"].as_str();
    let digest = digest.with_context(|| format!("no digest: {body}"))?;
    Ok(digest.trim_start_matches("sha256:").to_owned())
}

/// Writes the configuration and asks for it to apply; the answer's status and body.
fn deploy(site: &Site, plugin: &str, more: &str) -> Result<(u16, String)> {
    site.configure(&configuration(site, plugin, more))?;
    let json = ("content-type", "application/json");
    let answer = post(&site.admin(), "/-/reload", &[json], "")?;
    Ok((answer.status, answer.body))
}

fn line(number: usize) -> String {
    format!(
        r#"{{"key":"k","value":"{{\"invoice\":\"{number}\",\"sku\":\"1\",\"description\":\"\",\"quantity\":1,\"ts\":\"\",\"unit_price\":1,\"customer\":null,\"country\":\"\"}}"}}"#
    )
}

/// The consumer works: one more line is settled.
fn works(running: &mut Running, lines: &mut usize) -> Result<()> {
    let (status, body) = running.post_lines("/topics/order-lines", &line(*lines))?;
    ensure!(status == 200, "{status}: {body}");
    *lines += 1;
    let wanted = *lines as f64;
    running.until_scrape("settled", PATIENCE, |scrape| {
        scrape.sum("millstream_events_settled_total", &[]) >= wanted
    })
}

/// What the server of the failures has.
fn misbehave(good: Vec<u8>, other: String) -> Result<Web> {
    let failures = AtomicUsize::new(0);
    Web::start(None, move |request: &Request| match &*request.path {
        "/good.wasm" | "/good.wasm?sig=hunter2" => Reply::new(200, good.clone()),
        "/wrong.wasm" => Reply::new(200, "another component"),
        "/short.wasm" => Reply {
            announced: Some(Some(good.len())),
            ..Reply::new(200, &good[..good.len() / 2])
        },
        "/large.wasm" => Reply {
            announced: Some(Some(1 << 40)),
            ..Reply::new(200, "x")
        },
        "/endless.wasm" => Reply {
            announced: Some(None),
            ..Reply::new(200, vec![b'x'; 3 << 20])
        },
        "/failing.wasm" => Reply::new(503, "later"),
        "/flaky.wasm" => match failures.fetch_add(1, Ordering::AcqRel) {
            0..3 => Reply::new(500, "oops"),
            _ => Reply::new(200, good.clone()),
        },
        "/slow.wasm" => Reply {
            stalls: true,
            ..Reply::new(200, good.clone())
        },
        "/loop" => Reply::new(302, "").with("location", "/loop"),
        "/nowhere" => Reply::new(307, ""),
        "/out" => Reply::new(302, "").with("location", "http://192.0.2.1/good.wasm"),
        "/elsewhere" => Reply::new(302, "").with("location", other.clone()),
        "/moved.wasm" => Reply::new(301, "").with("location", "/good.wasm"),
        // shop:hunter2
        "/private.wasm" => match request.header("authorization") {
            Some("Basic c2hvcDpodW50ZXIy") => Reply::new(200, good.clone()),
            _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"shop\""),
        },
        _ => Reply::new(404, ""),
    })
}

/// Whatever goes wrong, the version that runs goes on, and who deploys reads what to do.
#[test]
fn a_fetch_that_fails_changes_nothing_and_says_why() -> Result<()> {
    let site = Site::new()?;
    let (first, good) = (component(1)?, component(2)?);
    let first_digest = sha256(&first);
    let digest = sha256(&good);
    let local = site.write("local.wasm", &first)?;
    site.write("password", b"hunter2\n")?;
    let elsewhere = Web::start(None, |_| Reply::new(404, ""))?;
    let web = misbehave(good, elsewhere.url("/good.wasm"))?;
    let local = format!("{:?}", local.display().to_string());
    site.configure(&configuration(&site, &local, ""))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let mut lines = 0;
    works(&mut running, &mut lines)?;

    let limit = ", max_size = \"1MiB\"";
    let wait = ", timeout = \"2s\"";
    let wrong = sha256(b"another component");
    let secret = format!(
        "[registries.\"{}\"]\nusername = \"shop\"\npassword = {{ file = \"password\" }}\n",
        web.authority()
    );
    let cases = [
        (
            "/wrong.wasm",
            "",
            "",
            vec!["has the digest sha256:", &wrong, "the configuration wants"],
        ),
        ("/short.wasm", "", "", vec!["broke off"]),
        (
            "/large.wasm",
            "",
            "",
            vec!["is larger than 64MiB", "announces"],
        ),
        (
            "/endless.wasm",
            limit,
            "",
            vec!["is larger than 1MiB", "plugin.max_size"],
        ),
        (
            "/missing.wasm",
            "",
            "",
            vec!["HTTP status 404", "correct `plugin`"],
        ),
        (
            "/failing.wasm",
            "",
            "",
            vec!["HTTP status 503", "try again later"],
        ),
        (
            "/slow.wasm",
            wait,
            "",
            vec!["took longer than 2s", "plugin.timeout"],
        ),
        ("/loop", "", "", vec!["redirects more than 5 times"]),
        ("/nowhere", "", "", vec!["redirects to nowhere"]),
        ("/out", "", "", vec!["redirects to plain http"]),
        (
            "/private.wasm",
            "",
            "",
            vec!["without credentials", "[registries.\\\""],
        ),
        ("/elsewhere", "", &secret, vec!["HTTP status 404"]),
    ];
    for (path, more, registries, wanted) in cases {
        let plugin = url(&web.url(path), &digest).replace(" }", &format!("{more} }}"));
        let (status, answer) = deploy(&site, &plugin, registries)?;
        ensure!(status == 422, "{path}: {status}: {answer}");
        for part in wanted.into_iter().chain(["consumer enrich", "what to do"]) {
            ensure!(answer.contains(part), "{path} lacks {part}: {answer}");
        }
        ensure!(
            running_digest(&running)? == first_digest,
            "{path} changed what runs"
        );
    }
    works(&mut running, &mut lines)?;
    // The first server was shown the password, and the one that it leads to was not.
    let shown = |web: &Web| {
        let requests = web.requests();
        requests
            .iter()
            .any(|asked| asked.header("authorization").is_some())
    };
    ensure!(shown(&web) && !shown(&elsewhere));
    ensure!(elsewhere.asked("/good.wasm") > 0);
    let none = Web::start(None, |_| Reply::new(404, ""))?.url("/gone.wasm");
    let (status, answer) = deploy(&site, &url(&none, &digest), "")?;
    ensure!(status == 422 && answer.contains("cannot reach"), "{answer}");
    let scrape = running.scrape()?;
    ensure!(scrape.sum("millstream_config_last_reload_successful", &[]) < 0.5);

    // What passes by itself is waited for, what leads on is followed, what is signed is not shown.
    for (path, registries) in [
        ("/flaky.wasm", ""),
        ("/moved.wasm", ""),
        ("/private.wasm", &*secret),
        ("/good.wasm?sig=hunter2", ""),
    ] {
        let (status, answer) = deploy(&site, &url(&web.url(path), &digest), registries)?;
        ensure!(status == 200, "{path}: {status}: {answer}");
        ensure!(running_digest(&running)? == digest, "{path}: {answer}");
        works(&mut running, &mut lines)?;
        let (status, answer) = deploy(&site, &local, "")?;
        ensure!(status == 200, "{status}: {answer}");
        fs::remove_dir_all(site.path().join("cache/components"))?;
    }
    let log = running.logs();
    ensure!(
        !log.contains("hunter2") && !log.contains("c2hvcDpodW50ZXIy"),
        "{log}"
    );
    ensure!(log.contains("good.wasm?***"), "{log}");
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// What is here is not fetched again: not by a reload, not by a restart without a network. What is
/// damaged is.
#[test]
fn what_was_fetched_once_is_here() -> Result<()> {
    let site = Site::new()?;
    let good = component(3)?;
    let digest = sha256(&good);
    let served = good.clone();
    let web = Web::start(None, move |_| Reply::new(200, served.clone()))?;
    let plugin = url(&web.url("/good.wasm"), &digest);
    site.configure(&configuration(&site, &plugin, ""))?;
    let finished = site.command(&["validate"])?;
    ensure!(finished.status.success(), "{finished:?}");
    ensure!(finished.stderr.contains("was not checked"), "{finished:?}");
    ensure!(web.requests().is_empty(), "validate asks nobody");

    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let mut lines = 0;
    works(&mut running, &mut lines)?;
    let (status, answer) = deploy(&site, &plugin, "")?;
    ensure!(status == 200, "{status}: {answer}");
    running.terminate()?;
    running.succeed(PATIENCE)?;
    ensure!(web.asked("/good.wasm") == 1, "{:?}", web.requests());
    let finished = site.command(&["validate"])?;
    ensure!(
        finished.status.success() && finished.stderr.is_empty(),
        "{finished:?}"
    );

    // Damaged, and there is somebody to ask.
    let stored = site.path().join(format!("cache/components/{digest}.wasm"));
    fs::write(&stored, &good[..good.len() - 1])?;
    let mut again = site.start(&["--until-idle"])?;
    again.succeed(PATIENCE)?;
    ensure!(web.asked("/good.wasm") == 2);
    ensure!(fs::read(&stored)? == good);

    drop(web);
    let mut alone = site.start(&["--until-idle"])?;
    alone.succeed(PATIENCE)?;

    // Nothing to fall back on: it says so and does not start.
    fs::remove_file(&stored)?;
    let mut lost = site.start(&["--until-idle"])?;
    let status = lost.wait(PATIENCE)?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(lost.logs().contains("cannot reach"), "{}", lost.logs());
    Ok(())
}

/// The file that it is kept in is named by its digest, and says nothing to who wrote the URL.
#[test]
fn a_component_that_is_none_is_named_by_where_it_is_from() -> Result<()> {
    let site = Site::new()?;
    let bytes = b"\0asm\x0d\0\x01\0and no component";
    let digest = sha256(bytes);
    let web = Web::start(None, move |_| Reply::new(200, bytes))?;
    let from = web.url("/none.wasm");
    site.configure(&configuration(&site, &url(&from, &digest), ""))?;
    let mut refused = site.start(&["--until-idle"])?;
    let status = refused.wait(PATIENCE)?;
    let checked = site.command(&["validate", "--json"])?;
    ensure!(status.code() == Some(78) && checked.status.code() == Some(78));
    for told in [refused.logs(), checked.stdout] {
        ensure!(
            told.contains(&format!("{from} (sha256:{digest})"))
                && !told.contains("cache/components"),
            "{told}"
        );
    }
    Ok(())
}

/// A certificate that nobody vouches for is refused, and who vouches can be said in three ways.
#[test]
fn tls_is_checked() -> Result<()> {
    let mut site = Site::new()?;
    let authority = Authority::new()?;
    let good = component(4)?;
    let digest = sha256(&good);
    let plain = Web::start(None, |_| Reply::new(200, "x"))?.url("/good.wasm");
    let issued = authority.issue(&["127.0.0.1"])?;
    let web = Web::start(Some(issued.server()?), move |request| {
        match &*request.path {
            "/down" => Reply::new(302, "").with("location", plain.clone()),
            _ => Reply::new(200, good.clone()),
        }
    })?;
    let ca = site.write("ca.pem", authority.pem().as_bytes())?;
    let stranger = Authority::new()?;
    site.write("stranger.pem", stranger.pem().as_bytes())?;
    let plugin = url(&web.url("/good.wasm"), &digest);
    let trusting = |file: &str| format!("[registries.\"{}\"]\nca = \"{file}\"\n", web.authority());
    // The machine that tests run on may have no certificates of its own.
    site.set("SSL_CERT_FILE", site.path().join("stranger.pem"));
    for more in [String::new(), trusting("stranger.pem")] {
        site.configure(&configuration(&site, &plugin, &more))?;
        let mut refused = site.start(&["--until-idle"])?;
        let status = refused.wait(PATIENCE)?;
        let log = refused.logs();
        ensure!(status.code() == Some(1), "{status}: {log}");
        ensure!(
            log.contains("is not trusted") && log.contains("ca = "),
            "{log}"
        );
    }
    let down = url(&web.url("/down"), &digest);
    site.configure(&configuration(&site, &down, &trusting("ca.pem")))?;
    let mut refused = site.start(&["--until-idle"])?;
    refused.wait(PATIENCE)?;
    let log = refused.logs();
    ensure!(log.contains("from https to http"), "{log}");

    site.configure(&configuration(&site, &plugin, &trusting("ca.pem")))?;
    site.start(&["--until-idle"])?.succeed(PATIENCE)?;
    fs::remove_dir_all(site.path().join("cache/components"))?;
    site.configure(&configuration(&site, &plugin, ""))?;
    site.set("SSL_CERT_FILE", ca);
    site.start(&["--until-idle"])?.succeed(PATIENCE)
}

const WASM: &str = "application/wasm";
const OLDER: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// The manifest of an artifact with this layer.
fn manifest(component: &[u8], kind: &str) -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.wasm.config.v0+json",
            "digest": format!("sha256:{}", sha256(b"{}")),
            "size": 2,
        },
        "layers": [{
            "mediaType": kind,
            "digest": format!("sha256:{}", sha256(component)),
            "size": component.len(),
        }],
    })
    .to_string()
}

/// What a registry holds and who may read it.
struct Registry {
    /// Tag and manifest.
    tags: Vec<(&'static str, String)>,
    blobs: Vec<Vec<u8>>,
}

impl Registry {
    /// The distribution protocol, for who shows a token that `/token` gave for shop:hunter2.
    fn answer(&self, host: &str, request: &Request) -> Reply {
        if request.path.starts_with("/token?") {
            let asked = "service=mill&scope=repository%3Ateam%2Fenrich%3Apull";
            let known = request.header("authorization") == Some("Basic c2hvcDpodW50ZXIy");
            return match known && request.path.ends_with(asked) {
                true => Reply::new(200, "{\"token\":\"letmein\"}"),
                false => Reply::new(403, "{}"),
            };
        }
        if request.header("authorization") != Some("Bearer letmein") {
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"mill\",scope=\"repository:team/enrich:pull\""
            );
            return Reply::new(401, "{}").with("www-authenticate", challenge);
        }
        let path = request.path.strip_prefix("/v2/team/enrich/");
        let path = path.unwrap_or_default();
        if let Some(version) = path.strip_prefix("manifests/") {
            let found = self.tags.iter().find(|(tag, manifest)| {
                *tag == version || version == format!("sha256:{}", sha256(manifest.as_bytes()))
            });
            return found.map_or_else(
                || Reply::new(404, "{}"),
                |(_, manifest)| Reply::new(200, manifest.as_str()),
            );
        }
        let digest = path.strip_prefix("blobs/sha256:").unwrap_or_default();
        let found = self.blobs.iter().find(|blob| sha256(blob) == digest);
        found.map_or_else(
            || Reply::new(404, "{}"),
            |blob| Reply::new(200, blob.clone()),
        )
    }
}

fn oci(web: &Web, version: &str, digest: Option<&str>) -> String {
    let digest = digest.map(|digest| format!(", sha256 = \"{digest}\""));
    format!(
        "{{ oci = \"{}/team/enrich{version}\"{} }}",
        web.authority(),
        digest.unwrap_or_default()
    )
}

#[test]
fn components_come_from_a_registry() -> Result<()> {
    let site = Site::new()?;
    site.write("password", b"hunter2\n")?;
    let (one, two, three) = (component(5)?, component(6)?, component(7)?);
    let digests: Vec<String> = [&one, &two, &three].map(|c| sha256(c)).to_vec();
    let of_two = manifest(&two, OLDER);
    let by_digest = format!("@sha256:{}", sha256(of_two.as_bytes()));
    let image = manifest(&one, "application/vnd.oci.image.layer.v1.tar+gzip");
    let registry = Arc::new(Registry {
        tags: vec![
            ("1.0", manifest(&one, WASM)),
            ("2.0", of_two.clone()),
            ("moved", manifest(&three, WASM)),
            ("image", image),
            ("lost", manifest(b"nobody has it", WASM)),
        ],
        blobs: vec![one, two, three],
    });
    let web = Web::start(None, move |request| {
        let host = request.header("host").unwrap_or_default();
        registry.answer(host, request)
    })?;
    let secret = format!(
        "[registries.\"{}\"]\nusername = \"shop\"\npassword = {{ file = \"password\" }}\n",
        web.authority()
    );
    site.configure(&configuration(
        &site,
        &oci(&web, ":1.0", Some(&digests[0])),
        &secret,
    ))?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let mut lines = 0;
    works(&mut running, &mut lines)?;
    ensure!(running_digest(&running)? == digests[0]);

    let manifest_digest = sha256(of_two.as_bytes());
    let other = "cd".repeat(32);
    for (plugin, more, wanted) in [
        (
            oci(&web, ":moved", Some(&digests[1])),
            &*secret,
            "the tag of",
        ),
        (
            oci(&web, ":2.0", Some(&manifest_digest)),
            &secret,
            "the digest of its manifest",
        ),
        (
            oci(&web, ":image", Some(&other)),
            &secret,
            "no wasm component",
        ),
        (oci(&web, ":9.9", Some(&other)), &secret, "HTTP status 404"),
        (
            oci(&web, &format!("@sha256:{other}"), None),
            &secret,
            "HTTP status 404",
        ),
        (
            oci(&web, ":2.0", Some(&digests[1])),
            "",
            "refuses us without credentials",
        ),
        (
            oci(&web, ":lost", Some(&sha256(b"nobody has it"))),
            &secret,
            "HTTP status 404",
        ),
        (
            oci(&web, ":moved", None),
            &secret,
            "`plugin.sha256` is missing",
        ),
    ] {
        let (status, answer) = deploy(&site, &plugin, more)?;
        ensure!(
            status == 422 && answer.contains(wanted),
            "{plugin}: {status}: {answer}"
        );
        ensure!(
            running_digest(&running)? == digests[0],
            "{plugin} changed what runs"
        );
    }

    let plugin = oci(&web, &by_digest, None);
    let (status, answer) = deploy(&site, &plugin, &secret)?;
    ensure!(status == 200, "{status}: {answer}");
    ensure!(running_digest(&running)? == digests[1], "{answer}");
    works(&mut running, &mut lines)?;
    for digest in &digests[..2] {
        let asked = web.asked(&format!("/v2/team/enrich/blobs/sha256:{digest}"));
        // Once without the token where the session began with the manifest's.
        ensure!(asked == 1, "{digest} was asked for {asked} times");
    }
    running.terminate()?;
    running.succeed(PATIENCE)?;
    ensure!(!running.logs().contains("hunter2") && !running.logs().contains("letmein"));

    // Neither the registry nor its manifest is needed for what is here.
    drop(web);
    site.start(&["--until-idle"])?.succeed(PATIENCE)?;
    let shown = site.succeed(&["config", "show", "--resolved"])?;
    ensure!(
        shown.contains(&by_digest) && !shown.contains("hunter2"),
        "{shown}"
    );
    Ok(())
}
