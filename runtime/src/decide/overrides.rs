//! What was done by hand, or by a probation, against what the configuration says.
//!
//! ```text
//! the file names a build ─┬─ the one that it named when the override was made ─▶ the pinned build
//!                         └─ another one ─▶ the override is over, the file's build
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many builds of a consumer are remembered to go back to.
const REMEMBERED: usize = 10;

/// A component with the configuration that it was given, and the settings that it ran under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Build {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The JSON object that `init` gets; holds no secret.
    pub config: String,
    /// The form of the plugin's state that it works with.
    pub state_version: u32,
    /// All else that can change while events flow, as text; empty where it is not known.
    #[serde(default)]
    pub settings: String,
}

/// Who pinned a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// `millstream deploy`.
    Deploy,
    /// `millstream rollback`, or a generation that did not prove itself.
    Rollback,
}

impl fmt::Display for Cause {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
        })
    }
}

/// What is known of one consumer beyond its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// An operator lets it stand.
    pub paused: bool,
    /// The build that the file named when last looked at.
    named: Option<Build>,
    /// What runs instead.
    pinned: Option<(Build, Cause)>,
    /// What was rolled back, while the file names the same build.
    refused: BTreeSet<Build>,
    /// What ran, the newest last.
    history: Vec<Build>,
    /// What took over last and has still to prove itself, and what was trusted before.
    #[serde(default)]
    unproven: Option<(Build, Build)>,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "{0} was rolled back; --force deploys it again, and so does a file that names another build in between"
    )]
    RolledBack(String),
    #[error("no build ran before this one: there is nothing to go back to")]
    NothingBefore,
    #[error("no build {0} ran here lately; `millstream rollback` without --to goes back by one")]
    Unknown(String),
    #[error(
        "the build before works with state_version {before}, and this one with {now}: it cannot read the state of this one; deploy a plugin that can"
    )]
    StateVersion { before: u32, now: u32 },
}

impl Overrides {
    /// The file names this build: what was done against another one is over.
    pub fn follow(&mut self, named: &Build) {
        if self.named.as_ref() != Some(named) {
            self.named = Some(named.clone());
            self.pinned = None;
            self.refused.clear();
        }
    }

    /// What is to run, and why it is not what the file names.
    pub fn pinned(&self) -> Option<(&Build, Cause)> {
        self.pinned.as_ref().map(|(build, cause)| (build, *cause))
    }

    /// Whether what runs is not what the file names.
    pub fn drifts(&self) -> bool {
        self.pinned.is_some()
    }

    /// Runs this build instead of the file's; without one, the file's again.
    ///
    /// # Errors
    /// [`Refusal::RolledBack`], unless it is forced.
    pub fn deploy(&mut self, build: Option<Build>, force: bool) -> Result<(), Refusal> {
        let Some(build) = build.or_else(|| self.named.clone()) else {
            return Ok(());
        };
        if self.refused.contains(&build) && !force {
            return Err(Refusal::RolledBack(build.digest));
        }
        self.refused.remove(&build);
        self.pin(build, Cause::Deploy);
        Ok(())
    }

    /// Goes back to the build before, or to one whose digest begins with `to` (with or without
    /// `sha256:`).
    ///
    /// # Errors
    /// There is none, or no way leads back to it.
    pub fn roll_back(&mut self, to: Option<&str>) -> Result<Build, Refusal> {
        let Some((now, before)) = self.history.split_last() else {
            return Err(Refusal::NothingBefore);
        };
        let wanted = |build: &&Build| match to {
            None => *build != now,
            Some(to) => {
                let digits = build.digest.trim_start_matches("sha256:");
                digits.starts_with(to.trim_start_matches("sha256:"))
            }
        };
        let found = before.iter().rev().find(wanted).cloned();
        let build = found.ok_or_else(|| match to {
            Some(to) => Refusal::Unknown(to.to_owned()),
            None => Refusal::NothingBefore,
        })?;
        if build.state_version != now.state_version {
            return Err(Refusal::StateVersion {
                before: build.state_version,
                now: now.state_version,
            });
        }
        self.rolled_back(now.clone(), build.clone());
        Ok(build)
    }

    /// `from` was given up for `to`.
    pub fn rolled_back(&mut self, from: Build, to: Build) {
        self.refused.insert(from);
        self.pin(to, Cause::Rollback);
    }

    /// This build runs from now on, and has to prove itself against the one that was trusted last.
    pub fn on_probation(&mut self, build: Build) {
        let trusted = match self.unproven.take() {
            Some((_, trusted)) => Some(trusted),
            None => self.history.last().cloned(),
        };
        self.runs(build.clone());
        self.unproven = trusted.map(|trusted| (build, trusted));
    }

    /// This build has proved itself; whether that is news.
    pub fn proven(&mut self, build: &Build) -> bool {
        let news = self.unproven.take_if(|(unproven, _)| unproven == build);
        news.is_some()
    }

    /// The build to begin with where this one is to run: the one before, while it has not proved itself.
    /// A start would trust it else, for no better reason than that the process died.
    pub fn before_unproven(&self, build: &Build) -> Option<&Build> {
        let (unproven, trusted) = self.unproven.as_ref()?;
        (unproven == build && trusted != build).then_some(trusted)
    }

