//! `farlan join` asks the witness of the invite at once, where it can be reached: whether the invite
//! is used up shows now, and not in the log of a node that cannot get in.
//!
//! The question is what `farlan up` would do first: a control connection to the witness, whose
//! admission gives the receipt. It needs no rights on the network, listens nowhere and ends after
//! [`PATIENCE`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use control_plane::{ControlConfig, ControlEvent, Multiaddr, addr, spawn};
use control_proto::admission::gates::MemberState;
use control_proto::admission::{Admitted, Gatekeeper, MemberGate, Refusal};
use control_proto::records::SignedRecords;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    Chain, Membership, MembershipError, NodeKey, Revocations, SignedPart, Taken, WitnessRefusal,
    bootstrap_peer,
};
use overlay_proto::time::UnixTime;
use tokio::time::{Instant, timeout, timeout_at};

/// A person waits for it.
const PATIENCE: Duration = Duration::from_secs(4);

/// The witness's answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// The certificate with its receipt.
    Given(Box<Chain>),
    /// It will not give one, whenever it is asked again: what, why, what to do.
    Refused(String),
    /// No answer: why.
    Silent(String),
}

/// The gate of a member that remembers why it or the other side said no.
struct Listening {
    gate: MemberGate,
    refusal: Mutex<Option<Refusal>>,
}

impl Gatekeeper for Listening {
    fn own_hello(&self) -> Vec<u8> {
        self.gate.own_hello()
    }

    fn answer(&self, verdict: &Result<Admitted, Refusal>) -> Option<Vec<u8>> {
        self.gate.answer(verdict)
    }

    fn receipt(
        &self,
        peer: PeerId,
        chain: &[u8],
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        self.gate.receipt(peer, chain, now)
    }

    fn wants_lists(&self, peer: PeerId, hello: &[u8], now: UnixTime) -> bool {
        self.gate.wants_lists(peer, hello, now)
    }

    fn has_ended(&self, until: UnixTime, now: UnixTime) -> bool {
        self.gate.has_ended(until, now)
    }

    fn revocations(&self) -> Arc<Revocations> {
        self.gate.revocations()
    }

    fn take_revocations(&self, list: &[u8]) -> Result<Taken, MembershipError> {
        self.gate.take_revocations(list)
    }

    fn admit(
        &self,
        peer: PeerId,
        hello: &[u8],
        we_dialed: bool,
        now: UnixTime,
    ) -> Result<Admitted, Refusal> {
        let verdict = self.gate.admit(peer, hello, we_dialed, now);
        if let Err(refusal) = &verdict {
            let mut last = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(refusal.clone());
        }
        verdict
    }
}

/// Asks the witness of `chain` for its receipt.
///
/// # Errors
/// The system refuses what every program may do.
pub(super) fn ask(
    key: &NodeKey,
    membership: &Membership,
    revocations: &Revocations,
    chain: &Chain,
) -> Result<Asked> {
    let witness = chain.claimed_witness();
    let addresses = membership.bootstraps().iter();
    let addresses: Vec<Multiaddr> = addresses
        .filter(|address| bootstrap_peer(address) == Some(witness))
        .filter_map(|address| address.parse().ok())
        .collect();
    if addresses.is_empty() {
        return Ok(Asked::Silent(
            "the invite has no address of its witness".to_owned(),
        ));
    }
    let state = MemberState {
        roots: membership.roots().clone(),
        chain: chain.encode(),
        bootstraps: vec![witness],
    };
    let gate = Arc::new(Listening {
        gate: MemberGate::new(state, revocations.clone(), None),
        refusal: Mutex::default(),
    });
    let config = ControlConfig {
        secret_key: key.secret_bytes(),
        listen: Vec::new(),
        external: Vec::new(),
        bootstraps: addresses.clone(),
        gate: Arc::<Listening>::clone(&gate),
        records: Arc::new(SignedRecords {
            overlay: membership.overlay(),
        }),
        kad_server: false,
        relay: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let asked = runtime.block_on(exchange(config, &gate, &addresses));
    // Name look-ups and sockets that hang must not hold the command.
    runtime.shutdown_background();
    asked
}

async fn exchange(
    config: ControlConfig,
    gate: &Listening,
    addresses: &[Multiaddr],
) -> Result<Asked> {
    let (control, mut events) = spawn(config).context("cannot ask the bootstrap")?;
    let until = Instant::now() + PATIENCE;
    let mut silent: Vec<(Multiaddr, String)> = Vec::new();
    let asked = loop {
        let event = match timeout_at(until, events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) | Err(_) => break Asked::Silent(why(&silent)),
        };
        match event {
            ControlEvent::InfraUp { .. } => {
                let chain = Chain::decode(&gate.gate.chain())?;
                break Asked::Given(Box::new(chain));
            }
            ControlEvent::Refused { addr, reason } | ControlEvent::Unreachable { addr, reason } => {
                if let Some(refused) = gate.final_word(control.local_peer()) {
                    break Asked::Refused(refused);
                }
                let bare = addr::without_peer(&addr);
                silent.retain(|(known, _)| *known != bare);
                silent.push((bare, reason));
                if silent.len() >= addresses.len() {
                    // Each has been tried, and a second try soon after tells nothing new.
                    break Asked::Silent(why(&silent));
                }
            }
            _ => {}
        }
    };
    // Best effort: the process ends anyhow.
    let _ = timeout(Duration::from_millis(300), control.stop()).await;
    Ok(asked)
}

fn why(silent: &[(Multiaddr, String)]) -> String {
    if silent.is_empty() {
        return format!("no answer in {} s", PATIENCE.as_secs());
    }
    let each = silent
        .iter()
        .map(|(addr, reason)| format!("{addr}: {reason}"));
    each.collect::<Vec<_>>().join("; ")
}

impl Listening {
    /// What no further question would change.
    fn final_word(&self, me: PeerId) -> Option<String> {
        let last = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref()? {
            Refusal::NoReceipt(WitnessRefusal::Unable) => None,
            Refusal::NoReceipt(WitnessRefusal::Revoked) | Refusal::WeAreRevoked => {
                Some(if self.gate.revocations().names_node(me) {
                    identity_is_revoked(me)
                } else {
                    "the authority has revoked this invite; ask it for a new one".to_owned()
                })
            }
            Refusal::NoReceipt(refusal) => Some(refusal.to_string()),
            _ => None,
        }
    }
}

/// A new invite does not bring back an identity that is revoked.
pub(super) fn identity_is_revoked(me: PeerId) -> String {
    format!(
        "the authority has revoked this node's identity ({me}), and no invite brings that back; leave, \
         then join again: `farlan leave --yes`, then `farlan join -` with a new invite"
    )
}
