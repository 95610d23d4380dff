//! What a version of a key is made of, and the algorithms. Private halves lie in locked memory; asymmetric ones are parsed by the library for
//! the length of a call, in memory that it and our allocator wipe when it is given back.

use super::{
    KeyKind, TransitError,
    envelope::{Envelope, Head},
};
use crate::{
    base::{
        id::{MountId, TransitObjectId},
        locked::{LockError, Locked, LockedKey, SLOT_BYTES, scrubbed},
        random::Random,
    },
    store::{XAES_NONCE_BYTES, Xaes},
};
use aws_lc_rs::{
    encoding::{AsBigEndian as _, AsDer as _, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
        ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ML_DSA_65, ML_DSA_65_SIGNING,
        PqdsaKeyPair, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A fresh version: its private half, and its public one (empty for a symmetric key).
pub(super) struct Fresh {
    pub private: Zeroizing<Vec<u8>>,
    pub public: Vec<u8>,
}

impl Fresh {
    /// Takes seconds for RSA: not for a thread that others wait on.
    pub fn make(kind: KeyKind, random: &dyn Random) -> Result<Self, TransitError> {
        let (private, public) = match kind {
            KeyKind::Aes256Gcm | KeyKind::HmacSha256 => {
                let mut key = Zeroizing::new(vec![0; 32]);
                random.fill(&mut key);
                (key, Vec::new())
            }
            KeyKind::Ed25519 => {
                let mut seed = Zeroizing::new(vec![0; 32]);
                random.fill(&mut seed);
                let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| TransitError::Crypto)?;
                let public = pair.public_key().as_ref().to_vec();
                (seed, public)
            }
            KeyKind::MlDsa65 => {
                let mut seed = Zeroizing::new(vec![0; 32]);
                random.fill(&mut seed);
                let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &seed).map_err(|_| TransitError::Crypto)?;
                let public = pair.public_key().as_ref().to_vec();
                (seed, public)
            }
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => {
                let pair = EcdsaKeyPair::generate(curve(kind)).map_err(|_| TransitError::Crypto)?;
                let scalar = pair.private_key().as_be_bytes().map_err(|_| TransitError::Crypto)?;
                let public = pair.public_key().as_ref().to_vec();
                (Zeroizing::new(scalar.as_ref().to_vec()), public)
            }
            KeyKind::RsaPss2048 | KeyKind::RsaPss3072 | KeyKind::RsaPss4096 => {
                let pair = RsaKeyPair::generate(rsa_size(kind)).map_err(|_| TransitError::Crypto)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| TransitError::Crypto)?;
                (
                    Zeroizing::new(der.as_ref().to_vec()),
                    pair.public_key().as_ref().to_vec(),
                )
            }
        };
        Ok(Self { private, public })
    }
}

fn curve(kind: KeyKind) -> &'static EcdsaSigningAlgorithm {
    if kind == KeyKind::EcdsaP384 {
        &ECDSA_P384_SHA384_ASN1_SIGNING
    } else {
        &ECDSA_P256_SHA256_ASN1_SIGNING
    }
}

fn rsa_size(kind: KeyKind) -> KeySize {
    match kind {
        KeyKind::RsaPss4096 => KeySize::Rsa4096,
        KeyKind::RsaPss3072 => KeySize::Rsa3072,
        _ => KeySize::Rsa2048,
    }
}

/// Bytes of any length in locked memory.
struct LockedBytes {
    parts: Vec<Locked<[u8; SLOT_BYTES]>>,
    length: usize,
}

impl LockedBytes {
    fn copy_of(bytes: &[u8]) -> Result<Self, LockError> {
        let part = |chunk: &[u8]| {
            Locked::new(|| {
                let mut part = [0; SLOT_BYTES];
                part.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                part
            })
        };
        Ok(Self {
            parts: bytes.chunks(SLOT_BYTES).map(part).collect::<Result<_, _>>()?,
            length: bytes.len(),
        })
    }

    fn expose(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.length));
        out.extend(self.parts.iter().flat_map(|part| part.iter()).take(self.length));
        out
    }
}

