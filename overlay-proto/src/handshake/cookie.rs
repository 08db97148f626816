//! Cookies: under load a responder asks whoever sends message 1 to show that it gets answers at
//! its address (TRUST.md 11, after section 5.4.7 of the WireGuard paper).
//!
//! A recorded message 1 can be sent from made-up addresses, and each costs the responder two
//! Diffie-Hellman operations. The answer to it under load is a cookie, a MAC over the address it
//! came from. The responder keeps nothing; the initiator sends the same message again, with mac2
//! keyed by the cookie. The reply is sealed for who knows the overlay secret, and bound by mac1 to
//! the very message 1 that asked: nobody else can hand an initiator a wrong cookie.
//!
//! WireGuard seals with XChaCha20 for its long random nonce. Here the random nonce goes into the
//! derivation of a key that seals once.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use nat_traversal::entropy::Entropy;
use nat_traversal::path::Path;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::drop_reason::DropReason;
use crate::membership::{OverlaySecret, derive, hmac_sha256};
use crate::wire::{DatagramKind, SessionIndex};

use super::message::{HEAD_LEN, MAC_LEN, MACS_LEN, MESSAGE1_LEN, WIRE_VERSION};

/// How long a cookie is good: a new secret is drawn so often.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = COOKIE_HEAD_LEN + NONCE_LEN + MAC_LEN + TAG_LEN;

const COOKIE_HEAD_LEN: usize = 8;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const SEAL_LABEL: &str = "farlan/cookie/1";

// A cookie asked for from a made-up address must not make a larger datagram towards it.
const _: () = assert!(COOKIE_REPLY_LEN < MESSAGE1_LEN);

/// A MAC over the address that a message 1 came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cookie([u8; MAC_LEN]);

/// Not the bytes: who has them can send from that address while the cookie lives.
impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The responder's secret; the only thing it keeps for cookies.
#[derive(Default)]
pub struct CookieSecret {
    /// With the time it was drawn.
    secret: Option<(Zeroizing<[u8; 32]>, Instant)>,
}

impl std::fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecret(..)")
    }
}

impl CookieSecret {
    /// The cookie of whoever is at the other end of `path`: bound to address and port, behind a
    /// relay to both allocations as well.
    pub fn cookie(&mut self, now: Instant, entropy: &mut dyn Entropy, path: &Path) -> Cookie {
        let fresh = |since: Instant| now.saturating_duration_since(since) < COOKIE_LIFETIME;
        if !self.secret.as_ref().is_some_and(|(_, since)| fresh(*since)) {
            let mut secret = Zeroizing::new([0; 32]);
            entropy.fill(&mut *secret);
            self.secret = Some((secret, now));
        }
        let secret = self
            .secret
            .as_ref()
            .map_or(&[0; 32], |(secret, _)| &**secret);
        let port = path.remote.port().to_be_bytes();
        let address = match path.remote.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let route = path
            .relay
            .map_or([0; 2], |route| [route.own.0, route.peer.0]);
        let [own, peer] = route.map(u64::to_be_bytes);
        Cookie(short(hmac_sha256(secret, &[&address, &port, &own, &peer])))
    }
}

/// What identifies a message 1 however often it is repeated: all of it but mac2.
#[must_use]
pub fn without_mac2(message1: &[u8]) -> &[u8] {
    let end = message1.len().saturating_sub(MAC_LEN);
    message1.get(..end).unwrap_or_default()
}

/// Does `message1` carry the mac2 that only the holder of `cookie` can make?
#[must_use]
pub fn has_mac2(message1: &[u8], cookie: &Cookie) -> bool {
    let Some((covered, mac2)) = message1.split_last_chunk::<MAC_LEN>() else {
        return false;
    };
    mac2_of(cookie, covered).ct_eq(mac2).into()
}

/// Puts mac2 into a message 1.
pub fn put_mac2(message1: &mut [u8], cookie: &Cookie) {
    if let Some((covered, mac2)) = message1.split_last_chunk_mut::<MAC_LEN>() {
        *mac2 = mac2_of(cookie, covered);
    }
}

