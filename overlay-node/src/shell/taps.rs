//! The open taps: a queue for each worker, and one to write frames of the slow path's own by.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context, Result};
use node_core::attachment::Attachment;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::NetIndex;
use tap_bridge::TapQueue;

use crate::attachments::AttachmentRecord;
use crate::workers::{TapSet, TapWriter, WorkerPool};
use node_core::node::host_orders::Tap;

/// An open tap.
struct OpenTap {
    record: AttachmentRecord,
    /// Workers and [`TapWriter`] have clones. Not empty.
    queues: Vec<TapQueue>,
}

impl OpenTap {
    /// Is it the interface that is named `tap` now?
    fn is_on(&self, tap: &str) -> bool {
        let is_it = |queue: &TapQueue| queue.interface().as_deref() == Some(tap);
        self.queues.iter().all(is_it)
    }
}

/// All of a node: one for each attached network at most.
pub(crate) struct Taps {
    open: BTreeMap<NetIndex, OpenTap>,
    writer: TapWriter,
}

impl Taps {
    pub(crate) const fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            writer: TapWriter::new(Vec::new()),
        }
    }

    /// Writes a frame into the tap of `net`.
    ///
    /// # Errors
    /// As [`TapWriter::write`].
    pub(crate) fn write(&mut self, net: NetIndex, frame: &[u8]) -> Result<(), DropReason> {
        self.writer.write(net, frame)
    }

    /// A worker met the end of the tap of `net`. `false`: the word is late, the tap was made and opened again.
    pub(crate) fn lose(&mut self, net: NetIndex) -> bool {
        let lost = |tap: &OpenTap| !tap.is_on(&tap.record.tap);
        let is_lost = self.open.get(&net).is_none_or(lost);
        if is_lost {
            self.open.remove(&net);
        }
        is_lost
    }

    /// Is everything open that `record`s of `networks` say is there?
    pub(crate) fn are_as(
        &self,
        networks: &[(NetIndex, NetworkName)],
        records: &[AttachmentRecord],
    ) -> bool {
        networks.iter().all(|(net, name)| {
            let record = records.iter().find(|record| record.network == *name);
            let open = self.open.get(net);
            record.is_none_or(|record| {
                open.is_some_and(|tap| tap.record == *record && tap.is_on(&record.tap))
            })
        })
    }

    /// Opens the taps of `records`; those that are open stay open, others are closed. The workers get theirs.
    ///
    /// # Errors
    /// Without the right to open taps no network works, now or later.
    pub(crate) fn open(
        &mut self,
        workers: &WorkerPool,
        networks: &[(NetIndex, NetworkName)],
        records: &[AttachmentRecord],
    ) -> Result<Vec<(NetIndex, Tap)>> {
        let mut for_workers: Vec<TapSet> = Vec::new();
        for_workers.resize_with(workers.len(), TapSet::new);
        let mut own = TapSet::new();
        let mut all = Vec::new();
        for (net, name) in networks {
            let before = self.open.remove(net);
            let record = records.iter().find(|record| record.network == *name);
            let opened = record.map(|record| open(before, record, workers.len()));
            let tap = match opened.transpose() {
                Ok(Some((tap, queues, writer))) => {
                    for (taps, queue) in for_workers.iter_mut().zip(queues) {
                        taps.push((*net, Box::new(queue)));
                    }
                    own.push((*net, Box::new(writer)));
                    let attached = Box::new(Attachment::from(&tap.record));
                    self.open.insert(*net, tap);
                    Tap::Open(attached)
                }
                Ok(None) => Tap::None,
                Err(error) if is_missing_right(&error) => return Err(error),
                Err(error) if is_missing_tap(&error) => Tap::None,
                // One network without a tap does not keep the others from working.
                Err(error) => Tap::Refused(format!("{error:#}")),
            };
            all.push((*net, tap));
        }
        for (worker, taps) in for_workers.into_iter().enumerate() {
            workers.set_taps(worker, taps);
        }
        self.writer = TapWriter::new(own);
        Ok(all)
    }
}

/// The tap of `record`, and clones of its queues: one for each worker, and the first once more for the writer.
fn open(
    before: Option<OpenTap>,
    record: &AttachmentRecord,
    workers: usize,
) -> Result<(OpenTap, Vec<TapQueue>, TapQueue)> {
    let offload = record.switches.offload;
    let mut queues = match before.filter(|tap| tap.is_on(&record.tap)) {
        Some(tap) => tap.queues,
        None => TapQueue::open_all(&record.tap, offload, workers)?,
    };
    for queue in &mut queues {
        queue.set_offload(offload)?;
    }
    let clones = queues.iter().map(TapQueue::try_clone);
    let clones = clones.collect::<io::Result<Vec<_>>>()?;
    let first = queues.first().context("a tap has a queue")?;
    let writer = first.try_clone()?;
    let record = record.clone();
    Ok((OpenTap { record, queues }, clones, writer))
}

fn is_missing_tap(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(tap_bridge::Error::NoSuchInterface { .. })
    )
}

fn is_missing_right(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(tap_bridge::Error::NotPermitted { .. })
    )
}