enum Secret {
    Aes(Locked<Xaes>),
    Hmac(LockedKey),
    Pair(LockedBytes),
    /// It never leaves its HSM.
    There(TransitObjectId),
}

/// A version of a key, ready for use.
pub(super) struct Material {
    kind: KeyKind,
    secret: Secret,
    pub public: Vec<u8>,
}

impl Material {
    pub fn load(kind: KeyKind, fresh: &Fresh) -> Result<Self, TransitError> {
        let key = || <&[u8; 32]>::try_from(&fresh.private[..]).map_err(|_| TransitError::Damaged);
        let secret = match kind {
            KeyKind::Aes256Gcm => {
                let key = key()?;
                Secret::Aes(Locked::new(|| Xaes::new(key))?)
            }
            KeyKind::HmacSha256 => Secret::Hmac(LockedKey::copy_of(key()?)?),
            _ => Secret::Pair(LockedBytes::copy_of(&fresh.private)?),
        };
        let public = fresh.public.clone();
        Ok(Self { kind, secret, public })
    }

    /// A version whose private half is in an HSM.
    pub const fn resident(kind: KeyKind, public: Vec<u8>, object: TransitObjectId) -> Self {
        Self {
            kind,
            secret: Secret::There(object),
            public,
        }
    }

    /// The object in the key's HSM.
    pub const fn object(&self) -> Option<TransitObjectId> {
        match self.secret {
            Secret::There(object) => Some(object),
            Secret::Aes(_) | Secret::Hmac(_) | Secret::Pair(_) => None,
        }
    }

    fn xaes(&self) -> Result<&Xaes, TransitError> {
        match &self.secret {
            Secret::Aes(key) => Ok(key),
            _ => Err(TransitError::Damaged),
        }
    }

    /// Seals one text. The nonce is 192 random bits: 2^80 texts under one version before a repetition is as likely as 2^-32 (C2SP).
    pub fn seal(
        &self,
        random: &dyn Random,
        head: Head,
        mount: &MountId,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, TransitError> {
        let key = self.xaes()?;
        let mut nonce = [0; XAES_NONCE_BYTES];
        random.fill(&mut nonce);
        let mut text = Zeroizing::new(plain.to_vec());
        let tag = scrubbed(|| key.seal(&nonce, &head.associated(mount, context), &mut text))
            .map_err(|_| TransitError::TooLarge)?;
        Ok(Envelope::join(head, &nonce, &text, &tag))
    }

    pub fn open(
        &self,
        envelope: &Envelope<'_>,
        mount: &MountId,
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TransitError> {
        let key = self.xaes()?;
        let mut text = Zeroizing::new(envelope.text.to_vec());
        let associated = envelope.head.associated(mount, context);
        scrubbed(|| key.open(envelope.nonce, &associated, &mut text, envelope.tag))
            .map_err(|_| TransitError::DoesNotOpen)?;
        Ok(text)
    }

    fn mac(&self, input: &[u8]) -> Result<Hmac<Sha256>, TransitError> {
        let Secret::Hmac(key) = &self.secret else {
            return Err(TransitError::Damaged);
        };
        scrubbed(|| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).map_err(|_| TransitError::Crypto)?;
            mac.update(input);
            Ok(mac)
        })
    }

