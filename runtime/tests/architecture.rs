//! Imports point down, an adapter knows no other adapter, a library is named in one place, and
//! every `unsafe` says why it is sound.
//!
//! ```text
//! src/**/*.rs ─▶ code (comments and strings blanked) ─▶ paths (crate::…, super::…) ─▶ rules
//! ```

#[path = "architecture/source.rs"]
mod source;

use source::{Source, sources, sources_of_all};

/// Top to bottom. A module may name what stands in a lower layer, and its companions: those in the
/// same group. Groups of one layer know nothing of each other.
const LAYERS: &[&[&[&str]]] = &[
    &[&["cli"]],
    &[&["app"]],
    &[&["consumer", "metrics"], &["admin"]],
    &[&["broker"], &["plugin"], &["fetch"]],
    &[&["decide"]],
    &[&[
        "config",
        "event",
        "records",
        "json_event",
        "clock",
        "logging",
        "mutation",
        "tls",
    ]],
];

/// The adapters behind the seam `broker`.
const ADAPTERS: &[&str] = &["embedded", "kafka", "remote", "memory"];

/// Libraries that one folder alone may name, so that replacing one touches nothing else.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("rdkafka", &["broker", "kafka"]),
    ("rdkafka_sys", &["broker", "kafka"]),
    ("fjall", &["broker", "embedded"]),
    ("wasmtime", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
    ("wasmparser", &["plugin"]),
];

/// Every file of the workspace that says `unsafe`, and how often. One more is a decision: prove it in
/// a comment, and count it here.
const UNSAFE: &[(&str, usize)] = &[
    ("runtime/src/broker/kafka/raw/connection.rs", 9),
    ("runtime/src/broker/kafka/raw/event.rs", 12),
    ("runtime/src/broker/kafka/raw/message.rs", 14),
    ("runtime/src/broker/kafka/raw/offsets.rs", 10),
    ("runtime/src/broker/kafka/raw/queue.rs", 18),
    ("runtime/src/broker/kafka/raw/transaction.rs", 10),
    ("runtime/src/broker/kafka/raw/writer.rs", 10),
    ("runtime/src/plugin/abi/packed.rs", 16),
    ("runtime/src/plugin/abi/v0_1.rs", 2),
    ("runtime/src/plugin/cache.rs", 2),
    (
        "tests/bench/contenders/redpanda-connect-module/src/lib.rs",
        2,
    ),
    ("tests/bench/src/librdkafka.rs", 25),
    ("tests/bench/src/measure.rs", 1),
    ("tests/support/src/guard.rs", 3),
    ("tests/support/src/vitals.rs", 1),
];

/// Bindings that wit-bindgen writes; their head says how.
const GENERATED: &str = "plugins/sdk/rust/src/bindings.rs";

/// Layer and group of a top-level module.
fn place(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, groups)| {
        let group = groups.iter().position(|group| group.contains(&module))?;
        Some((layer, group))
    })
}

/// What is wrong with a module that names a path, if anything.
fn forbidden(from: &[String], to: &[String]) -> Option<String> {
    let (from_top, to_top) = (from.first()?, to.first()?);
    let (from_place, to_place) = (place(from_top)?, place(to_top)?);
    if to_place.0 < from_place.0 {
        return Some(format!("{from_top} stands below {to_top}"));
    }
    if to_place.0 == from_place.0 && to_place.1 != from_place.1 {
        return Some(format!("{from_top} and {to_top} stand side by side"));
    }
    let adapter = to.get(1).filter(|name| ADAPTERS.contains(&name.as_str()))?;
    if to_top != "broker" {
        return None;
    }
    match from_top.as_str() {
        "consumer" | "metrics" => Some(format!("{from_top} names the adapter {adapter}")),
        "broker" if from.get(1) != Some(adapter) => {
            let from = from.get(1).map_or("the seam", String::as_str);
            Some(format!("{from} names the adapter {adapter}"))
        }
        _ => None,
    }
}

fn check(name: &str, find: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut wrong = Vec::new();
    let sources = sources();
    assert!(sources.len() > 50, "only {} files found", sources.len());
    for source in &sources {
        for (line, what) in find(source) {
            wrong.push(format!("{}:{line}: {what}", source.path));
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn every_top_level_module_has_a_layer() {
    check("not in LAYERS", |source| match source.module.first() {
        Some(top) if place(top).is_none() => vec![(1, format!("{top} has no layer"))],
        _ => Vec::new(),
    });
}

#[test]
fn imports_point_down() {
    check("imports that point up or sideways", |source| {
        let paths = source.paths();
        let wrong = paths.iter().filter_map(|(line, path)| {
            let why = forbidden(&source.module, path)?;
            Some((*line, format!("{}: {why}", path.join("::"))))
        });
        wrong.collect()
    });
}

#[test]
fn a_library_is_named_in_its_folder_alone() {
    check("libraries out of place", |source| {
        let mut wrong = Vec::new();
        for (line, word) in source.words() {
            let home = LIBRARIES.iter().find(|(library, _)| *library == word);
            if let Some((library, home)) = home
                && !home.iter().eq(source.module.iter().take(home.len()))
            {
                wrong.push((line, format!("{library} belongs to {}/", home.join("/"))));
            }
        }
        wrong
    });
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    check("unsafe without a SAFETY comment before it", |source| {
        let lines = source.words().into_iter();
        let unsafe_lines = lines.filter(|(_, word)| word == "unsafe");
        unsafe_lines
            .filter(|(line, _)| !source.is_justified(*line))
            .map(|(line, _)| (line, "unsafe".to_owned()))
            .collect()
    });
}

#[test]
fn every_unsafe_is_counted() {
    let mut found = Vec::new();
    for source in sources_of_all() {
        let words = source.words();
        let count = words.iter().filter(|(_, word)| word == "unsafe").count();
        if count > 0 && source.path != GENERATED {
            for (line, _) in words.iter().filter(|(_, word)| word == "unsafe") {
                let is = source.is_justified(*line);
                assert!(is, "{}:{line}: no SAFETY comment before it", source.path);
            }
            found.push((source.path, count));
        }
    }
    found.sort();
    let listed: Vec<_> = UNSAFE
        .iter()
        .map(|(path, n)| ((*path).to_owned(), *n))
        .collect();
    assert_eq!(found, listed, "what is there, and what UNSAFE lists");
}

/// The rules themselves: a test that finds nothing because it cannot read is worse than none.
#[test]
fn what_is_forbidden_is_found() {
    let source = Source::new(
        "broker/kafka/topics.rs",
        "use crate::{\n    config,\n    app::{self, run},\n};\n\
         // crate::cli in a comment, \"crate::cli\" in prose\n\
         mod tests { use super::super::super::memory::Memory; fn f() { \"crate::cli\"; } }\n\
         fn g() { crate::admin::serve(); let x = 'c'; }\n",
    );
    let wrong: Vec<_> = source
        .paths()
        .into_iter()
        .filter(|(_, path)| forbidden(&source.module, path).is_some())
        .map(|(line, path)| (line, path.join("::")))
        .collect();
    let expected = [
        (3, "app"),
        (3, "app::run"),
        (6, "broker::memory::Memory"),
        (7, "admin::serve"),
    ];
    assert_eq!(wrong, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn a_safety_comment_belongs_to_the_statement_below_it() {
    let source = Source::new(
        "plugin/cache.rs",
        "// SAFETY: proven\nlet a =\n    unsafe { f() };\nlet b = unsafe { f() };\n",
    );
    assert!(source.is_justified(3));
    assert!(!source.is_justified(4));
}
