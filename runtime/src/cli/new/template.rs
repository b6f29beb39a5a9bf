//! The files of a new project; they stand in `runtime/templates`.

use super::name;

/// A file of a project: its path below the folder, and its text with `{{…}}` for what differs.
type File = (&'static str, &'static str);

/// A plugin in Rust.
const RUST: &[File] = &[
    (
        "Cargo.toml",
        include_str!("../../../templates/rust/Cargo.toml.template"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../templates/rust/src/lib.rs"),
    ),
    (
        "cases/large-order.json",
        include_str!("../../../templates/rust/cases/large-order.json"),
    ),
    (
        "cases/no-order.json",
        include_str!("../../../templates/rust/cases/no-order.json"),
    ),
    (
        "millstream.toml",
        include_str!("../../../templates/rust/millstream.toml"),
    ),
    (
        "README.md",
        include_str!("../../../templates/rust/README.md"),
    ),
    (
        ".gitignore",
        include_str!("../../../templates/rust/gitignore"),
    ),
];

/// The files of a project of this name; `sdk` is the value of the dependency in `Cargo.toml`.
pub fn rust(name: &str, sdk: &str) -> Vec<(&'static str, String)> {
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{crate}}", &name::of_crate(name))
            .replace("{{sdk}}", sdk)
    };
    RUST.iter()
        .map(|(path, text)| (*path, fill(text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, text) in rust("large-orders", "\"0.1\"") {
            assert!(!text.contains("{{"), "{path}: {text}");
            assert!(text.ends_with('\n'), "{path}");
        }
    }

    #[test]
    fn the_manifest_is_one_of_a_component() {
        let files = rust("large-orders", r#"{ path = "/sdk" }"#);
        let text = |path: &str| {
            let found = files.iter().find(|(known, _)| *known == path);
            found.map(|(_, text)| text.as_str()).unwrap_or_default()
        };
        let manifest: toml::Table = text("Cargo.toml").parse().expect("TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some("large-orders"));
        assert_eq!(
            manifest["dependencies"]["millstream-plugin"]["path"].as_str(),
            Some("/sdk")
        );
        let kinds = manifest["lib"]["crate-type"].as_array().expect("a list");
        assert_eq!(
            kinds.len(),
            1,
            "with rlib there is no optimization at link time"
        );
        assert!(text("millstream.toml").contains("release/large_orders.wasm"));
    }
}
