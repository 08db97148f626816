//! The primitives that snow runs on, and nothing else: X25519 by dalek, AES-256-GCM by aws-lc,
//! SHA-256 by the `sha2` crate. The randomness is 32 bytes that the caller hands in, used for the
//! one ephemeral key of a side; asking for more is an error, so nothing can fall back to the
//! operating system's generator.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use std::sync::Mutex;
use zeroize::Zeroizing;

use crate::drop_reason::DropReason;
use crate::session::Role;

const PATTERN: &str = "Noise_IKpsk2_25519_AESGCM_SHA256";
/// The psk is mixed in at the end of message 2.
const PSK_POSITION: u8 = 2;

/// What Noise needs to begin on either side.
pub(super) struct NoiseSetup<'a> {
    pub(super) role: Role,
    pub(super) static_secret: &'a [u8; 32],
    /// The responder's static key; the initiator must know it.
    pub(super) remote_static: Option<&'a [u8; 32]>,
    pub(super) psk: &'a [u8; 32],
    pub(super) prologue: &'a [u8],
    /// Random bytes: the ephemeral secret of this side.
    pub(super) ephemeral: Zeroizing<[u8; 32]>,
}

/// A Noise handshake before its first message.
///
/// # Errors
/// `HandshakeInvalid` when snow refuses the setup.
pub(super) fn begin(setup: NoiseSetup<'_>) -> Result<HandshakeState, DropReason> {
    let build = || -> Result<HandshakeState, Error> {
        let params: NoiseParams = PATTERN.parse()?;
        let resolver = Resolver {
            ephemeral: Mutex::new(Some(setup.ephemeral)),
        };
        let mut builder = Builder::with_resolver(params, Box::new(resolver))
            .local_private_key(setup.static_secret)?
            .psk(PSK_POSITION, setup.psk)?
            .prologue(setup.prologue)?;
        if let Some(key) = setup.remote_static {
            builder = builder.remote_public_key(key)?;
        }
        match setup.role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        }
    };
    build().map_err(|_| DropReason::HandshakeInvalid)
}

/// The public key of an X25519 secret (RFC 7748).
#[must_use]
pub fn static_public(secret: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(*secret, x25519_dalek::X25519_BASEPOINT_BYTES)
}

struct Resolver {
    /// Taken by the one random source that a handshake resolves. The lock is there because snow
    /// asks through `&self`.
    ephemeral: Mutex<Option<Zeroizing<[u8; 32]>>>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let bytes = self.ephemeral.lock().ok()?.take()?;
        Some(Box::new(OneKey(Some(bytes))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256)
            .then(|| Box::new(Sha256Hash(Sha256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(None)) as Box<dyn Cipher>)
    }
}

/// Gives its 32 bytes once.
struct OneKey(Option<Zeroizing<[u8; 32]>>);

impl Random for OneKey {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != bytes.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(&*bytes);
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        for (to, from) in self.secret.iter_mut().zip(secret) {
            *to = *from;
        }
        self.public = static_public(&self.secret);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        random.try_fill_bytes(&mut *self.secret)?;
        self.public = static_public(&self.secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    /// Refuses an all-zero result (RFC 7748 section 6.1): a public key of small order.
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = Zeroizing::new(x25519_dalek::x25519(*self.secret, *public));
        if shared.iter().fold(0, |all, byte| all | byte) == 0 {
            return Err(Error::Dh);
        }
        out.first_chunk_mut::<32>()
            .ok_or(Error::Dh)?
            .copy_from_slice(&*shared);
        Ok(())
    }
}

struct Sha256Hash(Sha256);

impl Hash for Sha256Hash {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest = self.0.finalize_reset();
        for (to, from) in out.iter_mut().zip(digest) {
            *to = from;
        }
    }
}

/// AES-256-GCM with Noise's nonce: four zero bytes and the counter, big-endian (Noise section 12).
struct AesGcm(Option<LessSafeKey>);

