//! Goes through everything that can happen to a model: every state once, nearest states first, so
//! that what it finds it tells by a shortest story.
//!
//! Of a state that was seen only a 64-bit fingerprint stays. Among a million states, two share one
//! with a probability below one in ten million.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt::Display,
    hash::{BuildHasher, Hash},
};

use foldhash::quality::FixedState;

use crate::rules::{self, Finding, Party};

/// A protocol and what may befall it.
pub(crate) trait Model {
    /// All that nodes know and messages say. Plain data.
    type State: Clone + Eq + Hash;
    /// What happens between two states; its text is a line of a story.
    type Step: Copy + Eq + Display;

    fn start(&self) -> Self::State;

    /// Everything that may happen next.
    fn steps(&self, state: &Self::State, next: &mut Next<Self>);

    /// Those who decide, always in the same order.
    fn parties(&self, state: &Self::State) -> Vec<Party>;

    /// States that differ only in who is who have one form. The search still follows the state
    /// as it was reached, so that names in a story stay with their owners.
    fn canonical(&self, state: &Self::State) -> Self::State {
        state.clone()
    }

    /// Whether somebody hears what cannot be.
    fn contradicts(&self, _: &Self::State) -> bool {
        false
    }

    /// Whether all have decided from whom it is expected.
    fn has_ended(&self, state: &Self::State) -> bool;

    /// Whether the step is taken some day, when nothing goes wrong any more.
    fn helps(&self, state: &Self::State, step: Self::Step) -> bool;

    /// A state in one line, as the last line of a story.
    fn describe(&self, state: &Self::State) -> String;
}

/// The steps out of a state, with the states behind them.
pub(crate) struct Next<M: Model + ?Sized>(Vec<(M::Step, M::State)>);

impl<M: Model + ?Sized> Next<M> {
    /// `step` leads from this state to the one that `change` makes of it, unless that is the same.
    pub(crate) fn add(
        &mut self,
        from: &M::State,
        step: M::Step,
        change: impl FnOnce(&mut M::State),
    ) {
        let mut state = from.clone();
        change(&mut state);
        if state != *from {
            self.0.push((step, state));
        }
    }
}

/// What a search saw.
pub(crate) struct Explored {
    /// States, none twice.
    pub(crate) states: usize,
    /// Steps of the longest of all shortest stories.
    pub(crate) depth: usize,
    /// Nothing was left out because of the limit. A search that ends at a tear is whole.
    pub(crate) whole: bool,
    pub(crate) worst: Option<Story>,
}

/// What was found and how it came about.
pub(crate) struct Story {
    pub(crate) finding: Finding,
    pub(crate) steps: Vec<String>,
    /// The state at its end.
    pub(crate) end: String,
}

/// Looks at all states, at most `limit`.
pub(crate) fn explore<M: Model>(model: &M, limit: usize) -> Explored {
    let mut search = Search {
        model,
        ids: HashMap::default(),
        reached: Vec::new(),
        ended: Vec::new(),
        helping: Vec::new(),
        found: BTreeMap::new(),
    };
    let start = model.start();
    search.meet(&start, None);
    let (mut layer, mut depth) = (vec![(0, start)], 0);
    let whole = loop {
        layer = search.go_on(&layer);
        depth += usize::from(!layer.is_empty());
        let fits = search.reached.len() <= limit;
        if layer.is_empty() || !fits || search.found.contains_key(&Finding::Tear) {
            break fits;
        }
    };
    if layer.is_empty() {
        search.look_for_blocked();
    }
    let worst = search.found.first_key_value();
    Explored {
        states: search.reached.len(),
        depth,
        whole,
        worst: worst.map(|(finding, (id, last))| search.story(*finding, *id, *last)),
    }
}

/// States have numbers, in the order in which they are met.
struct Search<'a, M: Model> {
    model: &'a M,
    ids: HashMap<u64, u32, FixedState>,
    /// From which state and by which step each was met first.
    reached: Vec<Option<(u32, M::Step)>>,
    ended: Vec<bool>,
    /// Steps that are taken some day: to, from.
    helping: Vec<(u32, u32)>,
    /// The nearest state of each finding, and the step from it that is the finding.
    found: BTreeMap<Finding, (u32, Option<M::Step>)>,
}

