//! Versions of the plugin: good ones, which do what the value of an event says, and those that an
//! operator deploys by mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How a version behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// It does what each event says.
    Good,
    /// It treats this share of the events as if they said `with`, the others as they say.
    Fails { with: &'static str, share: f64 },
    /// No instance of it starts.
    NeverStarts { misconfigured: bool },
}

/// What a version that fails makes of events; [`Version::makes_of`] and the plugin know the words.
pub const FAULTS: [&str; 9] = [
    "reject", "reject", "retry", "trap", "hang", "garbage", "down", "halt", "unwanted",
];

/// A version, told apart from all others of the run by its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Version {
    pub number: u64,
    pub manner: Manner,
}

impl fmt::Display for Version {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "version {}", self.number)?;
        match self.manner {
            Manner::Good => Ok(()),
            Manner::Fails { with, share } => {
                let percent = share * 100.0;
                write!(to, " (`{with}` for {percent:.0} % of the events)")
            }
            Manner::NeverStarts { misconfigured } => {
                let how = if misconfigured { "refuses" } else { "traps" };
                write!(to, " (never starts: `init` {how})")
            }
        }
    }
}

impl Version {
    /// The one that a run begins with.
    pub const FIRST: Self = Self {
        number: 1,
        manner: Manner::Good,
    };

    /// Names its component.
    pub fn digest(&self) -> String {
        format!("sha256:{:02}", self.number)
    }

    /// The number of the version that a digest names.
    pub fn number_of(digest: &str) -> Option<u64> {
        digest.strip_prefix("sha256:")?.parse().ok()
    }

    /// What it makes of an event that says `value`; the same at each attempt.
    pub fn makes_of<'a>(&self, partition: u32, offset: u64, value: &'a str) -> &'a str {
        match self.manner {
            Manner::Fails { with, share } => {
                let place = u64::from(partition) << 32 | offset;
                let mut dice = fastrand::Rng::with_seed(place ^ self.number.rotate_left(48));
                if dice.f64() < share { with } else { value }
            }
            Manner::Good | Manner::NeverStarts { .. } => value,
        }
    }
}

/// What is known of the versions of a run, by number.
#[derive(Debug, Default)]
pub struct Versions {
    deployed: BTreeMap<u64, Version>,
    /// On probation, or not proved when it ended.
    unproven: BTreeSet<u64>,
    /// Made for a shadow run.
    shadows: BTreeSet<u64>,
    /// Whether all of them are good by now.
    mended: bool,
}

impl Versions {
    /// One is about to be deployed.
    pub fn deployed(&mut self, version: Version, proves_itself: bool) {
        if proves_itself {
            self.unproven.insert(version.number);
        }
        self.deployed.insert(version.number, version);
    }

    /// From now on all are good.
    pub fn mend(&mut self) {
        self.mended = true;
    }

    /// One has proved itself.
    pub fn trusted(&mut self, version: Version) {
        self.unproven.remove(&version.number);
    }

    /// One is about to run in shadow.
    pub fn shadowed(&mut self, version: Version) {
        self.shadows.insert(version.number);
    }

    /// Whether nothing that it says may be written.
    pub fn is_shadow(&self, number: u64) -> bool {
        self.shadows.contains(&number)
    }

    /// Whether it may give no event up.
    pub fn is_unproven(&self, number: u64) -> bool {
        self.unproven.contains(&number)
    }

    /// Whether it fails what a good one would not.
    pub fn is_faulty(&self, number: u64) -> bool {
        let version = self.deployed.get(&number);
        version.is_some_and(|version| version.manner != Manner::Good)
    }

    /// What one makes of an event that says `value`.
    pub fn makes_of<'a>(&self, number: u64, place: (u32, u64), value: &'a str) -> &'a str {
        let version = self.deployed.get(&number).filter(|_| !self.mended);
        version.map_or(value, |version| version.makes_of(place.0, place.1, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_fails_its_share_of_the_events_and_the_same_ones_each_time() {
        let version = Version {
            number: 7,
            manner: Manner::Fails {
                with: "reject",
                share: 0.3,
            },
        };
        let fails = |offset: &u64| version.makes_of(1, *offset, "forward") == "reject";
        let failed: Vec<_> = (0..1_000).filter(fails).collect();
        assert!((200..400).contains(&failed.len()), "{}", failed.len());
        assert_eq!(failed, (0..1_000).filter(fails).collect::<Vec<_>>());
        assert_eq!(Version::number_of(&version.digest()), Some(7));
    }
}