impl AesGcm {
    fn nonce(counter: u64) -> Nonce {
        let mut bytes = [0; 12];
        let (_, low) = bytes.split_at_mut(4);
        low.copy_from_slice(&counter.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = UnboundKey::new(&AES_256_GCM, key)
            .ok()
            .map(LessSafeKey::new);
    }

    /// Snow gives room for text and tag. Should the library fail, which it does not for these
    /// lengths, what goes out is zeros that no one can open, never the text.
    fn encrypt(&self, counter: u64, aad: &[u8], text: &[u8], out: &mut [u8]) -> usize {
        let total = text.len() + 16;
        let Some(out) = out.get_mut(..total) else {
            return 0;
        };
        let (sealed, tag) = out.split_at_mut(text.len());
        sealed.copy_from_slice(text);
        let good = self.0.as_ref().and_then(|key| {
            key.seal_in_place_separate_tag(Self::nonce(counter), Aad::from(aad), sealed)
                .ok()
        });
        match good {
            Some(good) => tag.copy_from_slice(good.as_ref()),
            None => out.fill(0),
        }
        total
    }

    fn decrypt(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let key = self.0.as_ref().ok_or(Error::Decrypt)?;
        // A copy, because snow's buffer has no room for the tag. Handshakes are rare.
        let mut copy = sealed.to_vec();
        let text = key
            .open_in_place(Self::nonce(counter), Aad::from(aad), &mut copy)
            .map_err(|_| Error::Decrypt)?;
        out.get_mut(..text.len())
            .ok_or(Error::Decrypt)?
            .copy_from_slice(text);
        Ok(text.len())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn key(hex: &str) -> [u8; 32] {
        bytes(hex).try_into().unwrap()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    fn write(state: &mut HandshakeState, payload: &str) -> String {
        let mut out = [0; 200];
        let len = state.write_message(&bytes(payload), &mut out).unwrap();
        HEXLOWER.encode(&out[..len])
    }

    fn read(state: &mut HandshakeState, message: &str) -> Result<String, Error> {
        let mut out = [0; 200];
        let len = state.read_message(&bytes(message), &mut out)?;
        Ok(HEXLOWER.encode(&out[..len]))
    }

    /// The public test vector of cacophony for this pattern.
    #[test]
    fn known_answer() {
        let psk = key("54686973206973206d7920417573747269616e20706572737065637469766521");
        let remote = key("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62");
        let secrets = [
            key("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
            key("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
        ];
        assert_eq!(static_public(&secrets[1]), remote);
        let setup = |role, secret, remote_static, ephemeral| NoiseSetup {
            role,
            static_secret: secret,
            remote_static,
            psk: &psk,
            prologue: b"John Galt",
            ephemeral: Zeroizing::new(key(ephemeral)),
        };
        let mut initiator = begin(setup(
            Role::Initiator,
            &secrets[0],
            Some(&remote),
            "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
        ))
        .unwrap();
        let mut responder = begin(setup(
            Role::Responder,
            &secrets[1],
            None,
            "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
        ))
        .unwrap();
        let payload = "4c756477696720766f6e204d69736573";
        let first = write(&mut initiator, payload);
        assert_eq!(
            first,
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79445a1baf339186d786\
             7062b0dd31f5de322d370165d217939b2b7ed9e2bae7840458ea65c2ce1554e0e8077fe7334c4bd5\
             14c658fd04d97b86d216f58f59714a7e24144155045c8f36bed85a2cb0fd9af7"
        );
        assert_eq!(read(&mut responder, &first).unwrap(), payload);
        let payload = "4d757272617920526f746862617264";
        let second = write(&mut responder, payload);
        assert_eq!(
            second,
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088432fe8d675e949799d\
             2a968211a66cc7ba2b0f4cad8eda3c2bd37eae737bbf88"
        );
        assert_eq!(read(&mut initiator, &second).unwrap(), payload);
        // The first transport message shows that the split is right as well.
        let split = initiator.dangerously_get_raw_split();
        assert_eq!(split, responder.dangerously_get_raw_split());
        let mut cipher = AesGcm(None);
        cipher.set(&split.0);
        let mut out = [0; 27];
        cipher.encrypt(0, &[], &bytes("462e20412e20486179656b"), &mut out);
        assert_eq!(
            HEXLOWER.encode(&out),
            "38cbf3835c78b7802df0dd0d9640ff8575debd0cb61cfb52590da1"
        );
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let mut dh = X25519::default();
        dh.set(&[5; 32]);
        assert!(dh.dh(&[0; 32], &mut [0; 32]).is_err());
    }

    #[test]
    fn randomness_is_what_was_handed_in_and_no_more() {
        let mut random = OneKey(Some(Zeroizing::new([7; 32])));
        let mut out = [0; 32];
        random.try_fill_bytes(&mut out).unwrap();
        assert_eq!(out, [7; 32]);
        assert!(random.try_fill_bytes(&mut out).is_err());
    }
}
