//! What is asked of the host's packet filter for our own bridges: passage for bridged IP
//! ([`tap_bridge::firewall`]), and that loops are held ([`tap_bridge::loop_filter`]).
//!
//! The rules need no record: they name a bridge that is recorded as ours and its tap, and nothing else.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tap_bridge::firewall::{self, Opening};
use tap_bridge::loop_filter;

use super::store::{AttachmentRecord, Book};

/// Held while rules change: a check under way must not put back the rules of a bridge that is being
/// detached.
static CHANGING: Mutex<()> = Mutex::new(());

/// Lets IP pass on the bridge of `record` and holds loops there if it is ours, else tells what to type.
/// One line each for the user.
pub(super) async fn open(record: &AttachmentRecord) -> Vec<String> {
    let record = record.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let bridge = &record.bridge;
        if record.bridge_is_ours {
            let mut told = lines(bridge, &firewall::open(bridge), true);
            told.extend(hold_loops(&record));
            told
        } else {
            lines(bridge, &firewall::needed(bridge), false)
        }
    });
    opened.await.unwrap_or_default()
}

/// Takes the rules for the bridges of `records` away; they are no longer in the record on disk.
pub(super) async fn close(bridge: String) {
    let closed = tokio::task::spawn_blocking(move || {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        firewall::close(&bridge);
        loop_filter::release(&bridge);
    });
    if let Err(error) = closed.await {
        tracing::warn!(%error, "the firewall's rules were not taken away");
    }
}

/// The NIC has left `bridge`: what goes round there need not be held.
pub(super) async fn without_nic(bridge: String) {
    let released = tokio::task::spawn_blocking(move || {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        loop_filter::release(&bridge);
    });
    if let Err(error) = released.await {
        tracing::warn!(%error, "the table that holds loops was not taken away");
    }
}

/// Puts back what a restart of the firewall removed, for every bridge of ours in `dir`; one line
/// for each rule. Starts programs: for a thread that may wait. A failure that `known` holds is not
/// told again.
pub fn keep_open(dir: &Path, known: &mut Vec<String>) -> Vec<String> {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(book) = Book::load(dir) else {
        return Vec::new();
    };
    let ours = book
        .attachments
        .iter()
        .filter(|record| record.bridge_is_ours);
    let mut failed = Vec::new();
    let mut told = Vec::new();
    for record in ours {
        let openings = firewall::open(&record.bridge);
        let (bad, good): (Vec<_>, Vec<_>) =
            openings.into_iter().partition(|one| one.not_done.is_some());
        told.extend(lines(&record.bridge, &good, true));
        failed.extend(lines(&record.bridge, &bad, true));
        failed.extend(hold_loops(record));
    }
    told.extend(failed.iter().filter(|line| !known.contains(line)).cloned());
    *known = failed;
    told
}

/// Holds loops on the own bridge of `record` while a NIC is on it, since all that crosses the bridge pays for it (ADR 32);
/// a line if that cannot be.
fn hold_loops(record: &AttachmentRecord) -> Option<String> {
    record.nic.as_ref()?;
    let bridge = &record.bridge;
    let why = loop_filter::hold(bridge, &record.tap).err()?;
    Some(format!(
        "note: a loop of {bridge} is shut, but what goes round until then is not held ({why}); that takes \
         the program nft, of nftables"
    ))
}

fn lines(bridge: &str, openings: &[Opening], ours: bool) -> Vec<String> {
    let line = |opening: &Opening| {
        let Opening {
            family,
            command,
            not_done,
        } = opening;
        match not_done {
            None => format!("the firewall drops {family} on {bridge}; allowed it: {command}"),
            Some(why) if ours => format!(
                "warning: the firewall drops {family} on {bridge}, and it was not allowed ({why}); \
                 type: {command}"
            ),
            Some(_) => format!(
                "warning: the firewall drops {family} on {bridge}, which Farlan did not make; to \
                 allow it type: {command}"
            ),
        }
    };
    openings.iter().map(line).collect()
}
