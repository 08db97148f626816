//! What is kept on disk of peers, so that after a restart they are met again without a bootstrap.
//!
//! Roster entries and certificates are in the blobs of the directories, one for each network. Here
//! is the rest, one list for the node: where each peer can be reached, and the key of its
//! handshakes. A handshake proves the peer anew, so nothing here has to be trusted.

use std::net::SocketAddr;

use crate::store::Write;
use anyhow::{Context, Result};
use nat_traversal::candidate::{Candidate, MAX_CANDIDATES};
use overlay_proto::ids::PeerId;
use serde::{Deserialize, Serialize};

use super::{MAX_PEERS, Peers};
use crate::node::outside::Outside;

/// A list of another version is not read: peers are then met through a bootstrap, as at first.
const VERSION: u8 = 3;

/// One peer. At most [`MAX_PEERS`] of about 700 bytes are kept, 3 MB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) id: PeerId,
    pub(crate) static_key: [u8; 32],
    pub(crate) name: Option<String>,
    /// What its last card said: a session that begins anew brings no card.
    pub(crate) said: Option<String>,
    /// Of the list of candidates.
    pub(crate) sequence: u64,
    pub(crate) candidates: Vec<Candidate>,
    /// Where it was last reached directly: behind some NATs none of its candidates is that.
    pub(crate) met_at: Option<SocketAddr>,
}

impl Peers {
    /// Saves the peers if something worth keeping has changed.
    pub(crate) fn save(&mut self, out: &mut Outside) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let peers: Vec<Remembered> = self
            .known
            .values()
            .filter_map(|peer| peer.remember())
            .take(MAX_PEERS)
            .collect();
        match encode(&peers) {
            Ok(bytes) => drop(out.store.put(Write::Peers(bytes))),
            Err(error) => tracing::error!("the addresses of the peers were not saved: {error:#}"),
        }
    }
}

/// The peers of the run before: none if they cannot be read.
pub(crate) fn read(saved: Result<Option<Vec<u8>>>) -> Vec<Remembered> {
    match saved.and_then(|bytes| bytes.map_or(Ok(Vec::new()), |b| decode(&b))) {
        Ok(mut peers) => {
            peers.truncate(MAX_PEERS);
            peers
        }
        Err(error) => {
            tracing::warn!("the saved addresses of the peers are unreadable: {error:#}");
            Vec::new()
        }
    }
}

fn encode(peers: &[Remembered]) -> Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(peers).context("cannot be encoded")?);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Vec<Remembered>> {
    let Some((&VERSION, body)) = bytes.split_first() else {
        anyhow::bail!("another version");
    };
    let mut peers: Vec<Remembered> = postcard::from_bytes(body).context("damaged")?;
    for peer in &mut peers {
        peer.candidates.truncate(MAX_CANDIDATES);
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use nat_traversal::candidate::CandidateKind;

    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let peer = Remembered {
            id: PeerId([1; 32]),
            static_key: [2; 32],
            name: Some("oak".to_owned()),
            said: Some("acorn".to_owned()),
            sequence: 7,
            candidates: vec![Candidate {
                kind: CandidateKind::Reflexive,
                addr: "192.0.2.4:22611".parse().unwrap(),
                allocation: None,
                relay: None,
            }],
            met_at: Some("[2001:db8::4]:9".parse().unwrap()),
        };
        let bytes = encode(std::slice::from_ref(&peer)).unwrap();
        assert_eq!(decode(&bytes).unwrap(), vec![peer]);
        assert!(decode(&bytes[1..]).is_err());
        assert!(decode(&[]).is_err());
    }
}