impl<M: Model> Search<'_, M> {
    /// The number of a state, and whether it is new.
    fn meet(&mut self, state: &M::State, from: Option<(u32, M::Step)>) -> (u32, bool) {
        let fingerprint = FixedState::default().hash_one(self.model.canonical(state));
        match self.ids.entry(fingerprint) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(new) => {
                let id = u32::try_from(self.reached.len()).expect("searches are limited");
                new.insert(id);
                self.reached.push(from);
                self.ended.push(self.model.has_ended(state));
                (id, true)
            }
        }
    }

    /// The states one step further than these.
    fn go_on(&mut self, layer: &[(u32, M::State)]) -> Vec<(u32, M::State)> {
        let mut further = Vec::new();
        let mut next = Next(Vec::new());
        for (id, state) in layer {
            let before = self.model.parties(state);
            self.model.steps(state, &mut next);
            for (step, state_after) in next.0.drain(..) {
                let (to, is_new) = self.meet(&state_after, Some((*id, step)));
                if self.model.helps(state, step) {
                    self.helping.push((to, *id));
                }
                let after = self.model.parties(&state_after);
                if rules::reverses(&before, &after) {
                    let reversal = (*id, Some(step));
                    self.found.entry(Finding::Reversal).or_insert(reversal);
                }
                if is_new {
                    self.judge(&state_after, &after, to);
                    further.push((to, state_after));
                }
            }
        }
        further
    }

    fn judge(&mut self, state: &M::State, parties: &[Party], id: u32) {
        if let Some(finding) = rules::broken(parties) {
            self.found.entry(finding).or_insert((id, None));
        }
        if self.model.contradicts(state) {
            let entry = self.found.entry(Finding::Contradiction);
            entry.or_insert((id, None));
        }
    }

    /// Finds the nearest state from which no helping steps lead to an end.
    ///
    /// If from every state such steps lead to an end, then every run ends in which nothing goes
    /// wrong any more and every step that is possible again and again is taken some day.
    fn look_for_blocked(&mut self) {
        self.helping.sort_unstable();
        let mut can_end = self.ended.clone();
        let mut open: Vec<u32> = (0..)
            .zip(&can_end)
            .filter_map(|(id, e)| e.then_some(id))
            .collect();
        while let Some(to) = open.pop() {
            let first = self.helping.partition_point(|edge| edge.0 < to);
            for (_, from) in self.helping[first..].iter().take_while(|edge| edge.0 == to) {
                if !std::mem::replace(&mut can_end[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        if let Some((id, _)) = (0..).zip(&can_end).find(|(_, can)| !**can) {
            self.found.insert(Finding::Blocked, (id, None));
        }
    }

    /// Plays the way to a state once more.
    fn story(&self, finding: Finding, id: u32, last: Option<M::Step>) -> Story {
        let (mut way, mut at) = (Vec::from_iter(last), id);
        while let Some((from, step)) = self.reached[at as usize] {
            way.push(step);
            at = from;
        }
        way.reverse();
        let mut state = self.model.start();
        for step in &way {
            let mut next = Next(Vec::new());
            self.model.steps(&state, &mut next);
            let taken = next.0.into_iter().find(|(possible, _)| possible == step);
            state = taken.expect("the search took this step from this state").1;
        }
        Story {
            finding,
            steps: way.iter().map(ToString::to_string).collect(),
            end: self.model.describe(&state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Explored, Finding, Model, Next, explore};
    use crate::rules::{Outcome, Party};

    /// Two parties, each of which decides some day, or what a variant makes of it.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Toy {
        /// Each copies the other.
        Agrees,
        /// Each decides as it likes.
        Tears,
        /// The second waits for one who never comes.
        Waits,
        /// What was decided is undone.
        Reverses,
        /// It commits before the other has said yes.
        Hurries,
        /// It counts to a number for ever.
        Grows,
        /// One hears what cannot be.
        Contradicts,
    }

    type State = ([Option<Outcome>; 2], u32);

    impl Toy {
        fn may_decide(self, state: &State, at: usize, outcome: Outcome) -> bool {
            let other = state.0[1 - at];
            let agrees = other.is_none_or(|other| other == outcome) || self == Self::Tears;
            let waits = self == Self::Waits && at == 1;
            state.0[at].is_none() && agrees && !waits
        }
    }

    impl Model for Toy {
        type State = State;
        type Step = char;

        fn start(&self) -> State {
            ([None; 2], 0)
        }

        fn steps(&self, state: &State, next: &mut Next<Self>) {
            let decisions = [
                ('c', 0, Outcome::Committed),
                ('a', 0, Outcome::Aborted),
                ('C', 1, Outcome::Committed),
                ('A', 1, Outcome::Aborted),
            ];
            for (step, at, outcome) in decisions {
                if self.may_decide(state, at, outcome) {
                    next.add(state, step, |s| s.0[at] = Some(outcome));
                }
            }
            if *self == Self::Reverses {
                next.add(state, 'r', |s| s.0[0] = None);
            }
            if *self == Self::Grows {
                next.add(state, '+', |s| s.1 += 1);
            }
        }

        fn parties(&self, state: &State) -> Vec<Party> {
            let said_yes = |at: usize| *self != Self::Hurries || state.0[at].is_some();
            let party = |at: usize| Party {
                decided: state.0[at],
                said_yes: said_yes(at),
            };
            vec![party(0), party(1)]
        }

        fn contradicts(&self, state: &State) -> bool {
            *self == Self::Contradicts && state.0[0].is_some() && state.0[1].is_some()
        }

        fn has_ended(&self, state: &State) -> bool {
            state.0.iter().all(Option::is_some)
        }

        fn helps(&self, _: &State, step: char) -> bool {
            step != 'r'
        }

        fn describe(&self, state: &State) -> String {
            format!("{:?}", state.0)
        }
    }

    fn found(toy: Toy) -> (Option<Finding>, String, Explored) {
        let mut explored = explore(&toy, 100);
        let story = explored.worst.take();
        let steps = story.as_ref().map(|s| s.steps.concat());
        (
            story.map(|s| s.finding),
            steps.unwrap_or_default(),
            explored,
        )
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let (finding, _, explored) = found(Toy::Agrees);
        assert_eq!(finding, None);
        // None, either alone twice, both twice.
        assert_eq!(
            (explored.states, explored.depth, explored.whole),
            (7, 2, true)
        );
    }

    #[test]
    fn each_finding_has_a_shortest_story() {
        for (toy, finding, steps) in [
            (Toy::Tears, Finding::Tear, "cA"),
            (Toy::Waits, Finding::Blocked, ""),
            (Toy::Reverses, Finding::Reversal, "cr"),
            (Toy::Hurries, Finding::UnvotedCommit, "c"),
            (Toy::Contradicts, Finding::Contradiction, "cC"),
        ] {
            let (worst, story, explored) = found(toy);
            assert_eq!(worst, Some(finding));
            assert!(explored.whole);
            assert_eq!(story, steps, "{finding:?}");
        }
    }

    #[test]
    fn a_world_that_is_too_large_is_not_whole() {
        let (finding, _, explored) = found(Toy::Grows);
        assert_eq!(finding, None);
        assert!(!explored.whole && explored.states > 100);
    }
}
