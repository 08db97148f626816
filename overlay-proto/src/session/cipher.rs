//! The two suites, the two libraries that seal with them, and which of each this processor favours.
//!
//! aws-lc-rs and ring seal the same bytes; they differ in the instructions they know (docs/adr/0018):
//!
//! | processor | AES-256-GCM by | why |
//! |---|---|---|
//! | x86-64 with AVX-512, VAES and VPCLMULQDQ | aws-lc-rs | it alone has code for the 512-bit registers |
//! | any other x86-64 | ring | it alone has code for VAES in 256-bit registers; before VAES they share theirs |
//! | aarch64 and others | aws-lc-rs | the same code of Arm's, and a wider one for Neoverse V and Apple M |
//!
//! ChaCha20-Poly1305 is the same code in both; aws-lc-rs can seal without a copy before.

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring_aead;

use crate::drop_reason::DropReason;
use crate::wire::TAG_LEN;

/// How the data packets of a session are sealed (TRUST.md 12). The number is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM: the faster one where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305: the faster one on processors without them, and good on all.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// All that this program supports, by number.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The suite of a number on the wire; `None` for one from a later version.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name in reports and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The suite for two nodes, from the numbers in the initiator's list and from the responder's
    /// `own` list, each with what its node is fastest with in front; `None` when none is common.
    ///
    /// One slow end makes the pair slow, so AES-256-GCM is taken only when it is in front for both.
    #[must_use]
    pub fn agree(initiator: &[u8], own: &[Self]) -> Option<Self> {
        let listed = |suite: &Self| initiator.contains(&suite.number());
        let favourite = own.iter().copied().find(listed)?;
        if favourite == Self::ChaCha20Poly1305 {
            return Some(favourite);
        }
        let known = initiator
            .iter()
            .filter_map(|&number| Self::from_number(number));
        known.into_iter().find(|suite| own.contains(suite))
    }
}

/// Whose code seals and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// aws-lc-rs.
    AwsLc,
    /// ring.
    Ring,
}

impl Library {
    /// Both.
    pub const ALL: [Self; 2] = [Self::AwsLc, Self::Ring];

    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc-rs",
            Self::Ring => "ring",
        }
    }
}

/// A suite and the library for it. Which library is a matter of this node alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cipher {
    /// What both ends agreed on.
    pub suite: Suite,
    /// Whose code does it here.
    pub library: Library,
}

/// What of a processor decides about ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// It is an x86-64.
    pub x86_64: bool,
    /// It has instructions for AES and for the multiplication of GCM.
    pub aes: bool,
    /// It has them on 512-bit registers: AVX-512 F, DQ, BW and VL, VAES, VPCLMULQDQ.
    pub aes_512: bool,
}

impl Processor {
    /// The one we run on. The standard library asks it once and remembers.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            Self {
                x86_64: true,
                aes: has!("aes") && has!("pclmulqdq"),
                aes_512: has!("vaes")
                    && has!("vpclmulqdq")
                    && has!("avx512f")
                    && has!("avx512dq")
                    && has!("avx512bw")
                    && has!("avx512vl"),
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            Self {
                x86_64: false,
                aes: has!("aes") && has!("pmull"),
                aes_512: false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Self {
            x86_64: false,
            aes: false,
            aes_512: false,
        }
    }

