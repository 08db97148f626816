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
