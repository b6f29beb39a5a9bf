//! Rules for dependencies that need no tool: they hold wherever the tests run.

use millstream_test_support::workspace;

/// Name, version and source of each package in `Cargo.lock`.
fn locked() -> Vec<(String, String, Option<String>)> {
    let text = std::fs::read_to_string(workspace::root().join("Cargo.lock")).unwrap();
    let field = |package: &str, name: &str| {
        let start = format!("{name} = \"");
        let line = package.lines().find_map(|line| line.strip_prefix(&start));
        line.map(|rest| rest.trim_end_matches('"').to_owned())
    };
    text.split("[[package]]")
        .skip(1)
        .map(|package| {
            (
                field(package, "name").unwrap(),
                field(package, "version").unwrap(),
                field(package, "source"),
            )
        })
        .collect()
}

/// 36 advisories were fixed between 48.0.0 and 48.0.8.
#[test]
fn wasmtime_is_no_older_than_its_fixed_release() {
    let versions: Vec<_> = locked()
        .into_iter()
        .filter(|(name, ..)| name == "wasmtime" || name == "wasmtime-wasi")
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
    for (name, version, source) in locked() {
        if let Some(source) = source {
            assert_eq!(
                source, "registry+https://github.com/rust-lang/crates.io-index",
                "{name} {version} comes from elsewhere"
            );
        }
    }
}
