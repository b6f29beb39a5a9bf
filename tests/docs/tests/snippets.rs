//! Every block is of a kind that something checks, and configurations load.

use std::fs;
use std::path::Path;

use anyhow::Result;
use millstream_docs_tests::guide::{self, Block, Guide};
use millstream_test_support::workspace;

/// Languages of blocks, and who checks them. `text`, `json` and `wit` are shown, not run.
const LANGUAGES: &[&str] = &["toml", "rust", "console", "sh", "text", "json", "wit", ""];

fn blocks(language: &str) -> Result<Vec<(Guide, Block)>> {
    let mut found = Vec::new();
    for guide in guide::all()? {
        let blocks = guide.blocks.iter();
        for block in blocks.filter(|block| block.language() == language) {
            found.push((guide.clone(), block.clone()));
        }
    }
    Ok(found)
}

#[test]
fn every_block_is_of_a_known_language() -> Result<()> {
    let guides = guide::all()?;
    assert!(guides.len() >= 8, "only {} guides", guides.len());
    for guide in &guides {
        for block in &guide.blocks {
            let known = LANGUAGES.contains(&block.language());
            assert!(known, "{}: {:?}", guide.place(block), block.tags);
        }
    }
    Ok(())
}

/// A whole configuration loads; plugins that it names need not be built. What is only part of one,
/// or another tool's, is tagged `fragment` and parses.
#[test]
fn configurations_load_and_fragments_parse() -> Result<()> {
    let found = blocks("toml")?;
    assert!(found.len() >= 10, "only {} blocks of toml", found.len());
    for (guide, block) in found {
        let place = guide.place(&block);
        if block.has("fragment") {
            let parsed: Result<toml::Table, _> = toml::from_str(&block.text);
            parsed.unwrap_or_else(|error| panic!("{place}: {error}"));
            continue;
        }
        let folder = tempfile::tempdir()?;
        write(folder.path(), "millstream.toml", &block.text)?;
        // What the guide of the configuration names beside it.
        write(folder.path(), "secrets/kafka", "secret\n")?;
        write(folder.path(), "secrets/api-key", "secret\n")?;
        let included = "[consumer]\nname = \"a\"\nplugin = \"p.wasm\"\ntopics = [\"t\"]\n";
        write(folder.path(), "consumers/a.toml", included)?;
        let token = |name: &str| (name == "ADMIN_TOKEN").then(|| "secret".to_owned());
        let file = folder.path().join("millstream.toml");
        millstream::config::load_without_plugins(&file, &token)
            .unwrap_or_else(|problems| panic!("{place}: {problems}"));
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, text)?)
}

/// Blocks of Rust are compiled and run where the SDK includes the guide in its documentation.
#[test]
fn guides_with_rust_are_part_of_the_doctests() -> Result<()> {
    let sdk = "plugins/sdk/rust";
    let lib = workspace::root().join(sdk).join("src/lib.rs");
    let lib = fs::read_to_string(lib)?;
    let found = blocks("rust")?;
    assert!(found.len() >= 5, "only {} blocks of rust", found.len());
    for (guide, block) in found {
        let up = format!("../../../../{}", guide.name);
        let ways = [
            up.clone(),
            up.replace("../../../../plugins/sdk/rust/", "../"),
            up.replace("../../../../plugins/", "../../../"),
        ];
        let included = ways
            .iter()
            .any(|way| lib.contains(&format!("include_str!(\"{way}\")")));
        assert!(included, "{} is in no doctest", guide.place(&block));
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut wrong = Vec::new();
    for guide in guide::all()? {
        for (line, target) in guide.links() {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !guide.folder().join(path).exists() {
                wrong.push(format!("{}:{line}: {target}", guide.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Files that the text names in passing.
#[test]
fn named_files_exist() -> Result<()> {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for guide in guide::all()? {
        let folder = guide.folder();
        let homes = [folder.clone(), folder.join("src"), workspace::root()];
        for (line, name) in guide.inline_code() {
            let path = name.contains('/') && (name.ends_with(".rs") || name.ends_with('/'));
            // `NAME.rs` stands for many, and a reader's own plugin has a `src/lib.rs`.
            let plain = !name.contains([' ', '<', ':']) && !name.contains("NAME");
            if !path || !plain || name == "src/lib.rs" {
                continue;
            }
            seen += 1;
            if !homes.iter().any(|home| home.join(&name).exists()) {
                wrong.push(format!("{}:{line}: {name}", guide.name));
            }
        }
    }
    assert!(seen >= 30, "only {seen} files are named");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
