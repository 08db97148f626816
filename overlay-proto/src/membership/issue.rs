//! The authority's side of an invite.

use nat_traversal::entropy::Entropy;

use super::chain::{
    Chain, InvitePart, MAX_CHAIN_BYTES, NetworkGrant, RECEIPT_ROOM, is_host_name, overlay_hint,
};
use super::error::IssueError;
use super::invite::{Invite, bootstrap_peer, bootstraps_hash, is_dialled};
use super::keys::{InviteId, OverlaySecret, network_tag};
use super::network::NetworkSecret;
use super::rights::Rights;
use super::root::RootStore;
use super::signed::{AuthorityKey, DelegatedKey, Label};
use crate::ids::PeerId;
use crate::time::UnixTime;

/// Networks in one invite: the certificate must fit a handshake packet (TRUST.md 11).
pub const MAX_INVITE_NETWORKS: usize = 8;
/// Bootstraps in one invite.
pub const MAX_BOOTSTRAPS: usize = 8;

/// What an invite shall allow.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// The networks, at most [`MAX_INVITE_NETWORKS`].
    pub networks: Vec<NetworkSecret>,
    /// The rights: those of a network hold in each of the networks.
    pub rights: Rights,
    /// The name that the authority vouches for.
    pub name: Option<String>,
    /// The last second in which it can be used.
    pub join_until: UnixTime,
    /// The last second of the membership.
    pub member_until: UnixTime,
    /// How many nodes may use it.
    pub max_nodes: u32,
    /// Who counts its uses; none: the first bootstrap.
    pub witness: Option<PeerId>,
    /// Multiaddrs that end in `/p2p/PEERID`; at most [`MAX_BOOTSTRAPS`].
    pub bootstraps: Vec<String>,
}

/// Makes and signs an invite. `authority` must be the key of the newest root document.
///
/// # Errors
/// An [`IssueError`] that says what about the request is wrong.
pub fn issue_invite(
    authority: &AuthorityKey,
    roots: &RootStore,
    overlay_secret: &OverlaySecret,
    request: InviteRequest,
    now: UnixTime,
    entropy: &mut dyn Entropy,
) -> Result<Invite, IssueError> {
    if authority.public() != roots.newest().authority {
        return Err(IssueError::NotTheAuthority);
    }
    check_networks(&request.networks)?;
    let first_bootstrap = check_bootstraps(&request.bootstraps)?;
    check_terms(&request, now)?;

    let delegated = DelegatedKey::generate(entropy);
    let id = InviteId(delegated.public());
    let grants = request
        .networks
        .iter()
        .map(|network| NetworkGrant {
            tag: network_tag(&network.id, id),
            rights: request.rights.of_networks(),
        })
        .collect();
    let part = InvitePart {
        overlay_hint: overlay_hint(roots.overlay()),
        root_version: roots.newest().version,
        id,
        name: request.name,
        rights: request.rights.of_overlay(),
        grants,
        issued: now,
        join_until: request.join_until,
        member_until: request.member_until,
        max_nodes: request.max_nodes,
        witness: request.witness.unwrap_or(first_bootstrap),
        bootstraps: bootstraps_hash(&request.bootstraps),
    };
    let signed = authority.sign_part(Label::INVITE, roots.overlay(), part.encode());
    let chain = Chain::build(
        signed.clone(),
        part.clone(),
        &delegated,
        roots.overlay(),
        PeerId(id.0),
    );
    let length = chain.encode().len() + RECEIPT_ROOM;
    if length > MAX_CHAIN_BYTES {
        return Err(IssueError::TooLong(length));
    }
    Ok(Invite {
        roots: roots.above(0).to_vec(),
        signed,
        part,
        delegated,
        overlay_secret: overlay_secret.clone(),
        networks: request.networks,
        bootstraps: request.bootstraps,
    })
}

fn check_networks(networks: &[NetworkSecret]) -> Result<(), IssueError> {
    if networks.is_empty() {
        return Err(IssueError::NoNetwork);
    }
    if networks.len() > MAX_INVITE_NETWORKS {
        return Err(IssueError::TooManyNetworks(networks.len()));
    }
    for (index, network) in networks.iter().enumerate() {
        let same = |other: &NetworkSecret| other.name == network.name;
        if networks.iter().skip(index + 1).any(same) {
            return Err(IssueError::NetworkTwice(network.name.clone()));
        }
    }
    Ok(())
}

/// The `PeerId` of the first.
fn check_bootstraps(bootstraps: &[String]) -> Result<PeerId, IssueError> {
    if bootstraps.len() > MAX_BOOTSTRAPS {
        return Err(IssueError::TooManyBootstraps(bootstraps.len()));
    }
    let mut first = None;
    for address in bootstraps {
        let peer = check_bootstrap(address)?;
        first = first.or(Some(peer));
    }
    first.ok_or(IssueError::NoBootstrap)
}

/// The `PeerId` of a bootstrap whose address an invite can carry.
///
/// # Errors
/// [`IssueError::BootstrapWithoutPeerId`], [`IssueError::BootstrapForm`].
pub fn check_bootstrap(address: &str) -> Result<PeerId, IssueError> {
    let peer = bootstrap_peer(address)
        .ok_or_else(|| IssueError::BootstrapWithoutPeerId(address.to_owned()))?;
    if is_dialled(address) {
        Ok(peer)
    } else {
        Err(IssueError::BootstrapForm(address.to_owned()))
    }
}

fn check_terms(request: &InviteRequest, now: UnixTime) -> Result<(), IssueError> {
    if let Some(name) = request.name.as_ref().filter(|name| !is_host_name(name)) {
        return Err(IssueError::BadName(name.clone()));
    }
    let nothing = request.rights & Rights::DECIDING_NOTHING;
    if nothing != Rights::NONE {
        return Err(IssueError::RightDecidesNothing(nothing));
    }
    if request.rights.contains(Rights::WITNESS) {
        return Err(IssueError::WitnessByRight);
    }
    if request.max_nodes == 0 {
        return Err(IssueError::NoNodes);
    }
    for until in [request.join_until, request.member_until] {
        if until <= now {
            return Err(IssueError::EndsInThePast { until });
        }
    }
    if request.member_until < request.join_until {
        return Err(IssueError::MemberBeforeJoin);
    }
    Ok(())
}
