//! Whether a transaction took effect whose commit is in doubt.
//!
//! ```text
//! commit ─ of ─▶ certain
//!          └───▶ in doubt ─▶ Register ─▶ Read ─▶ took effect, or had none
//! ```
//! A request to commit may reach the coordinator late, or its answer get lost. Only after a new
//! producer of the same transactional id is registered can nothing of the old one take effect any
//! more; then the committed positions, which are part of the transaction, are the truth.

use std::time::Duration;

use super::offsets::Progress;
use crate::mutation::{self, Mutation};

/// A commit that took longer is in doubt: its request may have been sent twice.
const LONG: Duration = Duration::from_secs(2);

/// Why nobody knows whether a commit took effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Whatever the answer says: the request may have reached the coordinator.
    #[error("{0}")]
    Failed(String),
    /// What the answer says may be about a request that was sent again.
    #[error("a connection ended while it was committed")]
    Disconnected,
    #[error("the commit took long")]
    Long,
}

/// Whether the answer to a commit is certain. `lost` connections ended while it was under way,
/// which it was for `took`.
///
/// # Errors
/// Why it is not.
pub fn of(answer: Result<(), String>, lost: u64, took: Duration) -> Result<(), Doubt> {
    match answer {
        Err(reason) => Err(Doubt::Failed(reason)),
        Ok(()) if mutation::is(Mutation::DoubtIgnored) => Ok(()),
        Ok(()) if lost > 0 => Err(Doubt::Disconnected),
        Ok(()) if took > LONG => Err(Doubt::Long),
        Ok(()) => Ok(()),
    }
}

/// What is to be done next to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Register a new producer of the same transactional id, which ends what is open; another id
    /// would end nothing.
    Register,
    /// Read the committed positions, then ask [`Resolution::took_effect`].
    Read,
}

/// The way from a doubt to its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resolution {
    registered: bool,
}

impl Resolution {
    /// What is next; a step that fails is taken again.
    pub fn step(&self) -> Step {
        match self.registered {
            true => Step::Read,
            false => Step::Register,
        }
    }

    /// The new producer is registered.
    pub fn registered(&mut self) {
        self.registered = true;
    }

    /// Whether the transaction took effect: its positions, each with the one that is committed now.
    /// Without any position it counts as without effect.
    ///
    /// Who took a partition over meanwhile can only have moved it on. Whether the transaction had an
    /// effect is then seen by its other partitions, for it has one on all or on none.
    pub fn took_effect<'a>(
        &self,
        positions: impl IntoIterator<Item = (&'a Progress, Option<&'a Progress>)>,
    ) -> bool {
        if mutation::is(Mutation::DoubtTakenForEffect) {
            return true;
        }
        let mut positions = positions.into_iter().peekable();
        positions.peek().is_some()
            && !mutation::is(Mutation::DoubtTakenForAbort)
            && positions.all(|(wanted, found)| found.is_some_and(|found| found.includes(wanted)))
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "one settled range is what is meant"
)]
mod tests {
    use super::*;

    fn above(next: u64, above: &[std::ops::Range<u64>]) -> Progress {
        Progress {
            above: above.to_vec(),
            ..Progress::at(next)
        }
    }

    fn took_effect(positions: &[(Progress, Option<Progress>)]) -> bool {
        let positions = positions
            .iter()
            .map(|(wanted, found)| (wanted, found.as_ref()));
        Resolution::default().took_effect(positions)
    }

    /// librdkafka sends the request again after these, and may report the success of another one.
    #[test]
    fn only_a_quick_and_undisturbed_success_is_certain() {
        let quick = Duration::from_millis(3);
        assert_eq!(of(Ok(()), 0, quick), Ok(()));
        assert_eq!(of(Ok(()), 1, quick), Err(Doubt::Disconnected));
        assert_eq!(of(Ok(()), 0, LONG + quick), Err(Doubt::Long));
        let failed = of(Err("fenced".to_owned()), 0, quick);
        assert_eq!(failed, Err(Doubt::Failed("fenced".to_owned())));
    }

    #[test]
    fn positions_are_read_only_once_the_old_producer_can_do_nothing() {
        let mut resolution = Resolution::default();
        assert_eq!(resolution.step(), Step::Register);
        resolution.registered();
        assert_eq!(resolution.step(), Step::Read);
    }

    #[test]
    fn the_committed_positions_decide() {
        let wanted = above(10, &[12..14]);
        let found = |found: Progress| took_effect(&[(wanted.clone(), Some(found))]);
        assert!(found(wanted.clone()));
        assert!(!found(above(10, &[])));
        assert!(!found(above(9, &[12..14])));
        assert!(!took_effect(&[(wanted.clone(), None)]));
        assert!(!took_effect(&[]));
    }

    /// Taken for an abort, the units of the partitions that stayed would be written a second time.
    #[test]
    fn a_new_owner_may_have_moved_a_partition_on_above_its_position_too() {
        let (stayed, moved) = (above(5, &[]), above(10, &[12..14]));
        for now in [
            above(10, &[12..14, 16..17]),
            above(10, &[12..17]),
            above(20, &[]),
        ] {
            assert!(took_effect(&[
                (stayed.clone(), Some(stayed.clone())),
                (moved.clone(), Some(now.clone())),
            ]));
            // It moved without us: the partition that stayed tells.
            assert!(!took_effect(&[
                (stayed.clone(), Some(above(4, &[]))),
                (moved.clone(), Some(now)),
            ]));
        }
    }
}
