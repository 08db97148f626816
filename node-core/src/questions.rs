//! Questions to the control plane, as data (ADR 40).
//!
//! An owner puts a [`Question`] and hears of its [`Outcome`]. In between the question waits in the queue of its
//! class, is asked by the shell, and asked again as its kind says. Calls, in this
//! order: [`Questions::put`] at any time; [`Questions::handle_outcome`] and [`Questions::handle_timeout`] as they come;
//! then [`Questions::poll_answer`] and [`Questions::poll_question`] until both are empty.

mod lines;
mod question;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use self::lines::Lines;
use self::question::Subject;
pub use self::question::{Allocation, Failure, MAX_PERMITTED, Outcome, Question};

/// Asked at once, over all classes: their own places, and 16 for whoever needs more.
pub const MAX_ASKED: usize = 64;

/// A question is taken for lost this long after it should have been answered.
const SLACK: Duration = Duration::from_secs(2);

/// Names a question from [`Questions::put`] to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionId(u64);

/// A question and its last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What was asked.
    pub question: Question,
    /// What came of it.
    pub outcome: Outcome,
}

#[derive(Debug)]
struct Open {
    question: Question,
    /// Tries so far.
    tries: u32,
    is_asked: bool,
    /// Its entry among the timers.
    timer: Option<Instant>,
    /// It was replaced while it was asked: this one is asked next.
    newer: Option<Question>,
}

/// All questions that wait or are asked. Bounds: [`question::Class::room`] for those that wait, [`MAX_ASKED`] for the others.
#[derive(Debug, Default)]
pub struct Questions {
    next_id: u64,
    open: BTreeMap<QuestionId, Open>,
    subjects: BTreeMap<Subject, QuestionId>,
    lines: Lines,
    /// Those that are asked, and when they count as lost; those that are asked again, and when.
    timers: BTreeSet<(Instant, QuestionId)>,
    /// Bound: what was put and what came since they were last taken.
    answers: VecDeque<Answered>,
}

impl Questions {
    /// Asks `question` when its turn comes. One of the same subject that waits is replaced by it; one that is asked
    /// already answers for both where nothing in it could differ, and else is followed by it. Without room its
    /// answer is [`Failure::NoRoom`].
    pub fn put(&mut self, question: Question) {
        let subject = question.subject();
        if let Some(open) = subject
            .as_ref()
            .and_then(|subject| self.subjects.get(subject))
            .and_then(|id| self.open.get_mut(id))
        {
            if !open.is_asked {
                open.question = question;
            } else if open.question != question {
                open.newer = Some(question);
            } else {
                open.newer = None;
            }
            return;
        }
        let class = question.class();
        if self.lines.of(class).waiting >= class.room() {
            return self.answer(question, Outcome::Failed(Failure::NoRoom));
        }
        let id = QuestionId(self.next_id);
        self.next_id += 1;
        if let Some(subject) = subject {
            self.subjects.insert(subject, id);
        }
        self.open.insert(
            id,
            Open {
                question,
                tries: 0,
                is_asked: false,
                timer: None,
                newer: None,
            },
        );
        let line = self.lines.of_mut(class);
        line.waiting += 1;
        line.ready.push_back(id);
    }

    /// The shell has carried `id` out. One that was cancelled or given up meanwhile is nobody's.
    pub fn handle_outcome(&mut self, now: Instant, id: QuestionId, outcome: Outcome) {
        let Some(mut open) = self.open.remove(&id) else {
            return;
        };
        if !open.is_asked {
            // An answer to a try that was given up, while the next one waits.
            self.open.insert(id, open);
            return;
        }
        open.is_asked = false;
        self.stop_timer(id, &mut open);
        let class = open.question.class();
        self.lines.of_mut(class).asked -= 1;
        if let Some(newer) = open.newer.take() {
            self.answer(open.question, outcome);
            open.question = newer;
            open.tries = 0;
            return self.wait(id, open, None);
        }
        if let Outcome::Failed(failure) = outcome
            && let Some(wait) = open.question.again(open.tries, failure)
        {
            if class.holds() && failure == Failure::Busy {
                self.lines.of_mut(class).held = Some(now + wait);
            }
            return self.wait(id, open, Some(now + wait));
        }
        if let Some(subject) = open.question.subject() {
            self.subjects.remove(&subject);
        }
        self.answer(open.question, outcome);
    }

    /// Gives up what was not answered in time, and readies what is to be asked again.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.lines.release(now);
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(open) = self.open.get_mut(&id) else {
                continue;
            };
            open.timer = None;
            if open.is_asked {
                self.handle_outcome(now, id, Outcome::Failed(Failure::NoAnswer));
            } else {
                self.lines.of_mut(open.question.class()).ready.push_back(id);
            }
        }
    }

    /// When [`Questions::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = self.lines.next_release();
        let timer = self.timers.first().map(|(at, _)| *at);
        [held, timer].into_iter().flatten().min()
    }

    /// Nobody waits for those that `whose` names any more; what comes of them is not told.
    pub fn cancel(&mut self, whose: impl Fn(&Question) -> bool) {
        let gone: Vec<QuestionId> = self
            .open
            .iter()
            .filter(|(_, open)| whose(&open.question))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let Some(mut open) = self.open.remove(&id) else {
                continue;
            };
            self.stop_timer(id, &mut open);
            let line = self.lines.of_mut(open.question.class());
            if open.is_asked {
                line.asked -= 1;
            } else {
                line.waiting -= 1;
            }
            if let Some(subject) = open.question.subject() {
                self.subjects.remove(&subject);
            }
        }
    }

    /// The next one to be carried out.
    pub fn poll_question(&mut self, now: Instant) -> Option<(QuestionId, Question)> {
        loop {
            let id = self.lines.pop()?;
            // It may have been cancelled.
            let Some(open) = self.open.get_mut(&id) else {
                continue;
            };
            let lost_at = now + open.question.patience() + SLACK;
            (open.tries, open.is_asked, open.timer) = (open.tries + 1, true, Some(lost_at));
            self.timers.insert((lost_at, id));
            let line = self.lines.of_mut(open.question.class());
            line.waiting -= 1;
            line.asked += 1;
            return Some((id, open.question.clone()));
        }
    }

    /// The next last word, for the owner of the question.
    pub fn poll_answer(&mut self) -> Option<Answered> {
        self.answers.pop_front()
    }

    /// Is there an answer to take, or a question to carry out now?
    pub fn is_due(&self) -> bool {
        !self.answers.is_empty() || self.lines.are_due()
    }

    fn wait(&mut self, id: QuestionId, mut open: Open, until: Option<Instant>) {
        let class = open.question.class();
        open.timer = until;
        self.open.insert(id, open);
        let line = self.lines.of_mut(class);
        line.waiting += 1;
        match until {
            Some(until) => {
                self.timers.insert((until, id));
            }
            None => line.ready.push_back(id),
        }
    }

    fn stop_timer(&mut self, id: QuestionId, open: &mut Open) {
        if let Some(at) = open.timer.take() {
            self.timers.remove(&(at, id));
        }
    }

    fn answer(&mut self, question: Question, outcome: Outcome) {
        self.answers.push_back(Answered { question, outcome });
    }
}

#[cfg(test)]
mod tests;
