//! From the workers to the slow path: a bounded channel for each worker and class, a queue of classes behind them, and a bell
//! (ADR 44).
//!
//! No channel has two senders, so a worker waits for nobody, and what floods one worker takes no room of another. The slow path
//! empties all channels into the queue before each turn; there nobody knows any more which worker a punt came from.

use std::sync::Arc;

use node_core::punt::class::Class;
use node_core::punt::queue::PuntQueue;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use tokio::sync::mpsc;

use super::punt::Punt;

/// One worker's end. Bound: [`Class::channel`] for each class, emptied by [`Punted::take`].
#[derive(Debug)]
pub struct PuntSender {
    classes: [mpsc::Sender<Punt>; Class::COUNT],
    bell: mpsc::Sender<()>,
}

impl PuntSender {
    /// Hands `punt` over; `false` if the channel of its class is full.
    pub(super) fn send(&self, punt: Punt) -> bool {
        let channel = self.classes.get(punt.class() as usize);
        let sent = channel.is_some_and(|channel| channel.try_send(punt).is_ok());
        // A bell that rings already is heard after this punt was put down, so it is enough.
        let _ = self.bell.try_send(());
        sent
    }
}

/// The slow path's end.
#[derive(Debug)]
pub struct Punted {
    workers: Vec<[mpsc::Receiver<Punt>; Class::COUNT]>,
    bell: mpsc::Receiver<()>,
    queue: PuntQueue,
    drops: Arc<DropCounters>,
}

/// The ends for so many workers. What finds no room is counted in `drops`.
#[must_use]
pub fn handoff(workers: usize, drops: Arc<DropCounters>) -> (Vec<PuntSender>, Punted) {
    let (ring, bell) = mpsc::channel(1);
    let one = |_| {
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for class in Class::ALL {
            let (sender, receiver) = mpsc::channel(class.channel());
            senders.push(sender);
            receivers.push(receiver);
        }
        Some((senders.try_into().ok()?, receivers.try_into().ok()?))
    };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).filter_map(one).unzip();
    let senders = senders.into_iter().map(|classes| PuntSender {
        classes,
        bell: ring.clone(),
    });
    let punted = Punted {
        workers: receivers,
        bell,
        queue: PuntQueue::default(),
        drops,
    };
    (senders.collect(), punted)
}

impl Punted {
    /// Waits until there is a punt; `false` if no worker is left. Nothing is lost if the wait is given up.
    pub async fn wait(&mut self) -> bool {
        !self.queue.is_empty() || self.bell.recv().await.is_some()
    }

    /// The next punts, `most` at most, go to the end of `punts`. Returns how many have come from the workers since the last call.
    pub fn take(&mut self, punts: &mut Vec<Punt>, most: usize) -> usize {
        let came = self.collect();
        punts.extend(std::iter::from_fn(|| self.queue.pop()).take(most));
        came
    }

    /// The next punt, if there is one.
    pub fn take_one(&mut self) -> Option<Punt> {
        self.collect();
        self.queue.pop()
    }

    /// Empties the channels into the queue. A worker that goes on meanwhile cannot hold this up: no more is taken than its
    /// channels have room for.
    fn collect(&mut self) -> usize {
        let mut came = 0;
        for classes in &mut self.workers {
            for (class, channel) in Class::ALL.into_iter().zip(classes) {
                for _ in 0..class.channel() {
                    let Ok(punt) = channel.try_recv() else { break };
                    came += 1;
                    if self.queue.push_punt(punt).is_some() {
                        self.drops.count(DropReason::PuntOverflow);
                    }
                }
            }
        }
        came
    }
}

#[cfg(test)]
mod tests {
    use overlay_proto::switching::{NetIndex, PuntReason};

    use super::*;

    fn frame(net: u16) -> Punt {
        Punt::LocalFrame {
            net: NetIndex(net),
            reason: PuntReason::SourceUnknown,
            frame: Box::default(),
        }
    }

    #[tokio::test]
    async fn a_flood_in_one_worker_takes_no_room_of_another() {
        let drops = Arc::new(DropCounters::default());
        let (senders, mut punted) = handoff(2, Arc::clone(&drops));
        let sent = (0..10_000).filter(|_| senders[0].send(frame(0))).count();
        assert_eq!(sent, Class::Local.channel());
        assert!(senders[1].send(frame(1)) && senders[0].send(Punt::TapLost { net: NetIndex(0) }));
        assert!(punted.wait().await);
        let mut punts = Vec::new();
        assert_eq!(punted.take(&mut punts, 3), Class::Local.channel() + 2);
        let nets: Vec<_> = punts
            .iter()
            .map(|punt| (punt.class(), punt.flow()))
            .collect();
        assert_eq!(nets[0].0, Class::Own);
        assert_ne!(
            nets[1].1, nets[2].1,
            "networks in turn, whose worker they came by"
        );
        assert!(
            punted.wait().await,
            "the bell was heard, the queue is not empty"
        );
        while punted.take_one().is_some() {}
        assert_eq!(drops.get(DropReason::PuntOverflow), 0);
        drop(senders);
        assert!(!punted.wait().await);
    }
}
