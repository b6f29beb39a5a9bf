//! What is loaded, what is refused, and what the compile cache may give back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream::config;
use millstream::plugin::{CacheResult, LoadError, PluginHooks, inspect};
use millstream_sandbox_tests::{Bench, call, consumer, guest};
use parking_lot::Mutex;

fn running(path: &Path) -> config::Consumer {
    let mut consumer = consumer("c", "{}");
    consumer.plugin.path = path.to_owned();
    consumer
}

async fn refusal(bench: &Bench, path: &Path) -> LoadError {
    match bench.host.load(&running(path), 1).await {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(error) => {
            assert!(!error.remedy().is_empty());
            error
        }
    }
}

fn written(bench: &Bench, name: &str, bytes: &[u8]) -> PathBuf {
    let path = bench.folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The mistakes that people make with files; each has its own remedy.
#[tokio::test]
async fn files_that_are_no_plugins_are_refused() {
    let bench = Bench::new().unwrap();
    let good = std::fs::read(guest()).unwrap();

    let missing = bench.folder.path().join("missing.wasm");
    assert!(matches!(
        refusal(&bench, &missing).await,
        LoadError::Missing { .. }
    ));

    let text = written(&bench, "text.wasm", b"#!/bin/sh\n");
    assert!(matches!(
        refusal(&bench, &text).await,
        LoadError::NotWasm { .. }
    ));

    let module = written(&bench, "module.wasm", b"\0asm\x01\0\0\0");
    let error = refusal(&bench, &module).await;
    assert!(matches!(error, LoadError::CoreModule { .. }));
    assert!(error.remedy().contains("wasm32-wasip2"));

    for length in [6, 101, good.len() / 2, good.len() - 1] {
        let cut = written(&bench, "cut.wasm", &good[..length]);
        let error = refusal(&bench, &cut).await;
        assert!(
            matches!(error, LoadError::Truncated { .. }),
            "{length}: {error}"
        );
    }

    let mut flipped = good.clone();
    let middle = flipped.len() / 3;
    flipped[middle..middle + 64].fill(0xff);
    let flipped = written(&bench, "flipped.wasm", &flipped);
    let error = refusal(&bench, &flipped).await;
    assert!(
        matches!(
            error,
            LoadError::Corrupt { .. } | LoadError::Truncated { .. }
        ),
        "{error}"
    );

    let large = bench.folder.path().join("large.wasm");
    std::fs::File::create(&large)
        .and_then(|file| file.set_len(inspect::MAX_COMPONENT + 1))
        .unwrap();
    assert!(matches!(
        refusal(&bench, &large).await,
        LoadError::TooLarge { .. }
    ));
}

/// A component that is fine as such, but speaks another contract.
#[tokio::test]
async fn components_of_another_contract_are_refused() {
    let bench = Bench::new().unwrap();
    let handler = "millstream:plugin/handler@0.1.0";

    let newer = bench.forged(
        "newer.wasm",
        &[(handler, "millstream:plugin/handler@0.9.0")],
    );
    let error = refusal(&bench, &newer.unwrap()).await;
    assert!(matches!(error, LoadError::Version { .. }));
    assert!(error.to_string().contains("0.9.0") && error.to_string().contains("0.1.x"));

    let other = bench.forged(
        "other.wasm",
        &[(handler, "millstream:plugin/hendler@0.1.0")],
    );
    let error = refusal(&bench, &other.unwrap()).await;
    assert!(matches!(error, LoadError::NoHandler { .. }), "{error}");

    // The same names with functions of other types.
    let odd = bench.forged("odd.wasm", &[("budget-ms", "budget-us")]);
    let error = refusal(&bench, &odd.unwrap()).await;
    assert!(matches!(error, LoadError::Mismatch { .. }), "{error}");
}

/// An import that is not granted is refused before anything runs, and says what it is.
#[tokio::test]
async fn imports_that_nobody_offers_are_refused() {
    let bench = Bench::new().unwrap();
    let metrics = "millstream:plugin/metrics@0.1.0";

    let secrets = bench.forged("s.wasm", &[(metrics, "millstream:plugin/secrets@0.1.0")]);
    let error = refusal(&bench, &secrets.unwrap()).await;
    assert!(matches!(error, LoadError::NotGranted { .. }), "{error}");
    assert!(error.remedy().contains("capabilities = { secrets = true }"));

    let foreign = bench.forged("f.wasm", &[(metrics, "acme-corp1:plugin/metrics@0.1.0")]);
    let error = refusal(&bench, &foreign.unwrap()).await;
    assert!(matches!(error, LoadError::UnknownImport { .. }), "{error}");
}

/// Tool chains import more of WASI than a plugin uses; only the use may fail.
#[tokio::test]
async fn unknown_parts_of_wasi_trap_when_called() {
    let bench = Bench::new().unwrap();
    let path = bench
        .forged(
            "w.wasm",
            &[("wasi:clocks/wall-clock@", "wasi:clocks/wall-cluck@")],
        )
        .unwrap();
    let mut instance = bench.instance(&running(&path)).await.unwrap();
    call(&mut *instance, &["echo"]).await.unwrap();
    let error = call(&mut *instance, &["clock"]).await.unwrap_err();
    assert!(
        error.to_string().contains("wasi:clocks/wall-cluck@"),
        "{error}"
    );
}

/// A digest in the configuration pins the very bytes.
#[tokio::test]
async fn the_digest_must_fit() {
    let bench = Bench::new().unwrap();
    let digest = inspect::inspect(guest()).unwrap().digest;
    let digest = digest.strip_prefix("sha256:").unwrap().to_owned();
    let mut pinned = consumer("c", "{}");
    pinned.plugin.sha256 = Some(digest.clone());
    let plugin = bench.plugin(&pinned).await.unwrap();
    assert_eq!(*plugin.info().digest, format!("sha256:{digest}"));
    assert_eq!(plugin.info().contract, "0.1.0");

    pinned.plugin.sha256 = Some("0".repeat(64));
    let Err(error) = bench.host.load(&pinned, 1).await else {
        panic!("it was loaded");
    };
    assert!(matches!(error, LoadError::Digest { .. }));
    assert!(error.remedy().contains(&digest));
}

/// A plugin that starts with more than its consumer grants is refused at the deploy, not at the
/// first event.
#[tokio::test]
async fn a_plugin_larger_than_its_limit_is_refused() {
    let bench = Bench::new().unwrap();
    let mut small = consumer("c", "{}");
    small.limits.memory = 64 << 10;
    let Err(error) = bench.host.load(&small, 1).await else {
        panic!("it was loaded");
    };
    assert!(matches!(error, LoadError::Limits { .. }), "{error}");
    assert!(error.to_string().contains("limits.memory"));
}

/// What `plugin inspect` shows.
#[test]
fn inspection_names_what_a_component_needs() {
    let inspection = inspect::inspect(guest()).unwrap();
    assert_eq!(inspection.contract, "0.1.0");
    assert_eq!(inspection.size, std::fs::metadata(guest()).unwrap().len());
    let needs = |name: &str| {
        let import = inspection.imports.iter().find(|i| i.name.starts_with(name));
        import.map(|import| import.needs)
    };
    assert_eq!(
        needs("millstream:plugin/log@"),
        Some(inspect::Needs::Nothing)
    );
    assert_eq!(needs("wasi:io/poll@"), Some(inspect::Needs::Inert));
    assert_eq!(inspection.exports, ["millstream:plugin/handler@0.1.0"]);
}

struct Cached {
    bench: Bench,
    folder: PathBuf,
    results: Arc<Mutex<Vec<CacheResult>>>,
}

impl Cached {
    fn new() -> Self {
        let results = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&results);
        let hooks = PluginHooks {
            compile_cache: Arc::new(move |result| seen.lock().push(result)),
            ..PluginHooks::default()
        };
        let own = tempfile::tempdir().unwrap();
        let folder = own.keep().join("cache");
        let bench = Bench::with(hooks, |runtime| runtime.cache_dir = folder.clone()).unwrap();
        Self {
            bench,
            folder,
            results,
        }
    }

    async fn load(&self) -> CacheResult {
        let mut instance = self.bench.instance(&consumer("c", "{}")).await.unwrap();
        call(&mut *instance, &["echo"]).await.unwrap();
        *self.results.lock().last().unwrap()
    }

    fn entry(&self) -> PathBuf {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        paths[0].clone()
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        if let Some(own) = self.folder.parent() {
            let _ = std::fs::remove_dir_all(own);
        }
    }
}

/// The second start does not compile; a damaged or planted entry is compiled anew and replaced.
#[tokio::test]
async fn only_what_the_runtime_wrote_is_loaded() {
    let cached = Cached::new();
    assert_eq!(cached.load().await, CacheResult::Miss);
    assert_eq!(cached.load().await, CacheResult::Hit);

    let path = cached.entry();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(cached.load().await, CacheResult::Rejected);
    assert_eq!(cached.load().await, CacheResult::Hit);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
    assert_eq!(cached.load().await, CacheResult::Rejected);
    assert_eq!(cached.load().await, CacheResult::Hit);

    std::fs::write(&path, b"\x7fELF planted").unwrap();
    assert_eq!(cached.load().await, CacheResult::Rejected);
    assert_eq!(cached.load().await, CacheResult::Hit);
}

/// Where nothing can be kept, plugins load all the same.
#[tokio::test]
async fn a_cache_that_cannot_be_written_is_done_without() {
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let bench = Bench::with(PluginHooks::default(), |runtime| {
        runtime.cache_dir = file.join("cache");
    })
    .unwrap();
    let mut instance = bench.instance(&consumer("c", "{}")).await.unwrap();
    call(&mut *instance, &["echo"]).await.unwrap();
}
