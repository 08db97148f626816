//! An invite: one line of text that lets a node in (TRUST.md 3).
//!
//! ```text
//! farlan-invite-BASE64URL( version (1) | postcard body | checksum (8) )
//! body = root documents | part signed by the authority | delegated private key (32)
//!      | overlay secret (32) | networks with ids and epoch keys | bootstrap addresses
//! ```
//! The checksum is there for people who copy text, not against forgery: place and length are the
//! same in every version, so that a damaged invite is told from one of a later version.

use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::chain::{Chain, InvitePart};
use super::codec;
use super::error::{InviteError, MembershipError};
use super::issue::{MAX_BOOTSTRAPS, MAX_INVITE_NETWORKS};
use super::keys::{InviteId, OverlaySecret, labelled_hash, network_tag};
use super::member_store::Membership;
use super::network::{MAX_MTU, MIN_MTU, NetworkSecret};
use super::root::{CLOCK_TOLERANCE, RootStore, SignedRoot};
use super::signed::{DelegatedKey, Label, NodeKey, SignedPart};
use crate::ids::{NetworkName, OverlayId, PeerId};
use crate::time::UnixTime;

/// What every invite begins with, so that secret scanners find it.
pub const INVITE_PREFIX: &str = "farlan-invite-";

/// The longest text that is looked at, in bytes.
pub const MAX_INVITE_TEXT: usize = 16 * 1024;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
/// The longest bootstrap address, in bytes.
const MAX_ADDRESS_BYTES: usize = 256;

/// What [`Invite::to_text`] encodes.
#[derive(Serialize, Deserialize)]
struct Body {
    roots: Vec<SignedRoot>,
    signed: SignedPart,
    delegated: [u8; 32],
    overlay_secret: OverlaySecret,
    networks: Vec<NetworkSecret>,
    bootstraps: Vec<String>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.delegated.zeroize();
    }
}

/// An invite that parses; [`Invite::verify`] says whether it can be used. `Debug` shows no secret.
pub struct Invite {
    pub(super) roots: Vec<SignedRoot>,
    pub(super) signed: SignedPart,
    pub(super) part: InvitePart,
    pub(super) delegated: DelegatedKey,
    pub(super) overlay_secret: OverlaySecret,
    pub(super) networks: Vec<NetworkSecret>,
    pub(super) bootstraps: Vec<String>,
}

