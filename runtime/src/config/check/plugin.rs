//! `plugin` of a consumer.

use std::path::PathBuf;

use super::super::problem::{Place, Problem};
use super::super::resolved::PluginSource;
use super::super::section::Section;
use super::super::written::Value;

/// Checks where the component comes from; its place is where the path stands.
pub fn plugin(consumer: &mut Section<'_>, enabled: bool) -> (PluginSource, Place) {
    let none = PluginSource {
        path: PathBuf::new(),
        sha256: None,
    };
    let Some(node) = consumer.node("plugin") else {
        consumer.missing(
            "plugin",
            "this consumer has no plugin",
            "add `plugin = \"plugins/NAME.wasm\"`",
        );
        return (none, consumer.place().clone());
    };
    let (path, sha256, place) = match &node.value {
        Value::Text(text) if text.failed => return (none, node.place.clone()),
        Value::Text(text) => (&*text.value, None, &node.place),
        Value::Table(_) => {
            let mut section = consumer.section("plugin");
            let path = section.text("path");
            let sha256 = digest(&mut section);
            section.reserve(&[("url", "download of plugins"), ("oci", "plugin registry")]);
            if !section.has("path") && !section.has("url") && !section.has("oci") {
                section.missing(
                    "path",
                    "names no file",
                    "add `path = \"plugins/NAME.wasm\"`",
                );
            }
            section.finish();
            match path {
                Some((path, node)) => (path, sha256, &node.place),
                None => return (none, node.place.clone()),
            }
        }
        _ => {
            consumer.wrong_type(
                "plugin",
                node,
                "a path, or `{ path = \"…\", sha256 = \"…\" }`",
            );
            return (none, node.place.clone());
        }
    };
    if path.contains("://") {
        consumer.checks().report(
            Problem::error(
                "unsupported",
                "a plugin from a URL is not supported by this version",
            )
            .at(place)
            .label("this version reads plugins from files alone")
            .hint("fetch it yourself, and give its path and `sha256`"),
        );
        return (none, place.clone());
    }
    let path = consumer.checks().sources.resolve(place.file, path);
    if enabled && !path.is_file() {
        let label = if path.is_dir() {
            "a folder"
        } else {
            "no such file"
        };
        consumer.checks().report(
            Problem::error(
                "plugin-missing",
                format!("there is no plugin at {}", path.display()),
            )
            .at(place)
            .label(label)
            .hint("build it first; paths are relative to the file that names them"),
        );
    }
    (PluginSource { path, sha256 }, place.clone())
}

fn digest(section: &mut Section<'_>) -> Option<String> {
    let (text, node) = section.text("sha256")?;
    let digest = text.strip_prefix("sha256:").unwrap_or(text);
    if digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some(digest.to_ascii_lowercase());
    }
    section.checks().report(
        Problem::error("digest", "`plugin.sha256` is not a SHA-256 digest")
            .at(&node.place)
            .label(format!(
                "64 hexadecimal digits make one, here are {} characters",
                digest.chars().count()
            ))
            .hint("`millstream plugin inspect FILE` shows a plugin's digest"),
    );
    None
}
