//! `plugin` of a consumer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::super::origin::{self, ArtifactVersion, Origin, Reference, is_loopback};
use super::super::problem::{Place, Problem};
use super::super::resolved::{PluginSource, RemotePlugin, Runtime};
use super::super::section::Section;
use super::super::written::{Node, Value};
use super::registries::Registries;

const MIB: u64 = 1 << 20;

/// Checks where the component comes from; its place is where that stands.
pub fn plugin(
    consumer: &mut Section<'_>,
    enabled: bool,
    runtime: &Runtime,
    registries: &Registries,
) -> (PluginSource, Place) {
    let none = PluginSource::default();
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
            let table = table(&mut section);
            let sha256 = digest(&mut section);
            let max_size = section.size("max_size", 1 << 10..=64 * MIB);
            let timeout = section.duration(
                "timeout",
                Duration::from_secs(1)..=Duration::from_secs(3600),
            );
            let source = match table {
                None => None,
                Some((Written::Path(path), node)) => Some((path, node)),
                Some((remote, node)) => {
                    let origin = remote_origin(&section, &remote, node, registries);
                    if origin.as_ref().is_some_and(needs_digest) && !section.has("sha256") {
                        missing_digest(&section, &remote, node);
                    }
                    section.finish();
                    let source = origin.map(|origin| PluginSource {
                        path: sha256.as_ref().map_or(PathBuf::new(), |digest| {
                            runtime.components().join(format!("{digest}.wasm"))
                        }),
                        sha256,
                        remote: Some(Arc::new(RemotePlugin {
                            origin,
                            max_size: max_size.unwrap_or(64 * MIB),
                            timeout: timeout.unwrap_or(Duration::from_secs(120)),
                        })),
                    });
                    return (source.unwrap_or(none), node.place.clone());
                }
            };
            for key in ["max_size", "timeout"] {
                if section.has(key) && source.is_some() {
                    not_for_files(&section, key);
                }
            }
            section.finish();
            match source {
                Some((path, node)) => (path, sha256, &node.place),
                None => return (none, node.place.clone()),
            }
        }
        _ => {
            consumer.wrong_type(
                "plugin",
                node,
                "a path, or a table with `path`, `url` or `oci`",
            );
            return (none, node.place.clone());
        }
    };
    if path.contains("://") {
        consumer.checks().report(
            Problem::error("plugin-url", "a path cannot be a URL")
                .at(place)
                .label("read as the path of a file")
                .hint("write `plugin = { url = \"https://…\", sha256 = \"…\" }`"),
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
    let source = PluginSource {
        path,
        sha256,
        remote: None,
    };
    (source, place.clone())
}

/// What a table names.
enum Written<'a> {
    Path(&'a str),
    Url(&'a str),
    Oci(&'a str),
}

/// The one of `path`, `url` and `oci` that is there.
fn table<'a>(section: &mut Section<'a>) -> Option<(Written<'a>, &'a Node)> {
    let path = section.text("path");
    let url = section.text("url");
    let oci = section.text("oci");
    let there: Vec<&str> = ["path", "url", "oci"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    match there[..] {
        [] => section.missing(
            "path",
            "names no file",
            "add `path = \"plugins/NAME.wasm\"`, or `url` or `oci` with `sha256`",
        ),
        [_] => {}
        [_, second, ..] => section.checks().report(
            Problem::error("plugin", "a plugin comes from one place")
                .at(section.place_of(second))
                .label(format!("`{}` is there, too", there[0]))
                .hint("keep one of `path`, `url` and `oci`"),
        ),
    }
    let path = path.map(|(text, node)| (Written::Path(text), node));
    let url = url.map(|(text, node)| (Written::Url(text), node));
    path.or(url)
        .or_else(|| oci.map(|(text, node)| (Written::Oci(text), node)))
}

fn remote_origin(
    section: &Section<'_>,
    written: &Written<'_>,
    node: &Node,
    registries: &Registries,
) -> Option<Origin> {
    let wrong = |code, message: &str, label: &str, hint: &str| {
        let problem = Problem::error(code, message).at(&node.place).label(label);
        section.checks().report(problem.hint(hint));
        None
    };
    match written {
        Written::Path(_) => None,
        Written::Oci(text) => match Reference::parse(text) {
            Ok(reference) => Some(Origin::Oci(reference)),
            Err(label) => wrong(
                "oci",
                "`plugin.oci` does not name an artifact",
                label,
                "write \"registry.example.com/team/enrich:1.0\", or `@sha256:…` instead of the tag",
            ),
        },
        Written::Url(text) => {
            let example = "write \"https://example.com/enrich.wasm\"";
            let url = match Url::parse(text) {
                Ok(url) if matches!(url.scheme(), "https" | "http") => url,
                Ok(_) => {
                    return wrong(
                        "url",
                        "`plugin.url` is not https",
                        "another scheme",
                        example,
                    );
                }
                Err(_) => return wrong("url", "`plugin.url` is not a URL", "none", example),
            };
            if !url.username().is_empty() || url.password().is_some() {
                return wrong(
                    "url",
                    "`plugin.url` holds credentials",
                    "they would end in logs",
                    "write them as `[registries.\"HOST\"]` with `username` and `password = { file = \"…\" }`",
                );
            }
            let plain_allowed = || {
                let settings = registries.get(&origin::authority(&url));
                settings.is_some_and(|host| host.plain_http == Some(true))
            };
            let loopback = url.host().is_some_and(|host| is_loopback(&host));
            if url.scheme() == "http" && !loopback && !plain_allowed() {
                return wrong(
                    "url",
                    "`plugin.url` is not https",
                    "anybody on the way could see what is fetched, and keep it back",
                    "write https, or `plain_http = true` in `[registries.\"HOST\"]`",
                );
            }
            Some(Origin::Url(url))
        }
    }
}

fn needs_digest(origin: &Origin) -> bool {
    match origin {
        Origin::Url(_) => true,
        Origin::Oci(reference) => matches!(reference.version, ArtifactVersion::Tag(_)),
    }
}

fn missing_digest(section: &Section<'_>, written: &Written<'_>, node: &Node) {
    let (label, hint) = match written {
        Written::Oci(_) => (
            "a tag can be moved to another component",
            "add the component's `sha256`, or name the artifact by its digest: `oci = \"…@sha256:…\"`",
        ),
        _ => (
            "another component could be there tomorrow",
            "add `sha256 = \"…\"`: `millstream plugin inspect FILE` shows a component's digest",
        ),
    };
    section.checks().report(
        Problem::error("plugin-digest", "`plugin.sha256` is missing")
            .at(&node.place)
            .label(label)
            .cause(
                "what runs is decided by this file, not by whoever can write there; and what is \
                 here already is known by its digest alone, so that it is never fetched twice",
            )
            .hint(hint),
    );
}

fn not_for_files(section: &Section<'_>, key: &str) {
    section.checks().report(
        Problem::error(
            "plugin",
            format!("{} is for what is fetched", section.shown(key)),
        )
        .at(section.place_of(key))
        .label("this plugin is a file here")
        .hint("remove it"),
    );
}

fn digest(section: &mut Section<'_>) -> Option<String> {
    let (text, node) = section.text("sha256")?;
    let digest = text.strip_prefix("sha256:").unwrap_or(text);
    if let Some(digest) = origin::sha256(digest) {
        return Some(digest.to_string());
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