/// The cookie reply to `message1`, whose receiver has the x25519 static key `own_static`.
///
/// # Errors
/// `MalformedDatagram` when `message1` is none, `HandshakeInvalid` when the library fails.
pub(super) fn seal(
    secret: &OverlaySecret,
    own_static: &[u8; 32],
    message1: &[u8],
    cookie: &Cookie,
    entropy: &mut dyn Entropy,
) -> Result<Vec<u8>, DropReason> {
    let sender = message1
        .get(4..8)
        .filter(|_| message1.len() == MESSAGE1_LEN)
        .ok_or(DropReason::MalformedDatagram)?;
    let mac1 = mac1_of(message1).ok_or(DropReason::MalformedDatagram)?;
    let mut nonce = [0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut sealed = cookie.0;
    let tag = once_key(secret, own_static, &nonce)?
        .seal_in_place_separate_tag(zero_nonce(), Aad::from(mac1), &mut sealed)
        .map_err(|_| DropReason::HandshakeInvalid)?;
    let mut reply = Vec::with_capacity(COOKIE_REPLY_LEN);
    reply.extend_from_slice(&[DatagramKind::CookieReply.byte(), WIRE_VERSION, 0, 0]);
    reply.extend_from_slice(sender);
    reply.extend_from_slice(&nonce);
    reply.extend_from_slice(&sealed);
    reply.extend_from_slice(tag.as_ref());
    Ok(reply)
}

/// Which of our handshakes a cookie reply is for. Nothing is proven yet.
///
/// # Errors
/// `MalformedDatagram`.
pub fn cookie_receiver(reply: &[u8]) -> Result<SessionIndex, DropReason> {
    let head = reply
        .first_chunk::<COOKIE_HEAD_LEN>()
        .filter(|_| reply.len() == COOKIE_REPLY_LEN)
        .ok_or(DropReason::MalformedDatagram)?;
    let [kind, version, z0, z1, i0, i1, i2, i3] = *head;
    if [kind, version, z0, z1] != [DatagramKind::CookieReply.byte(), WIRE_VERSION, 0, 0] {
        return Err(DropReason::MalformedDatagram);
    }
    Ok(SessionIndex(u32::from_be_bytes([i0, i1, i2, i3])))
}

/// Opens the reply to our `message1`, sent to the holder of `peer_static`.
///
/// # Errors
/// `MalformedDatagram`; `HandshakeMac` when it was not made for this very message.
pub(super) fn open(
    secret: &OverlaySecret,
    peer_static: &[u8; 32],
    message1: &[u8],
    reply: &[u8],
) -> Result<Cookie, DropReason> {
    cookie_receiver(reply)?;
    let malformed = || DropReason::MalformedDatagram;
    let (_, rest) = reply
        .split_at_checked(COOKIE_HEAD_LEN)
        .ok_or_else(malformed)?;
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE_LEN>()
        .ok_or_else(malformed)?;
    let mac1 = mac1_of(message1).ok_or_else(malformed)?;
    let mut sealed = sealed.to_vec();
    let cookie = once_key(secret, peer_static, nonce)?
        .open_in_place(zero_nonce(), Aad::from(mac1), &mut sealed)
        .map_err(|_| DropReason::HandshakeMac)?;
    Ok(Cookie(*cookie.first_chunk().ok_or_else(malformed)?))
}

fn mac1_of(message1: &[u8]) -> Option<[u8; MAC_LEN]> {
    let (_, macs) = message1.split_last_chunk::<MACS_LEN>()?;
    macs.first_chunk()
        .copied()
        .filter(|_| message1.len() > HEAD_LEN + MACS_LEN)
}

fn mac2_of(cookie: &Cookie, covered: &[u8]) -> [u8; MAC_LEN] {
    // HMAC fills a short key up with zeros (RFC 2104), so this is the cookie's own HMAC.
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(cookie.0) {
        *to = from;
    }
    short(hmac_sha256(&key, &[covered]))
}

fn short(mac: [u8; 32]) -> [u8; MAC_LEN] {
    let mut out = [0; MAC_LEN];
    for (to, from) in out.iter_mut().zip(mac) {
        *to = from;
    }
    out
}

/// The key of one reply: the random nonce is in its derivation, so it never seals again.
fn once_key(
    secret: &OverlaySecret,
    responder_static: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
) -> Result<LessSafeKey, DropReason> {
    let context = [responder_static.as_slice(), nonce].concat();
    let key = Zeroizing::new(derive(secret.as_bytes(), SEAL_LABEL, &context));
    UnboundKey::new(&AES_256_GCM, &*key)
        .map(LessSafeKey::new)
        .map_err(|_| DropReason::HandshakeInvalid)
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use nat_traversal::entropy::SeededEntropy;
    use nat_traversal::path::{AllocationId, RelayRoute};
    use proptest::prelude::*;

    use super::*;

    fn direct(text: &str) -> Path {
        Path::direct(text.parse().unwrap())
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn trust_11_a_cookie_is_bound_to_address_and_port_and_dies() {
        let now = Instant::now();
        let mut entropy = SeededEntropy::new(1);
        let mut secret = CookieSecret::default();
        let here = direct("192.0.2.1:5");
        let route = |own, peer| RelayRoute {
            own: AllocationId(own),
            peer: AllocationId(peer),
        };
        let mut of = |path: Path, after: Duration| secret.cookie(now + after, &mut entropy, &path);
        let cookie = of(here, Duration::ZERO);
        let late = COOKIE_LIFETIME - Duration::from_millis(1);
        assert_eq!(of(here, late), cookie);
        for other in [
            direct("192.0.2.1:6"),
            direct("192.0.2.2:5"),
            Path::relayed(here.remote, route(1, 2)),
        ] {
            assert_ne!(of(other, late), cookie, "{other:?}");
        }
        let relayed = of(Path::relayed(here.remote, route(1, 2)), late);
        assert_ne!(of(Path::relayed(here.remote, route(1, 3)), late), relayed);
        assert_ne!(of(here, COOKIE_LIFETIME), cookie);
    }

    #[test]
    fn a_reply_opens_for_its_own_message_only() {
        let overlay = OverlaySecret::from_bytes([8; 32]);
        let (cookie, own) = (Cookie([7; MAC_LEN]), [5; 32]);
        let mut message = vec![3; MESSAGE1_LEN];
        message[0] = DatagramKind::HandshakeInit.byte();
        let mut entropy = SeededEntropy::new(2);
        let reply = seal(&overlay, &own, &message, &cookie, &mut entropy).unwrap();
        assert_eq!(reply.len(), COOKIE_REPLY_LEN);
        assert_eq!(cookie_receiver(&reply), Ok(SessionIndex(0x0303_0303)));
        assert_eq!(open(&overlay, &own, &message, &reply), Ok(cookie));
        let mut other = message.clone();
        other[MESSAGE1_LEN - MACS_LEN] ^= 1;
        let forged = Err(DropReason::HandshakeMac);
        assert_eq!(open(&overlay, &own, &other, &reply), forged);
        assert_eq!(open(&overlay, &[6; 32], &message, &reply), forged);
        let stranger = OverlaySecret::from_bytes([9; 32]);
        assert_eq!(open(&stranger, &own, &message, &reply), forged);
        for at in COOKIE_HEAD_LEN..reply.len() {
            let mut bent = reply.clone();
            bent[at] ^= 1;
            assert_eq!(open(&overlay, &own, &message, &bent), forged, "byte {at}");
        }
        // mac2 covers the whole message.
        put_mac2(&mut message, &cookie);
        assert!(has_mac2(&message, &cookie));
        message[20] ^= 1;
        assert!(!has_mac2(&message, &cookie));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
            let overlay = OverlaySecret::from_bytes([8; 32]);
            let cookie = Cookie([7; MAC_LEN]);
            let message = bytes.clone();
            let _ = seal(&overlay, &[5; 32], &message, &cookie, &mut SeededEntropy::new(3));
            let _ = open(&overlay, &[5; 32], &message, &bytes);
            let _ = has_mac2(&bytes, &cookie);
            put_mac2(&mut bytes, &cookie);
            bytes.truncate(COOKIE_REPLY_LEN);
            let _ = cookie_receiver(&bytes);
            let _ = open(&overlay, &[5; 32], &message, &bytes);
        }
    }
}
