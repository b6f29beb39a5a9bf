//! What deploys leave on disk: overrides, what ran before, and its components.
//!
//! ```text
//! FOLDER/deploys.json           per consumer: paused, pinned, refused, history, unproven
//!        components/HEX.wasm    every component that one of them may go back to
//! ```
//! Components are kept, since a new build mostly takes the place of the old one's file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{self, Config, Consumer, Runtime, kept};
use crate::decide::deploy_plan::Version;
use crate::decide::overrides::{Build, Overrides};
use crate::plugin::inspect;

/// The overrides of all consumers, and where they are kept.
#[derive(Clone, Debug)]
pub struct DeployBook {
    folder: PathBuf,
    /// What limits of consumers have to go with.
    runtime: Runtime,
    consumers: BTreeMap<String, Overrides>,
}

impl DeployBook {
    /// Reads what is kept for this configuration: beside the embedded store, and on Kafka in the
    /// cache, for each `[runtime] instance` by itself. Blocks.
    ///
    /// # Errors
    /// The file is there and cannot be read: what it says must not be forgotten.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let folder = match &config.broker {
            config::Broker::Embedded(embedded) => embedded.data_dir.join("deploys"),
            config::Broker::Kafka(_) => {
                let instance = config.runtime.instance.as_deref().unwrap_or("unnamed");
                config.runtime.cache_dir.join("deploys").join(instance)
            }
        };
        let file = folder.join(FILE);
        let consumers = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} holds no overrides of deploys; move it away to do without them",
                    file.display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        Ok(Self {
            folder,
            runtime: config.runtime.clone(),
            consumers,
        })
    }

    /// What is known of a consumer.
    pub fn of(&mut self, consumer: &str) -> &mut Overrides {
        self.consumers.entry(consumer.to_string()).or_default()
    }

    /// A consumer goes on under a new name: what is known of it under the one before is known of it
    /// still, unless something is known of the new one already.
    fn rename(&mut self, consumer: &Consumer) {
        let names = consumer.previous_names.iter();
        let left: Vec<Overrides> = names
            .filter_map(|name| self.consumers.remove(&**name))
            .collect();
        let overrides = self.of(&consumer.name);
        if *overrides == Overrides::default()
            && let Some(left) = left.into_iter().next()
        {
            *overrides = left;
        }
    }

    /// Every consumer that something is known of.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Overrides)> {
        self.consumers.iter()
    }

    /// What is to run where the file wants this version: that, or what is pinned instead.
    pub fn follow(&mut self, wanted: Version) -> Version {
        self.rename(&wanted.settings);
        let overrides = self.of(&wanted.settings.name);
        overrides.follow(&build(&wanted));
        let pinned = overrides.pinned().map(|(build, _)| build.clone());
        match pinned {
            None => wanted,
            Some(pinned) => Version {
                digest: pinned.digest.as_str().into(),
                settings: Arc::new(self.with_build(&wanted.settings, &pinned)),
            },
        }
    }

    /// The version to begin with at a start that is to run this one: the one that was trusted before,
    /// where it is on probation. `None` where it is not, or the other one is not there any more.
    pub fn before_unproven(&self, version: &Version) -> Option<Version> {
        let overrides = self.consumers.get(&*version.settings.name)?;
        let before = overrides.before_unproven(&build(version))?;
        self.component(&before.digest).exists().then(|| Version {
            digest: before.digest.as_str().into(),
            settings: Arc::new(self.with_build(&version.settings, before)),
        })
    }

    /// The settings with another component, kept here, its configuration, and what else can change
    /// while events flow.
    fn with_build(&self, settings: &Consumer, build: &Build) -> Consumer {
        let settings = match kept::read(settings, &build.settings, &self.runtime) {
            Ok(settings) => settings,
            Err(problems) => {
                tracing::error!(
                    consumer = %settings.name,
                    "the settings of the build that runs instead of the file's cannot be had any \
                     more, those of the file apply:\n{}", problems.render(false)
                );
                settings.clone()
            }
        };
        Consumer {
            plugin: config::PluginSource {
                path: self.component(&build.digest),
                sha256: Some(digits(&build.digest).to_owned()),
                remote: None,
            },
            config: build.config.as_str().into(),
            ..settings
        }
    }

    fn component(&self, digest: &str) -> PathBuf {
        self.folder
            .join(COMPONENTS)
            .join(format!("{}.wasm", digits(digest)))
    }

    /// Keeps a copy of the component of this digest. Blocks.
    ///
    /// # Errors
    /// It cannot be read or written, or was changed meanwhile.
    pub fn keep(&self, path: &Path, digest: &str) -> anyhow::Result<()> {
        let kept = self.component(digest);
        if kept.exists() {
            return Ok(());
        }
        let bytes = inspect::read(path)?;
        anyhow::ensure!(
            inspect::sha256(&bytes) == digits(digest),
            "{} changed while it was deployed; deploy it again",
            path.display()
        );
        write(&kept, &bytes)
    }

    /// Writes what is known, and forgets components that nobody can ask for any more. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.consumers)?;
        write(&self.folder.join(FILE), &text)?;
        let digests = self.consumers.values().flat_map(Overrides::digests);
        let wanted: BTreeSet<PathBuf> = digests.map(|digest| self.component(digest)).collect();
        let Ok(kept) = fs::read_dir(self.folder.join(COMPONENTS)) else {
            return Ok(());
        };
        for entry in kept
            .flatten()
            .filter(|entry| !wanted.contains(&entry.path()))
        {
            // One that stays takes room, no more.
            let _ = fs::remove_file(entry.path());
        }
        Ok(())
    }
}