    /// This build runs from now on, and is trusted.
    pub fn runs(&mut self, build: Build) {
        self.unproven = None;
        if self.history.last() != Some(&build) {
            self.history.push(build);
            let over = self.history.len().saturating_sub(REMEMBERED);
            self.history.drain(..over);
        }
    }

    /// Every digest that may be asked for again.
    pub fn digests(&self) -> impl Iterator<Item = &String> {
        let pinned = self.pinned.iter().map(|(build, _)| build);
        let trusted = self.unproven.iter().map(|(_, trusted)| trusted);
        let all = self.history.iter().chain(pinned).chain(trusted);
        all.map(|build| &build.digest)
    }

    fn pin(&mut self, build: Build, cause: Cause) {
        self.pinned = (self.named.as_ref() != Some(&build)).then_some((build, cause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(digest: &str) -> Build {
        Build {
            digest: format!("sha256:{digest}"),
            config: "{}".into(),
            state_version: 1,
            settings: "{}".into(),
        }
    }

    /// One whose file named `a` and then `b`, which both ran.
    fn upgraded() -> Overrides {
        let mut overrides = Overrides::default();
        for digest in ["a", "b"] {
            overrides.follow(&build(digest));
            overrides.runs(build(digest));
        }
        overrides
    }

    /// Each look at the unchanged file would deploy again what was taken back.
    #[test]
    fn what_was_rolled_back_is_not_deployed_again_until_the_file_names_another() {
        let mut overrides = upgraded();
        assert_eq!(overrides.roll_back(None), Ok(build("a")));
        overrides.runs(build("a"));
        overrides.follow(&build("b"));
        assert_eq!(overrides.pinned(), Some((&build("a"), Cause::Rollback)));
        let again = overrides.deploy(Some(build("b")), false);
        assert_eq!(again, Err(Refusal::RolledBack("sha256:b".into())));
        overrides.follow(&build("c"));
        assert!(!overrides.drifts());
        assert_eq!(overrides.deploy(Some(build("b")), false), Ok(()));
    }

    #[test]
    fn force_deploys_what_was_rolled_back() {
        let mut overrides = upgraded();
        overrides.roll_back(None).unwrap();
        assert_eq!(overrides.deploy(None, true), Ok(()));
        assert!(!overrides.drifts(), "the file's build runs again");
    }

    #[test]
    fn another_configuration_of_the_same_component_is_another_build() {
        let mut overrides = upgraded();
        overrides.deploy(Some(build("x")), false).unwrap();
        assert!(overrides.drifts());
        let mut edited = build("b");
        edited.config = "{\"currency\":\"EUR\"}".into();
        overrides.follow(&edited);
        assert!(!overrides.drifts());
    }

    /// A filter that drops everything is as bad a version as a plugin that does.
    #[test]
    fn other_settings_of_the_same_component_are_another_build() {
        let mut overrides = upgraded();
        let mut edited = build("b");
        edited.settings = "{\"rate\":\"1/h\"}".into();
        overrides.follow(&edited);
        overrides.runs(edited.clone());
        assert_eq!(overrides.roll_back(None), Ok(build("b")));
        overrides.follow(&edited);
        assert_eq!(overrides.pinned(), Some((&build("b"), Cause::Rollback)));
        edited.settings = "{\"rate\":\"2/h\"}".into();
        overrides.follow(&edited);
        assert!(!overrides.drifts());
    }

    #[test]
    fn one_goes_back_by_name_and_not_over_a_border_of_state() {
        let mut overrides = upgraded();
        assert_eq!(
            overrides.roll_back(Some("zz")),
            Err(Refusal::Unknown("zz".into()))
        );
        let mut newer = build("c");
        newer.state_version = 2;
        overrides.runs(newer);
        assert_eq!(
            overrides.roll_back(Some("a")),
            Err(Refusal::StateVersion { before: 1, now: 2 })
        );
        assert_eq!(
            Overrides::default().roll_back(None),
            Err(Refusal::NothingBefore)
        );
    }

    /// A process that dies while a build proves itself would have it trusted at the next start.
    #[test]
    fn what_has_not_proved_itself_gives_way_at_a_start() {
        let mut overrides = upgraded();
        overrides.on_probation(build("c"));
        overrides.on_probation(build("d"));
        let before =
            |overrides: &Overrides, of: &str| overrides.before_unproven(&build(of)).cloned();
        assert_eq!(
            before(&overrides, "d"),
            Some(build("b")),
            "c was never trusted"
        );
        assert_eq!(
            before(&overrides, "e"),
            None,
            "the file names another one by now"
        );
        assert!(!overrides.proven(&build("c")), "it was judged too late");
        assert!(overrides.proven(&build("d")) && before(&overrides, "d").is_none());

        overrides.on_probation(build("e"));
        overrides.rolled_back(build("e"), build("d"));
        overrides.runs(build("d"));
        assert_eq!(before(&overrides, "e"), None);
    }

    /// A rollback after a rollback would go forth again to what was just taken back.
    #[test]
    fn what_is_remembered_is_bounded() {
        let mut overrides = Overrides::default();
        for number in 0..30 {
            overrides.runs(build(&number.to_string()));
            overrides.runs(build(&number.to_string()));
        }
        assert_eq!(overrides.digests().count(), REMEMBERED);
    }
}
