//! What a failing seed prints: a deliberate bug must be told so that a person can follow it, and in
//! the same words each time.
#![cfg(debug_assertions)]

use millstream::mutation::{self, Mutation};
use millstream_sim::run::{report, run};
use millstream_sim::trace::MOST_LINES;

/// The first seed that shows the bug, and its report.
fn failing(mutation: Mutation) -> (u64, String) {
    mutation::with(mutation, || {
        match (0..300).find(|seed| !run(*seed).is_empty()) {
            Some(seed) => (seed, report(seed)),
            None => panic!("no seed shows the bug"),
        }
    })
}

#[test]
fn a_failing_seed_tells_what_happened_and_tells_it_again() {
    let (seed, told) = failing(Mutation::PositionOneTooHigh);
    assert!(told.starts_with(&format!("seed {seed}: ")), "{told}");
    let (head, lines) = told
        .split_once("What concerns the first of it:\n")
        .expect("there is a trace");
    assert!(lines.lines().count() <= MOST_LINES, "{told}");
    // `I4: input/PARTITION claims OFFSET (COMMAND)`
    let wrong = head.lines().nth(1).expect("something is wrong");
    let words: Vec<_> = wrong.split_whitespace().collect();
    let ["I4:", name, "claims", offset, ..] = words[..] else {
        panic!("another bug than was put in: {wrong}");
    };
    // The event was produced and fetched, and then the position moved past it.
    let steps = [
        format!("produced {name}@{offset} "),
        format!("assigned: {name} at "),
        format!("fetched: {name} from "),
        format!("committed: {name} from "),
        format!("!! {}", wrong.trim()),
    ];
    let mut rest = lines;
    for step in steps {
        let at = rest.find(&step);
        rest = &rest[at.unwrap_or_else(|| panic!("no `{step}` in its place:\n{told}"))..];
    }
    for _ in 0..3 {
        let again = mutation::with(Mutation::PositionOneTooHigh, || report(seed));
        assert_eq!(again, told);
    }
}

/// Without the versions' names nobody could tell by whose word an event was called or given up.
#[test]
fn the_report_of_a_deploy_that_goes_wrong_names_its_versions() {
    let (_, told) = failing(Mutation::ProbationGivesUp);
    let (head, lines) = told
        .split_once("What concerns the first of it:\n")
        .expect("there is a trace");
    assert!(head.contains("; deploy of "), "{told}");
    let wrong = head.lines().nth(1).expect("something is wrong");
    // `I9: version NUMBER gives EVENT up (REASON) on probation`
    let words: Vec<_> = wrong.split_whitespace().collect();
    let ["I9:", "version", number, "gives", event, "up", ..] = words[..] else {
        panic!("another bug than was put in: {wrong}");
    };
    let steps = [
        format!("deploy of version {number} "),
        format!("deployed: version {number} "),
        format!("called: version {number} with "),
        format!("of {event}, life "),
    ];
    for step in steps {
        assert!(lines.contains(&step), "no `{step}`:\n{told}");
    }
}

/// Two runs of a seed that differ would make a failure that nobody can look into.
#[test]
fn seeds_are_repeated_exactly() {
    for seed in 0..20 {
        assert_eq!(report(seed), report(seed));
    }
}