impl Invite {
    /// The line to hand over. It is a secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = Body {
            roots: self.roots.clone(),
            signed: self.signed.clone(),
            delegated: *self.delegated.secret_bytes(),
            overlay_secret: self.overlay_secret.clone(),
            networks: self.networks.clone(),
            bootstraps: self.bootstraps.clone(),
        };
        let mut bytes = Zeroizing::new(codec::encode(VERSION, &body));
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes));
        Zeroizing::new(format!("{INVITE_PREFIX}{}", *encoded))
    }

    /// Reads [`Invite::to_text`]; white space, as terminals put it into long lines, is ignored.
    ///
    /// # Errors
    /// [`InviteError::NotAnInvite`], [`InviteError::Damaged`], [`InviteError::LaterVersion`].
    pub fn parse(text: &str) -> Result<Self, InviteError> {
        if text.len() > MAX_INVITE_TEXT {
            return Err(InviteError::NotAnInvite);
        }
        let joined: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let encoded = joined
            .strip_prefix(INVITE_PREFIX)
            .ok_or(InviteError::NotAnInvite)?;
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| InviteError::Damaged("it is cut off or holds a wrong character"))?;
        let (body, sum) = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .and_then(|middle| bytes.split_at_checked(middle))
            .ok_or(InviteError::Damaged("it is cut off"))?;
        if sum != checksum(body) {
            return Err(InviteError::Damaged("its checksum is wrong"));
        }
        match body.first() {
            Some(&version) if version > VERSION => return Err(InviteError::LaterVersion(version)),
            _ => {}
        }
        Self::from_body(body).map_err(|_| InviteError::Damaged("its content does not parse"))
    }

    fn from_body(bytes: &[u8]) -> Result<Self, MembershipError> {
        let body: Body = codec::decode("invite", VERSION, MAX_INVITE_TEXT, bytes)?;
        let bounded = body.networks.len() <= MAX_INVITE_NETWORKS
            && (1..=MAX_BOOTSTRAPS).contains(&body.bootstraps.len())
            && body
                .bootstraps
                .iter()
                .all(|address| bootstrap_peer(address).is_some())
            && body
                .networks
                .iter()
                .all(|network| (MIN_MTU..=MAX_MTU).contains(&network.mtu));
        if !bounded {
            return Err(MembershipError::Invalid("invite"));
        }
        Ok(Self {
            part: InvitePart::decode(&body.signed.bytes)?,
            delegated: DelegatedKey::from_secret(&body.delegated),
            roots: body.roots.clone(),
            signed: body.signed.clone(),
            overlay_secret: body.overlay_secret.clone(),
            networks: body.networks.clone(),
            bootstraps: body.bootstraps.clone(),
        })
    }

    /// Can it be used at `wall`?
    ///
    /// # Errors
    /// [`InviteError::Forged`], [`InviteError::BootstrapForm`], [`InviteError::Expired`].
    pub fn verify(&self, wall: UnixTime) -> Result<(), InviteError> {
        self.verified_roots(wall).map(|_| ())
    }

    /// Makes the certificate of `node` and everything it keeps; the receipt is still to come. The
    /// delegated key is erased with the invite.
    ///
    /// # Errors
    /// As [`Invite::verify`].
    pub fn accept(self, node: &NodeKey, wall: UnixTime) -> Result<Membership, InviteError> {
        let roots = self.verified_roots(wall)?;
        let chain = Chain::build(
            self.signed.clone(),
            self.part.clone(),
            &self.delegated,
            roots.overlay(),
            node.peer_id(),
        );
        // What every peer will do, done once here: a chain that none of them takes is no membership.
        chain.apply(&roots, wall).map_err(forged)?;
        Ok(Membership::of_invite(
            roots,
            self.overlay_secret,
            self.networks,
            chain,
            self.bootstraps,
            self.part.name,
        ))
    }

    /// The overlay it leads to; not verified.
    #[must_use]
    pub fn overlay(&self) -> Option<OverlayId> {
        RootStore::from_roots(self.roots.iter().cloned())
            .ok()
            .map(|roots| roots.overlay())
    }

    /// The invite's name for the authority's books.
    #[must_use]
    pub const fn id(&self) -> InviteId {
        self.part.id
    }

    /// The name that the authority gives the node.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.part.name.as_deref()
    }

    /// The networks it leads to.
    pub fn network_names(&self) -> impl Iterator<Item = &NetworkName> {
        self.networks.iter().map(|network| &network.name)
    }

    fn verified_roots(&self, wall: UnixTime) -> Result<RootStore, InviteError> {
        let mut roots = RootStore::from_roots(self.roots.iter().cloned()).map_err(forged)?;
        let part = &self.part;
        let authority = roots.authority_of(part.root_version).map_err(forged)?;
        self.signed
            .verify(&authority, Label::INVITE, roots.overlay())
            .map_err(forged)?;
        if part.bootstraps != bootstraps_hash(&self.bootstraps) {
            return Err(InviteError::Forged(
                "its bootstraps were exchanged".to_owned(),
            ));
        }
        if part.id.0 != self.delegated.public() {
            return Err(InviteError::Forged(
                "its key is not the one signed".to_owned(),
            ));
        }
        let tags = part.grants.iter().map(|grant| grant.tag);
        let networks = self
            .networks
            .iter()
            .map(|network| network_tag(&network.id, part.id));
        if !tags.eq(networks) {
            return Err(InviteError::Forged(
                "its networks were exchanged".to_owned(),
            ));
        }
        if let Some(address) = self.bootstraps.iter().find(|at| !is_dialled(at)) {
            return Err(InviteError::BootstrapForm(address.clone()));
        }
        roots.raise_floor(part.issued);
        let now = roots.now(wall);
        for until in [part.join_until, part.member_until] {
            if now > until.plus(CLOCK_TOLERANCE) {
                return Err(InviteError::Expired { until });
            }
        }
        Ok(roots)
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("id", &self.part.id)
            .field("name", &self.part.name)
            .field("networks", &self.networks)
            .field("join_until", &self.part.join_until)
            .field("bootstraps", &self.bootstraps)
            .finish_non_exhaustive()
    }
}

fn forged(error: MembershipError) -> InviteError {
    InviteError::Forged(error.to_string())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, e, f, g, h, ..] = labelled_hash("farlan/invite-checksum", &[bytes]);
    [a, b, c, d, e, f, g, h]
}

/// The hash that the authority signs in place of the list.
pub(super) fn bootstraps_hash(bootstraps: &[String]) -> [u8; 32] {
    labelled_hash(
        "farlan/bootstraps/1",
        &[&codec::encode(VERSION, &bootstraps)],
    )
}

/// The `PeerId` that a bootstrap's multiaddr ends in; `None` if it names no single node or is
/// longer than 256 bytes. Whether the rest of the address can be dialled is another question.
#[must_use]
pub fn bootstrap_peer(address: &str) -> Option<PeerId> {
    let (place, peer) = address.split_once("/p2p/")?;
    let one_line = address.bytes().all(|c| c.is_ascii_graphic());
    if address.len() > MAX_ADDRESS_BYTES || !place.starts_with('/') || !one_line {
        return None;
    }
    peer.parse().ok()
}

/// Is `address`, which names its node, of a form that a node dials? QUIC and TCP at an IP address: names
/// are not looked up, and nothing answers on UDP alone.
pub(super) fn is_dialled(address: &str) -> bool {
    let place = address
        .split_once("/p2p/")
        .map_or(address, |(place, _)| place);
    let parts: Vec<&str> = place.split('/').collect();
    let (family, ip, port) = match parts[..] {
        ["", family, ip, "tcp", port] | ["", family, ip, "udp", port, "quic-v1"] => {
            (family, ip, port)
        }
        _ => return false,
    };
    let ip: Option<IpAddr> = match family {
        "ip4" => ip.parse().ok().map(IpAddr::V4),
        "ip6" => ip.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    ip.is_some_and(|ip| !ip.is_unspecified() && !ip.is_multicast())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}