    /// Signs, or authenticates with an HMAC, as the kind is.
    pub fn sign_all<'a>(&self, inputs: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, TransitError> {
        let Secret::Pair(private) = &self.secret else {
            return inputs
                .map(|input| Ok(self.mac(input)?.finalize().into_bytes().to_vec()))
                .collect();
        };
        let (private, refused) = (private.expose(), |_| TransitError::Damaged);
        let random = SystemRandom::new();
        match self.kind {
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&private, &self.public).map_err(refused)?;
                Ok(inputs.map(|input| pair.sign(input).as_ref().to_vec()).collect())
            }
            KeyKind::MlDsa65 => {
                let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &private).map_err(refused)?;
                let sign = |input| {
                    let mut made = vec![0; ML_DSA_65_SIGNING.signature_len()];
                    pair.sign(input, &mut made).map(|_| made)
                };
                inputs
                    .map(sign)
                    .collect::<Result<_, _>>()
                    .map_err(|_| TransitError::Crypto)
            }
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => {
                let pair = EcdsaKeyPair::from_private_key_and_public_key(curve(self.kind), &private, &self.public)
                    .map_err(refused)?;
                let sign = |input| pair.sign(&random, input).map(|made| made.as_ref().to_vec());
                inputs
                    .map(sign)
                    .collect::<Result<_, _>>()
                    .map_err(|_| TransitError::Crypto)
            }
            _ => {
                let pair = RsaKeyPair::from_pkcs8(&private).map_err(refused)?;
                let sign = |input| {
                    let mut made = vec![0; pair.public_modulus_len()];
                    pair.sign(&RSA_PSS_SHA256, &random, input, &mut made).map(|()| made)
                };
                inputs
                    .map(sign)
                    .collect::<Result<_, _>>()
                    .map_err(|_| TransitError::Crypto)
            }
        }
    }

    /// Whether this version made it. An HMAC is compared in constant time.
    pub fn verifies(&self, input: &[u8], made: &[u8]) -> Result<bool, TransitError> {
        let algorithm: &'static dyn VerificationAlgorithm = match self.kind {
            KeyKind::Aes256Gcm => return Err(TransitError::Damaged),
            KeyKind::HmacSha256 => return Ok(self.mac(input)?.verify_slice(made).is_ok()),
            KeyKind::Ed25519 => &ED25519,
            KeyKind::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
            KeyKind::EcdsaP384 => &ECDSA_P384_SHA384_ASN1,
            KeyKind::RsaPss2048 | KeyKind::RsaPss3072 | KeyKind::RsaPss4096 => &RSA_PSS_2048_8192_SHA256,
            KeyKind::MlDsa65 => &ML_DSA_65,
        };
        Ok(UnparsedPublicKey::new(algorithm, &self.public)
            .verify(input, made)
            .is_ok())
    }
}

/// A public key as others read it: SubjectPublicKeyInfo (RFC 5280) in DER; empty for a symmetric key.
pub(super) fn spki(kind: KeyKind, public: &[u8]) -> Vec<u8> {
    // AlgorithmIdentifiers: RFC 8410, 5480, 4055 (rsaEncryption, which every reader takes), 9881.
    let algorithm: &[u8] = match kind {
        KeyKind::Aes256Gcm | KeyKind::HmacSha256 => return Vec::new(),
        KeyKind::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
        KeyKind::EcdsaP256 => b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
        KeyKind::EcdsaP384 => b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
        KeyKind::RsaPss2048 | KeyKind::RsaPss3072 | KeyKind::RsaPss4096 => {
            b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"
        }
        KeyKind::MlDsa65 => b"\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12",
    };
    let bits = der(0x03, &[&[0][..], public].concat());
    der(0x30, &[algorithm, &bits].concat())
}

/// The same in PEM; empty for a symmetric key.
pub(super) fn pem(kind: KeyKind, public: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(&spki(kind, public));
    if text.is_empty() {
        return text;
    }
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem + "\n-----END PUBLIC KEY-----\n"
}

/// A signature as a kind's signatures are: of ECDSA `SEQUENCE { r, s }` (RFC 3279), where an HSM gives `r || s`.
pub(super) fn signature(kind: KeyKind, made: Vec<u8>) -> Vec<u8> {
    if kind != KeyKind::EcdsaP256 {
        return made;
    }
    let (r, s) = made.split_at(made.len() / 2);
    der(0x30, &[integer(r), integer(s)].concat())
}

/// An unsigned big-endian number as DER INTEGER.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = number.get(start..).unwrap_or_default();
    let sign: &[u8] = match digits.first() {
        Some(0..=0x7f) => &[],
        _ => &[0],
    };
    der(0x02, &[sign, digits].concat())
}

/// Tag, length, value; at most 65,535 bytes.
fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head[..], value].concat()
}
