//! What waits for the slow path: classes that are served by weight, and flows in turn within each class.
//!
//! ```text
//!   class     flows                  turn
//!   session   peer a: x x            a b ...   \
//!             peer b: x                         }-> at most `weight` of each class in a round
//!   local     tap 0:  x x x x x x x  0 1 ...   /
//!             tap 1:  x
//! ```
//!
//! A class that is full drops the oldest of its longest flow. So within a class the room and the service are shared max-min: a
//! flow that asks for less than its share gets all of it, and the rest is shared by the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Punt;
use super::class::{Class, Flow};

/// The queue between the workers and the slow path.
pub type PuntQueue = ClassQueue<Punt>;

/// A queue of classes. Bound: [`Class::bound`] for each of them; what is served leaves.
#[derive(Debug)]
pub struct ClassQueue<T> {
    classes: [Flows<T>; Class::COUNT],
    /// The place in [`Class::ALL`] of the class that is served.
    current: usize,
    /// How many more it may give in this round.
    credit: u32,
    len: usize,
}

impl<T> Default for ClassQueue<T> {
    fn default() -> Self {
        Self {
            classes: std::array::from_fn(|_| Flows::default()),
            current: 0,
            credit: Class::ALL.first().map_or(0, |class| class.weight()),
            len: 0,
        }
    }
}

impl ClassQueue<Punt> {
    /// Takes a punt. Returns the one that had to leave for it, if the class was full.
    pub fn push_punt(&mut self, punt: Punt) -> Option<Punt> {
        self.push(punt.class(), punt.flow(), punt)
    }
}

impl<T> ClassQueue<T> {
    /// How many wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Does nothing wait?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `item` wait. Returns what had to leave for it, if the class was full: the oldest of its longest flow.
    pub fn push(&mut self, class: Class, flow: Flow, item: T) -> Option<T> {
        let flows = self.classes.get_mut(class as usize)?;
        flows.push(flow, item);
        self.len += 1;
        let left = (flows.len > class.bound())
            .then(|| flows.pop_of_longest())
            .flatten();
        self.len -= usize::from(left.is_some());
        left
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<T> {
        // The class whose credit is used up has its turn again after all others.
        for _ in 0..=Class::COUNT {
            let flows = self.classes.get_mut(self.current)?;
            if self.credit > 0
                && let Some(item) = flows.pop()
            {
                self.credit -= 1;
                self.len -= 1;
                return Some(item);
            }
            self.current = (self.current + 1) % Class::COUNT;
            self.credit = Class::ALL.get(self.current)?.weight();
        }
        None
    }
}

/// The flows of one class.
#[derive(Debug)]
struct Flows<T> {
    /// No flow here is empty.
    waiting: BTreeMap<Flow, VecDeque<T>>,
    /// Each flow once, in the order in which they are served.
    turns: VecDeque<Flow>,
    /// Each flow once, by its length.
    lengths: BTreeSet<(usize, Flow)>,
    len: usize,
}

impl<T> Default for Flows<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            lengths: BTreeSet::new(),
            len: 0,
        }
    }
}

impl<T> Flows<T> {
    fn push(&mut self, flow: Flow, item: T) {
        let queue = self.waiting.entry(flow).or_default();
        if queue.is_empty() {
            self.turns.push_back(flow);
        }
        self.lengths.remove(&(queue.len(), flow));
        queue.push_back(item);
        self.lengths.insert((queue.len(), flow));
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let flow = self.turns.pop_front()?;
        let item = self.pop_of(flow);
        if self.waiting.contains_key(&flow) {
            self.turns.push_back(flow);
        }
        item
    }

    fn pop_of_longest(&mut self) -> Option<T> {
        match *self.lengths.last()? {
            // All have one: the next one goes, whoever it is.
            (1, _) => self.pop(),
            (_, flow) => self.pop_of(flow),
        }
    }

    /// The oldest of `flow`. A flow that is empty then must have had its turn.
    fn pop_of(&mut self, flow: Flow) -> Option<T> {
        let queue = self.waiting.get_mut(&flow)?;
        self.lengths.remove(&(queue.len(), flow));
        let item = queue.pop_front();
        self.len -= usize::from(item.is_some());
        if queue.is_empty() {
            self.waiting.remove(&flow);
        } else {
            self.lengths.insert((queue.len(), flow));
        }
        item
    }
}

#[cfg(test)]
mod tests;
