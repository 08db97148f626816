//! How many questions to the control plane are open, and how many wait for their turn.
//!
//! A node that joins a network of a hundred greets them all at once. What is beyond the number asked at
//! once waits: a question that is dropped is asked again only when a timer comes round, seconds later.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions asked at once; also the answers that wait for the slow path.
pub(crate) const MAX_QUESTIONS: usize = 64;

/// Questions open or waiting: most carry an envelope of up to 8 KiB, so 8 MiB.
const MAX_PLACES: usize = 1024;

/// The places of questions. Bound: [`MAX_PLACES`]; a place goes back with the question's task.
#[derive(Debug, Clone)]
pub(crate) struct QuestionPool {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// A place; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl QuestionPool {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_PLACES)),
            turns: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        }
    }

    /// A place, if there is one.
    pub(crate) fn enter(&self) -> Option<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place {
            turns: Arc::clone(&self.turns),
            _place: place,
        })
    }
}

impl Place {
    /// Waits for its turn, first come, first served; `None` if there are no turns any more.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_beyond_those_asked_at_once_waits_and_is_not_lost() {
        let pool = QuestionPool::new();
        let (done, mut all) = tokio::sync::mpsc::channel(MAX_PLACES);
        let mut taken = 0;
        while let Some(place) = pool.enter() {
            taken += 1;
            let done = done.clone();
            tokio::spawn(async move {
                let turn = place.turn().await;
                tokio::task::yield_now().await;
                let _ = done.send(turn.is_some()).await;
            });
        }
        assert_eq!(taken, MAX_PLACES);
        for _ in 0..taken {
            assert_eq!(all.recv().await, Some(true));
        }
        tokio::task::yield_now().await;
        assert!(pool.enter().is_some());
    }
}
