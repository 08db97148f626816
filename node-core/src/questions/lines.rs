//! A queue for each class, and who may be asked next.

use std::collections::VecDeque;
use std::time::Instant;

use super::question::{CLASSES, Class};
use super::{MAX_ASKED, QuestionId};

/// What there is of one class.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Those that may be asked now. Bound: [`Class::room`], and what was cancelled since it was last looked at.
    pub(super) ready: VecDeque<QuestionId>,
    /// How many wait, those that are asked again later included.
    pub(super) waiting: usize,
    /// How many are asked.
    pub(super) asked: usize,
    /// None is asked before then: whoever is asked has too much to do.
    pub(super) held: Option<Instant>,
}

/// All classes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    settings: Line,
    standing: Line,
    meeting: Line,
    own_records: Line,
    lookups: Line,
}

impl Lines {
    pub(super) const fn of(&self, class: Class) -> &Line {
        match class {
            Class::Settings => &self.settings,
            Class::Standing => &self.standing,
            Class::Meeting => &self.meeting,
            Class::OwnRecords => &self.own_records,
            Class::Lookups => &self.lookups,
        }
    }

    pub(super) const fn of_mut(&mut self, class: Class) -> &mut Line {
        match class {
            Class::Settings => &mut self.settings,
            Class::Standing => &mut self.standing,
            Class::Meeting => &mut self.meeting,
            Class::OwnRecords => &mut self.own_records,
            Class::Lookups => &mut self.lookups,
        }
    }

    /// May one more of `class` be asked: in one of its own places, or in one that is anybody's?
    pub(super) fn has_place(&self, class: Class) -> bool {
        let line = self.of(class);
        if line.held.is_some() || line.asked >= class.most_asked() {
            return false;
        }
        if line.asked < class.own_places() {
            return true;
        }
        let own: usize = CLASSES.iter().map(|class| class.own_places()).sum();
        let beyond = |class: &Class| self.of(*class).asked.saturating_sub(class.own_places());
        CLASSES.iter().map(beyond).sum::<usize>() < MAX_ASKED - own
    }

    /// Could something be asked now?
    pub(super) fn are_due(&self) -> bool {
        let due = |class: &Class| !self.of(*class).ready.is_empty() && self.has_place(*class);
        CLASSES.iter().any(due)
    }

    /// The next of the foremost class that may be asked.
    pub(super) fn pop(&mut self) -> Option<QuestionId> {
        let class = CLASSES
            .into_iter()
            .find(|class| !self.of(*class).ready.is_empty() && self.has_place(*class))?;
        self.of_mut(class).ready.pop_front()
    }

    /// When the next class is asked again.
    pub(super) fn next_release(&self) -> Option<Instant> {
        CLASSES
            .iter()
            .filter_map(|class| self.of(*class).held)
            .min()
    }

    /// Those that were held until `now` are asked again.
    pub(super) fn release(&mut self, now: Instant) {
        for class in CLASSES {
            self.of_mut(class).held.take_if(|until| *until <= now);
        }
    }
}
