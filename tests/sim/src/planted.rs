//! Bugs planted on purpose: each must be found.

use crate::Violation;

/// Seeds after which a bug counts as not found.
pub const SEEDS: u64 = 500;

/// What came of looking for one planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: &'static str,
    /// The first seed that found it, and how.
    pub by: Option<(u64, Violation)>,
}

/// The names of all planted bugs; none unless the crate is built with `planted-bugs`.
#[must_use]
pub fn names() -> Vec<&'static str> {
    bugs().into_iter().map(|(name, _)| name).collect()
}

/// Looks for every planted bug, one after the other; `tell` hears what came of each.
pub fn find_all(tell: &mut dyn FnMut(&Found)) -> Vec<Found> {
    let find = |(name, plant): (&'static str, Box<dyn Fn(bool)>)| {
        plant(true);
        let summary = crate::run_many(0, SEEDS, true, &|_, _| {});
        plant(false);
        let first = summary.broken.into_iter().next();
        let by = first.and_then(|(seed, run)| Some((seed, run.violation?)));
        let found = Found { name, by };
        tell(&found);
        found
    };
    bugs().into_iter().map(find).collect()
}

type Planted = (&'static str, Box<dyn Fn(bool)>);

#[cfg(not(feature = "planted-bugs"))]
fn bugs() -> Vec<Planted> {
    Vec::new()
}

#[cfg(feature = "planted-bugs")]
fn bugs() -> Vec<Planted> {
    use accede_core::planted as core;
    use accede_log::planted as log;

    let in_core = core::Bug::ALL.into_iter().map(|bug| -> Planted {
        (
            bug.name(),
            Box::new(move |on| core::plant(on.then_some(bug))),
        )
    });
    let in_log = log::Bug::ALL.into_iter().map(|bug| -> Planted {
        (
            bug.name(),
            Box::new(move |on| log::plant(on.then_some(bug))),
        )
    });
    in_core.chain(in_log).collect()
}
