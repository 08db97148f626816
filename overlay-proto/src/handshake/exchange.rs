//! The steps of a handshake: [`initiate`], [`read_request`] and [`respond`], [`finish`].

use nat_traversal::entropy::Entropy;
use snow::HandshakeState;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::{OverlaySecret, mac1_key, psk};
use crate::session::{RawSplit, Role, SharedNetwork, Suite};
use crate::time::UnixTime;
use crate::wire::{DatagramKind, SessionIndex};

use super::cookie::{self, Cookie};
use super::message::{
    Envelope, ListNumbers, MACS_LEN, MESSAGE1_LEN, Offer, Payload1, Payload2, Terms, WIRE_VERSION,
    mac1, wrap,
};
use super::noise::{self, NoiseSetup};

/// Checks who a peer is. Implemented by the membership side.
pub trait PeerVerifier {
    /// Checks a certificate chain and its last link, the signed x25519 static key, at `wall`.
    ///
    /// # Errors
    /// `CertificateRefused`, or a more precise reason.
    fn verify(
        &self,
        chain: &[u8],
        signed_static: &[u8],
        wall: UnixTime,
    ) -> Result<VerifiedPeer, DropReason>;
}

/// What a chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// Who.
    pub peer: PeerId,
    /// The x25519 static key that this peer signed.
    pub static_key: [u8; 32],
    /// Of our own networks those that the chain admits the peer to.
    pub networks: Vec<NetworkId>,
}

/// What a node brings into its handshakes.
pub struct LocalIdentity {
    /// Our name.
    pub me: PeerId,
    /// The overlay.
    pub overlay: OverlayId,
    /// The overlay secret of the invite.
    pub overlay_secret: OverlaySecret,
    /// Our x25519 static secret.
    pub static_secret: Zeroizing<[u8; 32]>,
    /// Our certificate chain, at most [`super::MAX_CHAIN`] bytes.
    pub chain: Vec<u8>,
    /// Our signed static key, at most [`super::MAX_SIGNED_STATIC`] bytes.
    pub signed_static: Vec<u8>,
    /// Our networks; the first [`super::MAX_NETWORKS`] are offered.
    pub networks: Vec<NetworkId>,
    /// The suites, the faster one in front.
    pub suites: [Suite; 2],
    /// The newest lists we know; the psk of our own handshakes belongs to this root version.
    pub lists: ListNumbers,
    /// A random number of this run of the process: tells the peer that we restarted.
    pub incarnation: u32,
}

/// A [`LocalIdentity`] with the key by which we check mac1, so that a flood of forged messages
/// costs one hash each.
pub struct LocalParty {
    identity: LocalIdentity,
    own_mac1_key: Zeroizing<[u8; 32]>,
    /// The public half of the static secret.
    own_static: [u8; 32],
}

/// Without secrets.
impl std::fmt::Debug for LocalParty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalParty")
            .field("me", &self.identity.me)
            .field("overlay", &self.identity.overlay)
            .field("networks", &self.identity.networks)
            .finish_non_exhaustive()
    }
}

impl std::ops::Deref for LocalParty {
    type Target = LocalIdentity;

    fn deref(&self) -> &LocalIdentity {
        &self.identity
    }
}

impl LocalParty {
    /// Ready for handshakes.
    #[must_use]
    pub fn new(identity: LocalIdentity) -> Self {
        let public = noise::static_public(&identity.static_secret);
        let own_mac1_key = Zeroizing::new(mac1_key(&identity.overlay_secret, &public));
        Self {
            identity,
            own_mac1_key,
            own_static: public,
        }
    }

    /// A renewed chain or signed static key, for the same static secret.
    pub fn set_chain(&mut self, chain: Vec<u8>, signed_static: Vec<u8>) {
        self.identity.chain = chain;
        self.identity.signed_static = signed_static;
    }

    /// Other networks, for handshakes from now on.
    pub fn set_networks(&mut self, networks: Vec<NetworkId>) {
        self.identity.networks = networks;
    }

    /// Another run from now on.
    pub const fn set_incarnation(&mut self, incarnation: u32) {
        self.identity.incarnation = incarnation;
    }

