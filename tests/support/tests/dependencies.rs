//! Rules for dependencies that need no tool: they hold wherever the tests run.

use millstream_test_support::workspace;

/// Name, version and source of each package in `Cargo.lock`.
fn locked(lock: &str) -> Vec<(&str, &str, Option<&str>)> {
    lock.split("[[package]]").skip(1).map(package).collect()
}

fn package(text: &str) -> (&str, &str, Option<&str>) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(" = \"")?.strip_suffix('"'))
    };
    (
        field("name").unwrap_or_default(),
        field("version").unwrap_or_default(),
        field("source"),
    )
}

fn lock() -> std::io::Result<String> {
    std::fs::read_to_string(workspace::root().join("Cargo.lock"))
}

/// 36 advisories were fixed between 48.0.0 and 48.0.8.
#[test]
fn wasmtime_is_no_older_than_its_fixed_release() {
    let lock = lock().unwrap();
    let versions: Vec<_> = locked(&lock)
        .into_iter()
        .filter(|(name, ..)| *name == "wasmtime" || *name == "wasmtime-wasi")
        .collect();
    assert!(versions.len() >= 2, "wasmtime is not locked: {versions:?}");
    for (name, version, _) in versions {
        let numbers: Vec<u64> = version.split('.').map(|n| n.parse().unwrap()).collect();
        assert!(
            numbers >= vec![48, 0, 8],
            "{name} {version} is older than 48.0.8"
        );
    }
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let lock = lock().unwrap();
    for (name, version, source) in locked(&lock) {
        if let Some(source) = source {
            assert_eq!(
                source, "registry+https://github.com/rust-lang/crates.io-index",
                "{name} {version} comes from elsewhere"
            );
        }
    }
}