const FILE: &str = "deploys.json";
const COMPONENTS: &str = "components";

/// What a version runs, as it is remembered.
pub fn build(version: &Version) -> Build {
    Build {
        digest: version.digest.to_string(),
        config: version.settings.config.to_string(),
        state_version: version.settings.deploy.state_version,
        settings: kept::write(&version.settings),
    }
}

fn digits(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Puts a file in place as a whole, and onto the disk.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let folder = path.parent().with_context(failed)?;
    fs::create_dir_all(folder).with_context(failed)?;
    let mut draft = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    draft.write_all(bytes).with_context(failed)?;
    draft.as_file().sync_all().with_context(failed)?;
    draft.persist(path).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn book(folder: &Path) -> DeployBook {
        DeployBook {
            folder: folder.to_owned(),
            runtime: Runtime {
                instance: None,
                shutdown_timeout: Duration::from_secs(25),
                max_instances: 1000,
                max_plugin_memory: 256 << 20,
                plugin_memory: 2 << 30,
                cache_dir: folder.to_owned(),
            },
            consumers: BTreeMap::new(),
        }
    }

    /// A pause or a rollback that a rename forgets would come loose by itself.
    #[test]
    fn what_is_known_goes_along_with_a_name_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("millstream.toml");
        let named = |name: &str, before: &str| {
            let text = format!(
                "[[consumer]]\nname = \"{name}\"\nprevious_names = {before}\n\
                 plugin = \"p.wasm\"\ntopics = [\"t\"]\n"
            );
            fs::write(&file, text).unwrap();
            let loaded = config::load_without_plugins(&file, &|_| None).unwrap();
            loaded.config.consumers[0].clone()
        };
        let mut book = book(folder.path());
        book.of("old").paused = true;
        let new = named("new", "[\"never\", \"old\"]");
        book.rename(&new);
        assert!(book.of("new").paused && !book.consumers.contains_key("old"));
        book.of("new").paused = false;
        book.of("new").runs(Build {
            digest: "sha256:00".into(),
            config: "{}".into(),
            state_version: 1,
            settings: String::new(),
        });
        book.of("old").paused = true;
        book.rename(&new);
        assert!(!book.of("new").paused, "it has a life of its own by now");
    }

    /// A component that nobody goes back to would stay for ever, one that somebody does must not go.
    #[test]
    fn components_are_kept_as_long_as_somebody_may_go_back_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder.path().join("deploys"));
        let source = folder.path().join("plugin.wasm");
        for number in 0..12_u8 {
            fs::write(&source, [number]).unwrap();
            let digest = format!("sha256:{}", inspect::sha256(&[number]));
            book.keep(&source, &digest).unwrap();
            book.of("enrich").runs(Build {
                digest,
                config: "{}".into(),
                state_version: 1,
                settings: String::new(),
            });
            book.save().unwrap();
        }
        let first = book.component(&inspect::sha256(&[0]));
        let newest = book.component(&inspect::sha256(&[11]));
        assert!(!first.exists() && newest.exists());
        let other = "sha256:00".to_owned();
        assert!(book.keep(&source, &other).is_err(), "it is another one");
        let bytes = fs::read(book.folder.join(FILE)).unwrap();
        let read: BTreeMap<String, Overrides> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, book.consumers);
    }
}