    /// Newer signed lists.
    pub const fn set_lists(&mut self, lists: ListNumbers) {
        self.identity.lists = lists;
    }

    /// psk = HKDF(overlay secret, root version) (TRUST.md 10).
    fn psk(&self, root: u32) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(psk(&self.overlay_secret, root))
    }

    /// mac1 is keyed for whoever receives the message.
    fn mac1_key(&self, receiver_static: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(mac1_key(&self.overlay_secret, receiver_static))
    }

    fn prologue(&self, responder: PeerId) -> Vec<u8> {
        let mut bytes = vec![WIRE_VERSION];
        bytes.extend_from_slice(&self.overlay.0);
        bytes.extend_from_slice(&responder.0);
        bytes
    }

    fn terms(&self, index: SessionIndex, offer: &Offer, parties: (PeerId, PeerId)) -> Terms {
        Terms {
            index: index.0.to_be_bytes(),
            chain: self.chain.clone(),
            signed_static: self.signed_static.clone(),
            revocation: self.lists.revocation,
            networks: offer.to_wire(parties.0, parties.1),
            incarnation: self.incarnation.to_be_bytes(),
        }
    }

    fn check_mac1(&self, envelope: &Envelope<'_>) -> Result<(), DropReason> {
        let good = mac1(&self.own_mac1_key, envelope.covered);
        if bool::from(good.ct_eq(envelope.mac1)) {
            Ok(())
        } else {
            Err(DropReason::HandshakeMac)
        }
    }
}

/// What a finished handshake agreed on.
#[derive(Debug)]
pub struct Agreement {
    /// Who is at the other end.
    pub peer: PeerId,
    /// The peer's x25519 static key.
    pub static_key: [u8; 32],
    /// The peer's certificate chain.
    pub chain: Vec<u8>,
    /// What the peer calls the session.
    pub remote_index: SessionIndex,
    /// The networks both are in.
    pub networks: Vec<SharedNetwork>,
    /// The secrets.
    pub split: RawSplit,
    /// How to seal.
    pub suite: Suite,
    /// The peer's run of its process.
    pub incarnation: u32,
    /// The newest lists the peer knows.
    pub lists: ListNumbers,
}

/// A handshake that we began.
pub struct Initiation {
    state: HandshakeState,
    peer: PeerId,
    static_key: [u8; 32],
    offer: Offer,
}

impl Initiation {
    /// With whom.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }
}

impl std::fmt::Debug for Initiation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Initiation")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Begins a handshake with `peer`, whose static key was verified before. Returns message 1,
/// [`MESSAGE1_LEN`] bytes.
///
/// # Errors
/// `HandshakeInvalid` when our own chain is too long or `static_key` is no usable key.
pub fn initiate(
    local: &LocalParty,
    peer: PeerId,
    static_key: [u8; 32],
    index: SessionIndex,
    timestamp: u64,
    entropy: &mut dyn Entropy,
) -> Result<(Initiation, Vec<u8>), DropReason> {
    let mut state = noise::begin(NoiseSetup {
        role: Role::Initiator,
        static_secret: &local.static_secret,
        remote_static: Some(&static_key),
        psk: &local.psk(local.lists.root),
        prologue: &local.prologue(peer),
        ephemeral: random(entropy),
    })?;
    let offer = Offer::new(&local.networks, entropy.next_u32());
    let suites = local.suites.iter().map(|suite| suite.number());
    let payload = Payload1::new(
        timestamp,
        suites.collect(),
        local.terms(index, &offer, (local.me, peer)),
    );
    let noise = write_noise(&mut state, &payload.encode()?)?;
    let message = wrap(
        DatagramKind::HandshakeInit,
        index,
        local.lists.root,
        &noise,
        &local.mac1_key(&static_key),
    );
    let initiation = Initiation {
        state,
        peer,
        static_key,
        offer,
    };
    Ok((initiation, message))
}

/// A message 1 that opened and whose sender was verified.
pub struct Request {
    state: HandshakeState,
    verified: VerifiedPeer,
    payload: Payload1,
    remote_index: SessionIndex,
    root: u32,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("peer", &self.verified.peer)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Who sent it.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.verified.peer
    }

    /// Grows with each message 1 of this peer.
    #[must_use]
    pub const fn timestamp(&self) -> u64 {
        u64::from_be_bytes(self.payload.timestamp)
    }
}

