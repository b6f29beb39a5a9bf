//! The guides of the repository, and what stands in them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use millstream_test_support::workspace;

/// A Markdown file of the repository.
#[derive(Clone, Debug)]
pub struct Guide {
    /// Below the root, with `/`.
    pub name: String,
    pub blocks: Vec<Block>,
    /// Text outside of blocks, line by line, with the number of each.
    pub prose: Vec<(usize, String)>,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence.
    pub line: usize,
    /// What follows the fence, split at commas: the language first.
    pub tags: Vec<String>,
    pub text: String,
}

impl Block {
    /// The language; empty where none is named.
    pub fn language(&self) -> &str {
        self.tags.first().map_or("", String::as_str)
    }

    /// Whether it carries a tag besides its language.
    pub fn has(&self, tag: &str) -> bool {
        self.tags.iter().skip(1).any(|own| own == tag)
    }
}

impl Guide {
    /// Reads Markdown.
    ///
    /// # Errors
    /// A fence is not closed.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let (mut blocks, mut prose) = (Vec::new(), Vec::new());
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(tags), None) => {
                    open = Some(Block {
                        line: number,
                        tags: tags.trim().split(',').map(str::to_owned).collect(),
                        text: String::new(),
                    });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => prose.push((number, line.to_owned())),
            }
        }
        if let Some(block) = open {
            bail!("{name}:{}: the block is not closed", block.line);
        }
        Ok(Self {
            name: name.to_owned(),
            blocks,
            prose,
        })
    }

    /// Reads a file of the repository.
    ///
    /// # Errors
    /// It is not there, or a fence is not closed.
    pub fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(workspace::root().join(name)).context(name.to_owned())?;
        Self::parse(name, &text)
    }

    /// Where the block stands, for messages.
    pub fn place(&self, block: &Block) -> String {
        format!("{}:{}", self.name, block.line)
    }

    /// The folder that its links begin at.
    pub fn folder(&self) -> PathBuf {
        let path = workspace::root().join(&self.name);
        path.parent().unwrap_or(&path).to_path_buf()
    }

    /// Inline code of the prose, with its line.
    pub fn inline_code(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in &self.prose {
            // Odd pieces stand between two backticks.
            for piece in line.split('`').skip(1).step_by(2) {
                found.push((*number, piece.to_owned()));
            }
        }
        found
    }

    /// Targets of links in the prose, with their line.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in &self.prose {
            for piece in line.split("](").skip(1) {
                if let Some((target, _)) = piece.split_once(')') {
                    found.push((*number, target.to_owned()));
                }
            }
        }
        found
    }
}

/// Every README of the repository.
///
/// # Errors
/// A folder or file cannot be read, or a fence is not closed.
pub fn all() -> Result<Vec<Guide>> {
    let root = workspace::root();
    let (mut folders, mut names) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name == "README.md" {
                names.push(below(&root, &path));
            }
        }
    }
    names.sort();
    names.iter().map(|name| Guide::read(name)).collect()
}

fn below(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_prose_and_links_are_told_apart() {
        let text = "See [it](a/b.md) and `make run`.\n```toml,fragment\na = 1 # `no`\n```\nEnd.\n";
        let guide = Guide::parse("a.md", text).unwrap();
        let expected = Block {
            line: 2,
            tags: vec!["toml".to_owned(), "fragment".to_owned()],
            text: "a = 1 # `no`\n".to_owned(),
        };
        assert_eq!(guide.blocks, [expected]);
        assert!(guide.blocks[0].has("fragment"));
        assert_eq!(guide.links(), [(1, "a/b.md".to_owned())]);
        assert_eq!(guide.inline_code(), [(1, "make run".to_owned())]);
        assert!(Guide::parse("a.md", "```toml\n").is_err());
    }
}
