//! Files that are no plugins, and what a plugin says of itself.

use millstream_whole_tests::setting;
use serde_json::Value;

/// A text of a component with this text in another's place, of the same length.
fn forged(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut forged = bytes.to_vec();
    let mut found = 0;
    for at in 0..forged.len() - from.len() {
        if forged[at..].starts_with(from.as_bytes()) {
            forged[at..at + to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{from} is not in the component");
    forged
}

/// Each must be told apart, at `validate`, by `plugin inspect` and at a start: none may panic, hang or pass.
#[test]
fn bad_plugins_are_refused_with_the_reason() {
    let good = std::fs::read(setting::hostile().unwrap()).unwrap();
    let handler = "millstream:plugin/handler@0.1.0";
    let plugins: [(&str, Vec<u8>, &str); 7] = [
        (
            "core.wasm",
            b"\0asm\x01\0\0\0".to_vec(),
            "core WebAssembly module",
        ),
        (
            "version.wasm",
            forged(&good, "plugin/handler@0.1.0", "plugin/handler@0.9.0"),
            "0.9.0",
        ),
        (
            "export.wasm",
            forged(&good, "plugin/handler@0.1.0", "plugin/handlex@0.1.0"),
            "exports no millstream:plugin/handler",
        ),
        (
            "truncated.wasm",
            good[..good.len() / 2].to_vec(),
            "cut short",
        ),
        ("header.wasm", good[..6].to_vec(), "cut short"),
        ("text.wasm", b"(component)".to_vec(), "is not WebAssembly"),
        ("empty.wasm", Vec::new(), "is not WebAssembly"),
    ];
    let site = setting::site("").unwrap();
    for (name, bytes, words) in &plugins {
        site.write(name, bytes).unwrap();
        let consumer =
            format!("[[consumer]]\nname = \"c\"\nplugin = \"{name}\"\ntopics = [\"t\"]\n");
        site.configure(&format!("{}\n{consumer}", setting::head(&site)))
            .unwrap();
        let finished = setting::fail(&site, 78, &["validate"]).unwrap();
        assert!(
            finished.stderr.contains(words),
            "{name}: {}",
            finished.stderr
        );
        let line = setting::head(&site).lines().count() + 4;
        let place = format!("millstream.toml:{line}:10");
        assert!(
            finished.stderr.contains(&place),
            "{name}: no {place}: {}",
            finished.stderr
        );
        let finished = setting::fail(&site, 1, &["plugin", "inspect", name]).unwrap();
        assert!(
            finished.stderr.contains(words),
            "{name}: {}",
            finished.stderr
        );
        let finished = setting::fail(&site, 78, &["run"]).unwrap();
        assert!(
            finished.stderr.contains(words),
            "{name}: {}",
            finished.stderr
        );
    }
    // A folder and a digest that does not fit.
    site.write("folder.wasm/file", b"").unwrap();
    setting::fail(&site, 1, &["plugin", "inspect", "folder.wasm"]).unwrap();
    setting::fail(&site, 1, &["plugin", "inspect", "not-there.wasm"]).unwrap();
    site.write("good.wasm", &good).unwrap();
    let digest = "0".repeat(64);
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nplugin = {{ path = \"good.wasm\", sha256 = \"{digest}\" }}\ntopics = [\"t\"]\n"
    );
    site.configure(&format!("{}\n{consumer}", setting::head(&site)))
        .unwrap();
    setting::fail(&site, 78, &["validate"]).unwrap();
    setting::fail(&site, 78, &["run"]).unwrap();

    let report = site
        .succeed(&["plugin", "inspect", "good.wasm", "--json"])
        .unwrap()
        .parse::<Value>()
        .unwrap();
    assert_eq!(report["contract"], "0.1.0");
    assert_eq!(report["size"], good.len());
    assert!(
        report["exports"]
            .as_array()
            .unwrap()
            .contains(&Value::from(handler))
    );
    let text = site.succeed(&["plugin", "inspect", "good.wasm"]).unwrap();
    assert!(
        text.contains("millstream:plugin 0.1.0")
            && text.contains(report["digest"].as_str().unwrap()),
        "{text}"
    );
}
