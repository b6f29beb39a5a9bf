//! The order lines of an online shop, in time order: all of them where the data set lies beside the
//! project, else the sample that the project ships.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Names the folder of the full data set where it is not `../shared/data`.
pub const FOLDER: &str = "MILLSTREAM_SHARED_DATA";

/// Order lines, and where they come from.
#[derive(Clone, Debug)]
pub struct Retail {
    /// Whether this is the whole data set of 541,909 lines.
    pub full: bool,
    /// For people: which data this is.
    pub source: String,
    text: String,
}

impl Retail {
    /// Loads the order lines and says on standard error which they are.
    ///
    /// # Errors
    /// Neither the data set nor the sample can be read.
    pub fn load() -> Result<Self> {
        let archive = folder().join("online-retail.jsonl.zst");
        let retail = if archive.is_file() {
            Self {
                full: true,
                source: "the full data set of the online shop".to_owned(),
                text: decompress(&archive)?,
            }
        } else {
            let sample = sample()?;
            Self {
                full: false,
                source: format!("the shipped sample {}", sample.display()),
                text: fs::read_to_string(workspace::root().join(&sample))
                    .with_context(|| format!("cannot read {}", sample.display()))?,
            }
        };
        eprintln!("order lines: {} from {}", retail.len(), retail.source);
        Ok(retail)
    }

    /// The order lines, each a JSON object.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.is_empty())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines().next().is_none()
    }
}

fn folder() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| workspace::root().join("../shared/data"), PathBuf::from)
}

/// The sample of the example plugin, relative to the workspace.
///
/// # Errors
/// There is none.
pub fn sample() -> Result<PathBuf> {
    let folder = Path::new("plugins/enrich/data");
    let entries = fs::read_dir(workspace::root().join(folder))
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(folder.join(entry.ok()?.file_name())))
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    match files.into_iter().next() {
        Some(file) => Ok(file),
        None => bail!("no sample of order lines in {}", folder.display()),
    }
}

fn decompress(archive: &Path) -> Result<String> {
    let read = || -> Result<String> {
        let file = BufReader::new(File::open(archive)?);
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(file)?;
        let mut text = String::new();
        decoder.read_to_string(&mut text)?;
        Ok(text)
    };
    read().with_context(|| format!("cannot decompress {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_data_set_is_read_whole_where_it_is_there() {
        let archive = folder().join("online-retail.jsonl.zst");
        if !archive.is_file() {
            eprintln!("LEFT OUT: the full data set is not beside the project");
            return;
        }
        let retail = Retail::load().unwrap();
        assert_eq!(retail.len(), 541_909);
        assert!(retail.lines().all(|line| line.starts_with('{')));
    }
}
