//! `farlan apply` while the node runs, step by step: the line's root documents, then its list, then its epochs.
//!
//! Each is on disk before the next begins. Documents and epochs that the disk refuses do not count, and the user is
//! told; the list counts in any case.

use crate::questions::Question;
use crate::store::{Done, Edit, Refused, Write, take_roots};
use anyhow::{Result, anyhow};
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::{RevocationLine, Revocations, RootStore, SignedRevocations, Taken};

use super::Standing;
use crate::node::effects::{CallId, response};
use crate::node::outside::Outside;
use crate::node::storing::{Awaited, Outcome};

/// A line under way, and who waits for it.
#[derive(Debug)]
pub(crate) struct Applying {
    line: Box<RevocationLine>,
    /// What the gate said to the list.
    taken: Taken,
    call: CallId,
}

/// What `who` applies.
fn applied(who: Option<Awaited>) -> Option<Box<Applying>> {
    match who {
        Some(Awaited::Applied(applying)) => Some(applying),
        _ => None,
    }
}

impl Standing {
    /// `farlan apply` while the node runs.
    pub(crate) fn apply(&self, out: &mut Outside, text: &str, call: CallId) {
        let read = RevocationLine::parse(text).map_err(anyhow::Error::from);
        let checked = read.and_then(|line| Ok((self.lacks_roots(&line)?, line)));
        let (lacks_roots, line) = match checked {
            Ok(checked) => checked,
            Err(error) => return out.effects.reply(call, response(Err(error))),
        };
        let applying = Box::new(Applying {
            line: Box::new(line),
            taken: Taken::Known,
            call,
        });
        if lacks_roots {
            let roots = Write::Edit(Edit::ApplyRoots(applying.line.clone()));
            out.store.put_for(roots, Awaited::Applied(applying));
        } else {
            apply_list(out, applying);
        }
    }

    /// Does the line bring root documents that this node lacks?
    fn lacks_roots(&self, line: &RevocationLine) -> Result<bool> {
        let known = self.identity.membership.roots();
        let mut roots = RootStore::clone(known);
        take_roots(&mut roots, line)?;
        Ok(roots.newest().version != known.newest().version)
    }

    /// The secret part of the line: the epochs of our networks.
    fn apply_epochs(&self, out: &mut Outside, mut applying: Box<Applying>, taken: Taken) {
        applying.taken = taken;
        if applying.line.epochs.is_empty() {
            return self.end_apply(out, *applying, Ok(Vec::new()));
        }
        let epochs = Write::Edit(Edit::ApplyEpochs(applying.line.clone()));
        out.store.put_for(epochs, Awaited::Applied(applying));
    }

    /// The line's epochs are on disk, and the networks `begun` go by them; or they do not count.
    pub(crate) fn handle_epochs_applied(
        &self,
        out: &mut Outside,
        who: Option<Awaited>,
        begun: Result<Vec<NetworkName>>,
    ) {
        if let Some(applying) = applied(who) {
            self.end_apply(out, *applying, begun);
        }
    }

    fn end_apply(&self, out: &mut Outside, applying: Applying, begun: Result<Vec<NetworkName>>) {
        let (taken, held) = (applying.taken, &self.revocations.held);
        let line = begun.map(|networks| said(taken, held, &networks));
        out.effects.reply(applying.call, response(line));
    }

    /// A list came from a peer. Only what is new and signed goes on to the gate: whoever sends anything else must not
    /// keep others from the disk.
    pub(crate) fn learn_list(&self, out: &mut Outside, from: PeerId, list: &[u8]) -> Result<()> {
        let mut next = Revocations::clone(&self.revocations.held);
        let signed = SignedRevocations::decode(list)?;
        if next.take(signed, self.known_roots())? != Taken::Known {
            out.store.put(Write::Revocations {
                list: list.to_vec(),
                from: Some(from),
            });
        }
        Ok(())
    }

    /// The gate has a list on disk and goes by it, or will not. What it says was carried out before: its book
    /// is compared ahead of each input.
    pub(crate) fn handle_list_kept(
        &self,
        out: &mut Outside,
        from: Option<PeerId>,
        who: Option<Awaited>,
        result: Outcome,
    ) {
        let taken = match result {
            Ok(Done::Taken(taken)) => Ok(taken),
            Ok(_) => Err(anyhow!("the gate did not say what became of the list")),
            Err(refused) => Err(list_refused(from, refused)),
        };
        if taken.is_ok() {
            // The control plane cuts its connections and tells the bootstraps.
            out.asking.put(Question::FollowRevocations);
        }
        let Some(applying) = applied(who) else { return };
        match taken {
            Ok(taken) => self.apply_epochs(out, applying, taken),
            Err(error) => out.effects.reply(applying.call, response(Err(error))),
        }
    }
}

/// The line's documents are on disk and `adopted`, or do not count.
pub(crate) fn handle_roots_applied(
    out: &mut Outside,
    who: Option<Awaited>,
    adopted: Result<Vec<NetworkName>>,
) {
    let Some(applying) = applied(who) else { return };
    match adopted {
        Ok(_) => apply_list(out, applying),
        Err(error) => out.effects.reply(applying.call, response(Err(error))),
    }
}

/// Nobody whom the list names may get the keys, so it comes before them.
fn apply_list(out: &mut Outside, applying: Box<Applying>) {
    let list = applying.line.list.encode();
    let write = Write::Revocations { list, from: None };
    out.store.put_for(write, Awaited::Applied(applying));
}

fn list_refused(from: Option<PeerId>, refused: Refused) -> anyhow::Error {
    if let Some(peer) = from {
        tracing::warn!(%peer, %refused, "a revocation list does not count");
    }
    refused.into()
}

/// One line for the operator.
pub fn said(taken: Taken, all: &Revocations, networks: &[NetworkName]) -> String {
    let what = match taken {
        Taken::Known => "was known already",
        Taken::Newer => "is in force",
        Taken::Rival => {
            "is in force beside another of its kind: the authority's state was copied or restored; \
             give it all lines with `farlan apply -`, and its next list unites them;"
        }
    };
    let epochs = if networks.is_empty() {
        String::new()
    } else {
        let names: Vec<_> = networks.iter().map(NetworkName::as_str).collect();
        format!("; new keys for: {}", names.join(", "))
    };
    format!(
        "the revocation {what}; entries on the list: {}{epochs}",
        all.entries().len()
    )
}
