//! Who rules the overlay of a world, and the witness of its invites: the authority that tests have
//! ([`TestOverlay`]), with what a world asks of it.

use std::time::Duration;

use anyhow::{Context, Result};
use node_core::api::{Request, SecretLine};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::test_authority::TestOverlay;
use overlay_proto::membership::{
    AuthorityKey, Chain, Membership, NetworkAuthority, NodeKey, OverlaySecret, Revoked, SignedPart,
    WitnessRefusal,
};
use overlay_proto::time::UnixTime;

use crate::net::random::stream;

/// How long memberships last.
const MEMBERSHIP: Duration = Duration::from_secs(365 * 86_400);

/// With these networks; `place` is where the bootstrap, which is the witness, is dialled, without its name.
///
/// # Errors
/// A name is none, or two are the same.
pub(super) fn found(seed: u64, names: &[&str], place: &str, now: UnixTime) -> Result<TestOverlay> {
    let mut entropy = stream(seed, "authority");
    let key = AuthorityKey::generate(&mut entropy);
    let witness = NodeKey::generate(&mut entropy);
    let mut networks = Vec::new();
    for name in names {
        let name = name.parse().ok().context("no name for a network")?;
        networks.push(NetworkAuthority::create(name, 1_500, &mut entropy));
    }
    let secret = OverlaySecret::generate(&mut entropy);
    let mut overlay = TestOverlay::with_keys(now, key, networks, (secret, witness), entropy);
    overlay.bootstraps = vec![format!("{place}/p2p/{}", overlay.witness.peer_id())];
    Ok(overlay)
}

/// `node` joins these networks, by an invite of its own.
///
/// # Errors
/// There is no such network.
pub(super) fn join(
    overlay: &mut TestOverlay,
    node: &NodeKey,
    networks: &[usize],
    now: UnixTime,
) -> Result<Membership> {
    overlay.now = now;
    let secret = |index: &usize| Some(overlay.networks.get(*index)?.secret());
    let networks: Option<Vec<_>> = networks.iter().map(secret).collect();
    let mut request = overlay.request(&[]);
    request.networks = networks.context("no such network")?;
    request.join_until = now.plus(MEMBERSHIP);
    request.member_until = now.plus(MEMBERSHIP);
    Ok(overlay.issue(request)?.accept(node, now)?)
}

/// The witness counts the use of an invite. `None`: the certificate does not count.
pub(super) fn receipt(
    overlay: &mut TestOverlay,
    chain: &Chain,
    now: UnixTime,
) -> Option<Result<SignedPart, WitnessRefusal>> {
    let application = chain.apply(&overlay.roots, now).ok()?;
    let id = overlay.id();
    Some(overlay.witness.receipt(id, &application, now))
}

/// The line for `farlan apply` that revokes `node`.
///
/// # Errors
/// Never: the list is our own.
pub(super) fn revoke(overlay: &mut TestOverlay, node: PeerId) -> Result<Request> {
    let list = overlay.next_list(Revoked::Node(node));
    overlay.revoked.take(list.clone(), &overlay.roots)?;
    let line = overlay.line(list, &[]).to_text();
    let line = SecretLine(line.to_string());
    Ok(Request::Apply { line })
}
