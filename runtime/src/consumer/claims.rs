//! At most once: a batch is claimed, by committing the position behind it, before the plugin sees it.
//!
//! ```text
//! lane ─▶ waiting ──commit──▶ claimed ──committed──▶ call
//! ```
//! One commit claims all batches that wait for it.

use super::guard::Witness;
use super::runner::LaneId;
use super::work::Work;

/// A batch on its way to a call.
pub type Claim = (LaneId, Work, Witness);

/// See the module.
#[derive(Default)]
pub struct Claims {
    waiting: Vec<Claim>,
    /// Those that the commit under way claims.
    claimed: Vec<Claim>,
}

impl Claims {
    /// How many batches are on their way.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.claimed.len()
    }

    /// Whether a commit claims some batches now.
    pub fn is_claiming(&self) -> bool {
        !self.claimed.is_empty()
    }

    /// Adds a batch.
    pub fn add(&mut self, id: LaneId, work: Work, witness: Witness) {
        self.waiting.push((id, work, witness));
    }

    /// A commit begins: all that wait are claimed by it.
    pub fn claim(&mut self) -> &[Claim] {
        self.claimed.append(&mut self.waiting);
        &self.claimed
    }

    /// The commit took effect: the plugin may see these.
    pub fn take(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.claimed)
    }

    /// Takes back what no commit claimed yet, of one assignment or of all.
    pub fn withdraw(&mut self, assignment: Option<u64>) -> Vec<Claim> {
        let of = |claim: &mut Claim| assignment.is_none_or(|id| claim.0.assignment == id);
        self.waiting.extract_if(.., of).collect()
    }
}