/// Is `datagram` a message 1 from someone who knows the overlay secret? One keyed hash, so that
/// callers can check their limits before [`read_request`] does the costly part.
///
/// # Errors
/// `MalformedDatagram`, `HandshakeMac`.
pub fn check_request(local: &LocalParty, datagram: &[u8]) -> Result<(), DropReason> {
    local.check_mac1(&Envelope::parse(DatagramKind::HandshakeInit, datagram)?)
}

/// Answers a message 1 of good mac1 with a cookie reply, [`super::COOKIE_REPLY_LEN`] bytes.
///
/// # Errors
/// `MalformedDatagram` when `datagram` is no message 1, `HandshakeInvalid` when the library fails.
pub fn ask_for_cookie(
    local: &LocalParty,
    datagram: &[u8],
    cookie: &Cookie,
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, DropReason> {
    let (secret, own) = (&local.overlay_secret, &local.own_static);
    cookie::seal(secret, own, datagram, cookie, entropy)
}

/// Opens the cookie reply to `message1`, with which we began `initiation`.
///
/// # Errors
/// `MalformedDatagram`; `HandshakeMac` when it was not made for this very message.
pub fn read_cookie(
    local: &LocalParty,
    initiation: &Initiation,
    message1: &[u8],
    reply: &[u8],
) -> Result<Cookie, DropReason> {
    let secret = &local.overlay_secret;
    cookie::open(secret, &initiation.static_key, message1, reply)
}

/// Opens message 1 and verifies its sender. Two Diffie-Hellman operations and the chain.
///
/// # Errors
/// `MalformedDatagram`, `HandshakeMac`, `HandshakeInvalid`, or the verifier's reason.
pub fn read_request(
    local: &LocalParty,
    verifier: &dyn PeerVerifier,
    wall: UnixTime,
    entropy: &mut dyn Entropy,
    datagram: &[u8],
) -> Result<Request, DropReason> {
    let envelope = Envelope::parse(DatagramKind::HandshakeInit, datagram)?;
    local.check_mac1(&envelope)?;
    let mut state = noise::begin(NoiseSetup {
        role: Role::Responder,
        static_secret: &local.static_secret,
        remote_static: None,
        psk: &local.psk(envelope.second),
        prologue: &local.prologue(local.me),
        ephemeral: random(entropy),
    })?;
    let payload = Payload1::decode(&read_noise(&mut state, envelope.noise)?)?;
    let verified = verify(&state, &payload.terms, envelope.sender, verifier, wall)?;
    if verified.peer == local.me {
        return Err(DropReason::HandshakeInvalid);
    }
    Ok(Request {
        state,
        verified,
        payload,
        remote_index: envelope.sender,
        root: envelope.second,
    })
}

/// Answers a request: message 2, never longer than message 1, and what was agreed.
///
/// # Errors
/// `HandshakeInvalid` when no suite is common or our own chain is too long.
pub fn respond(
    local: &LocalParty,
    request: Request,
    index: SessionIndex,
    entropy: &mut dyn Entropy,
) -> Result<(Agreement, Vec<u8>), DropReason> {
    let Request {
        mut state,
        verified,
        payload,
        remote_index,
        root,
    } = request;
    let parties = (verified.peer, local.me);
    let suite = Suite::agree(&payload.suites, &local.suites).ok_or(DropReason::HandshakeInvalid)?;
    let mut offer = Offer::new(&local.networks, entropy.next_u32());
    let networks = offer.shared(
        &payload.terms.networks,
        &verified.networks,
        parties.0,
        parties.1,
    );
    offer.retain(&networks);
    let answer = Payload2::new(
        suite.number(),
        local.lists.root,
        local.terms(index, &offer, parties),
    );
    let noise = write_noise(&mut state, &answer.encode()?)?;
    let message = wrap(
        DatagramKind::HandshakeResponse,
        index,
        remote_index.0,
        &noise,
        &local.mac1_key(&verified.static_key),
    );
    let agreement = Agreement {
        peer: verified.peer,
        static_key: verified.static_key,
        remote_index,
        networks,
        split: split(&mut state),
        suite,
        incarnation: u32::from_be_bytes(payload.terms.incarnation),
        lists: ListNumbers {
            root,
            revocation: payload.terms.revocation,
        },
        chain: payload.terms.chain,
    };
    Ok((agreement, message))
}

/// Which of our handshakes a message 2 answers, after its mac1 was found good.
///
/// # Errors
/// `MalformedDatagram`, `HandshakeMac`.
pub fn response_receiver(local: &LocalParty, datagram: &[u8]) -> Result<SessionIndex, DropReason> {
    let envelope = Envelope::parse(DatagramKind::HandshakeResponse, datagram)?;
    local.check_mac1(&envelope)?;
    Ok(SessionIndex(envelope.second))
}

/// Why message 2 did not finish a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishError {
    /// Not from the peer: the handshake goes on waiting.
    NotThePeer(DropReason),
    /// From the holder of the peer's static key, yet unacceptable: the handshake has failed.
    Refused(DropReason),
}

