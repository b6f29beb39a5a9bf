//! What all checks share: the files, the environment and the list of what is wrong.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::environment::Environment;
use super::problem::Problem;
use super::source::Sources;

/// What all checks share.
pub struct Checks<'a> {
    pub sources: &'a Sources,
    pub environment: &'a Environment<'a>,
    problems: RefCell<Vec<Problem>>,
    /// Every key that was asked for, with its path.
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Checks<'a> {
    /// Nothing checked yet.
    pub fn new(sources: &'a Sources, environment: &'a Environment<'a>) -> Self {
        Self {
            sources,
            environment,
            problems: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Reports a problem.
    pub fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Notes that a key is known.
    pub fn note(&self, path: String) {
        self.asked.borrow_mut().insert(path);
    }

    /// All that was reported, and every key that is known.
    pub fn finish(self) -> (Vec<Problem>, BTreeSet<String>) {
        (self.problems.into_inner(), self.asked.into_inner())
    }
}