    /// The list for our handshakes, the faster suite in front.
    #[must_use]
    pub const fn suites(self) -> [Suite; 2] {
        if self.aes {
            [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
        } else {
            [Suite::ChaCha20Poly1305, Suite::Aes256Gcm]
        }
    }

    /// The faster library for `suite`: the table of this module.
    #[must_use]
    pub const fn cipher(self, suite: Suite) -> Cipher {
        let library = match suite {
            Suite::Aes256Gcm if self.x86_64 && !self.aes_512 => Library::Ring,
            Suite::Aes256Gcm | Suite::ChaCha20Poly1305 => Library::AwsLc,
        };
        Cipher { suite, library }
    }
}

/// The library has refused: a wrong tag, or lengths that no caller of this module gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// A key for any of the ciphers. The branch over the library is the same for each packet of a
/// session, so it costs nothing next to the cipher.
pub(super) enum Key {
    AwsLc(aws_lc::LessSafeKey),
    Ring(RingKey),
}

impl Key {
    /// # Errors
    /// `HandshakeInvalid` when the library refuses the key, which it does for wrong lengths only.
    pub(super) fn new(cipher: Cipher, secret: &[u8; 32]) -> Result<Self, DropReason> {
        match cipher.library {
            Library::AwsLc => {
                let algorithm = match cipher.suite {
                    Suite::Aes256Gcm => &aws_lc::AES_256_GCM,
                    Suite::ChaCha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
                };
                aws_lc::UnboundKey::new(algorithm, secret)
                    .map(|key| Self::AwsLc(aws_lc::LessSafeKey::new(key)))
                    .map_err(|_| DropReason::HandshakeInvalid)
            }
            Library::Ring => {
                let algorithm = match cipher.suite {
                    Suite::Aes256Gcm => &ring_aead::AES_256_GCM,
                    Suite::ChaCha20Poly1305 => &ring_aead::CHACHA20_POLY1305,
                };
                RingKey::new(algorithm, secret).map(Self::Ring)
            }
        }
    }

    /// Encrypts `text`, and writes the tag over it and `head`. `tag` is [`TAG_LEN`] bytes.
    pub(super) fn seal_in_place(
        &self,
        nonce: [u8; 12],
        head: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let made = key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(head), text);
                tag.copy_from_slice(made.map_err(|_| Refused)?.as_ref());
            }
            Self::Ring(RingKey(key)) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let made = key.seal_in_place_separate_tag(nonce, ring_aead::Aad::from(head), text);
                tag.copy_from_slice(made.map_err(|_| Refused)?.as_ref());
            }
        }
        Ok(())
    }

    /// As [`Self::seal_in_place`], from `plain` into `text` of the same length.
    pub(super) fn seal_from(
        &self,
        nonce: [u8; 12],
        head: &[u8],
        plain: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.seal_out_of_place_scatter(nonce, aws_lc::Aad::from(head), plain, text, &[], tag)
                    .map_err(|_| Refused)
            }
            // ring seals in place only. The copy is of bytes that the cipher is about to read.
            Self::Ring(_) => {
                if plain.len() != text.len() {
                    return Err(Refused);
                }
                text.copy_from_slice(plain);
                self.seal_in_place(nonce, head, text, tag)
            }
        }
    }

    /// Decrypts `sealed`, text and tag, and gives the text if the tag is good. If it is not, both
    /// libraries leave zeros.
    pub(super) fn open_in_place<'a>(
        &self,
        nonce: [u8; 12],
        head: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Refused> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(head), sealed)
                    .map_err(|_| Refused)
            }
            Self::Ring(RingKey(key)) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring_aead::Aad::from(head), sealed)
                    .map_err(|_| Refused)
            }
        }
    }
}

/// ring keeps a key in the value itself and leaves it in memory, where aws-lc-rs wipes what it
/// frees. So the key stays in one place, and is overwritten there when dropped.
pub(super) struct RingKey(Box<ring_aead::LessSafeKey>);

impl RingKey {
    fn new(
        algorithm: &'static ring_aead::Algorithm,
        secret: &[u8; 32],
    ) -> Result<Self, DropReason> {
        ring_aead::UnboundKey::new(algorithm, secret)
            .map(|key| Self(Box::new(ring_aead::LessSafeKey::new(key))))
            .map_err(|_| DropReason::HandshakeInvalid)
    }

    /// Puts the key of zeros into its place: all keys of an algorithm have one layout.
    pub(super) fn overwrite(&mut self) {
        let zeros = ring_aead::UnboundKey::new(self.0.algorithm(), &[0; 32]);
        if let Ok(zeros) = zeros {
            *self.0 = ring_aead::LessSafeKey::new(zeros);
        }
        // The compiler must take it that the zeros are read.
        std::hint::black_box(&mut *self.0);
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        self.overwrite();
    }
}