/// Opens message 2 and verifies its sender.
///
/// # Errors
/// [`FinishError`] says whether the handshake can still succeed.
pub fn finish(
    local: &LocalParty,
    initiation: &mut Initiation,
    verifier: &dyn PeerVerifier,
    wall: UnixTime,
    datagram: &[u8],
) -> Result<Agreement, FinishError> {
    let envelope = Envelope::parse(DatagramKind::HandshakeResponse, datagram)
        .map_err(FinishError::NotThePeer)?;
    let bytes =
        read_noise(&mut initiation.state, envelope.noise).map_err(FinishError::NotThePeer)?;
    let mut accept = || -> Result<Agreement, DropReason> {
        let state = &mut initiation.state;
        let payload = Payload2::decode(&bytes)?;
        let verified = verify(state, &payload.terms, envelope.sender, verifier, wall)?;
        if verified.peer != initiation.peer || verified.static_key != initiation.static_key {
            return Err(DropReason::CertificateRefused);
        }
        Ok(Agreement {
            peer: verified.peer,
            static_key: verified.static_key,
            remote_index: envelope.sender,
            networks: initiation.offer.shared(
                &payload.terms.networks,
                &verified.networks,
                local.me,
                verified.peer,
            ),
            split: split(state),
            suite: Suite::from_number(payload.suite).ok_or(DropReason::HandshakeInvalid)?,
            incarnation: u32::from_be_bytes(payload.terms.incarnation),
            lists: ListNumbers {
                root: payload.root,
                revocation: payload.terms.revocation,
            },
            chain: payload.terms.chain,
        })
    };
    accept().map_err(FinishError::Refused)
}

/// Is the sender the one its chain names? Its static key must be the one Noise proved, and the
/// sealed index the one in the clear header.
fn verify(
    state: &HandshakeState,
    terms: &Terms,
    clear_index: SessionIndex,
    verifier: &dyn PeerVerifier,
    wall: UnixTime,
) -> Result<VerifiedPeer, DropReason> {
    if terms.index != clear_index.0.to_be_bytes() {
        return Err(DropReason::HandshakeInvalid);
    }
    let verified = verifier.verify(&terms.chain, &terms.signed_static, wall)?;
    if state.get_remote_static() != Some(verified.static_key.as_slice()) {
        return Err(DropReason::CertificateRefused);
    }
    Ok(verified)
}

fn random(entropy: &mut dyn Entropy) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(&mut *bytes);
    bytes
}

fn write_noise(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut buffer = vec![0; MESSAGE1_LEN];
    let len = state
        .write_message(payload, &mut buffer)
        .map_err(|_| DropReason::HandshakeInvalid)?;
    buffer.truncate(len);
    Ok(buffer)
}

fn read_noise(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut buffer = vec![0; MESSAGE1_LEN - MACS_LEN];
    let len = state
        .read_message(message, &mut buffer)
        .map_err(|_| DropReason::HandshakeInvalid)?;
    buffer.truncate(len);
    Ok(buffer)
}

fn split(state: &mut HandshakeState) -> RawSplit {
    let (to_responder, to_initiator) = state.dangerously_get_raw_split();
    RawSplit {
        to_responder,
        to_initiator,
    }
}
