//! Sealing and opening by the four mechanisms, and the canary that tells bad data from a bad device.

use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism as M, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::fault::Fault;
use super::raw::Raw;
use super::token::Token;
use crate::blob::{HsmBlob, binding, binding_hash};
use crate::error::{ErrorKind, HsmError};
use crate::name::{Mechanism, Part, Ring};

type Seed = Zeroizing<[u8; 32]>;
/// Seed and binding hash: what mechanisms without associated data carry.
type Inner = Zeroizing<[u8; 64]>;

/// Context of canaries; no caller's context has this form, since every part of a binding has its length.
const CANARY: &[u8] = b"strongroom.hsm.canary";

/// The objects of a KEK.
pub(super) enum Kek {
    Gcm(ObjectHandle),
    Kw(ObjectHandle),
    CbcHmac {
        cipher: ObjectHandle,
        mac: ObjectHandle,
    },
    Oaep {
        public: ObjectHandle,
        private: ObjectHandle,
    },
}

impl Kek {
    fn mechanism(&self) -> Mechanism {
        match self {
            Self::Gcm(_) => Mechanism::Gcm,
            Self::Kw(_) => Mechanism::Kw,
            Self::CbcHmac { .. } => Mechanism::CbcHmac,
            Self::Oaep { .. } => Mechanism::OaepSha256,
        }
    }

    /// The KEK of this name and mechanism, whole; `None` when there is nothing of it.
    fn find(token: &Token, ring: &Ring, version: u32, mechanism: Mechanism) -> Result<Option<Self>, Fault> {
        let find = |part, class| token.find(ring, version, part, class);
        let pair = |a: Option<ObjectHandle>, b: Option<ObjectHandle>| match (a, b) {
            (None, None) => Ok(None),
            (Some(a), Some(b)) => Ok(Some((a, b))),
            _ => Err(Fault::new(ErrorKind::KeyConflict, "half of a key")),
        };
        let secret = ObjectClass::SECRET_KEY;
        Ok(match mechanism {
            Mechanism::Gcm => find(Part::Gcm, secret)?.map(Self::Gcm),
            Mechanism::Kw => find(Part::Kw, secret)?.map(Self::Kw),
            Mechanism::CbcHmac => pair(find(Part::Cbc, secret)?, find(Part::Mac, secret)?)?
                .map(|(cipher, mac)| Self::CbcHmac { cipher, mac }),
            Mechanism::OaepSha256 => pair(
                find(Part::Oaep, ObjectClass::PUBLIC_KEY)?,
                find(Part::Oaep, ObjectClass::PRIVATE_KEY)?,
            )?
            .map(|(public, private)| Self::Oaep { public, private }),
        })
    }

    /// The KEK of this name, whatever its mechanism.
    fn find_any(token: &Token, ring: &Ring, version: u32) -> Result<Self, Fault> {
        let mut found = None;
        for mechanism in Mechanism::ALL {
            if let Some(kek) = Self::find(token, ring, version, mechanism)?
                && found.replace(kek).is_some()
            {
                return Err(Fault::new(ErrorKind::KeyConflict, "one KEK of two mechanisms"));
            }
        }
        found.ok_or_else(|| missing(ring, version))
    }
}

pub(super) fn missing(ring: &Ring, version: u32) -> Fault {
    Fault::new(ErrorKind::KeyMissing, crate::name::label(ring, version))
}

pub(super) fn seal(token: &Token, ring: &Ring, version: u32, context: &[u8], seed: &Seed) -> Result<HsmBlob, HsmError> {
    let kek = Kek::find_any(token, ring, version)?;
    Ok(seal_with(token, &kek, ring, version, context, seed)?)
}

/// Opens a blob. A failure that may be the device's is settled by a canary under the same key.
pub(super) fn open(token: &mut Token, blob: &HsmBlob, context: &[u8]) -> Result<Seed, HsmError> {
    match open_once(token, blob, context) {
        Err(Fault::Ambiguous(doubt)) => {
            token.renew();
            match canary(token, &blob.ring, blob.version) {
                Ok(()) => Err(HsmError::new(ErrorKind::Integrity, doubt.detail)),
                Err(_) => Err(HsmError::new(ErrorKind::Device, doubt.detail)),
            }
        }
        other => Ok(other?),
    }
}

fn open_once(token: &Token, blob: &HsmBlob, context: &[u8]) -> Result<Seed, Fault> {
    let kek = Kek::find(token, &blob.ring, blob.version, blob.mechanism)?;
    let kek = kek.ok_or_else(|| missing(&blob.ring, blob.version))?;
    open_with(token, &kek, blob, context)
}

/// Seals and opens random bytes under a KEK.
fn canary(token: &Token, ring: &Ring, version: u32) -> Result<(), HsmError> {
    let seed = random()?;
    let blob = seal(token, ring, version, CANARY, &seed)?;
    let back = open_once(token, &blob, CANARY)?;
    if same(&seed, &back) {
        Ok(())
    } else {
        Err(HsmError::new(ErrorKind::Device, "canary came back changed"))
    }
}

/// Whether the token still works: random bytes, the key last used still there, and now and then a canary.
pub(super) fn probe(token: &Token, deep: bool, key: Option<(Ring, u32)>) -> Result<(), HsmError> {
    let mut bytes = [0; 16];
    token
        .session()?
        .generate_random_slice(&mut bytes)
        .map_err(Fault::from)?;
    if bytes == [0; 16] {
        return Err(HsmError::new(ErrorKind::Device, "the token's random numbers are zeros"));
    }
    let Some((ring, version)) = key else { return Ok(()) };
    if deep {
        canary(token, &ring, version)
    } else {
        Kek::find_any(token, &ring, version)?;
        Ok(())
    }
}

/// The self-test of a KEK just made: it seals, opens, and refuses a flipped bit and another context.
pub(super) fn trial(token: &mut Token, ring: &Ring, version: u32) -> Result<Mechanism, HsmError> {
    let seed = random()?;
    let blob = seal(token, ring, version, CANARY, &seed)?;
    if !same(&seed, &open_once(token, &blob, CANARY).map_err(HsmError::from)?) {
        return Err(HsmError::new(ErrorKind::Unsupported, "opened to something else"));
    }
    let last = blob.body.len() - 1;
    for at in [0, last / 2, last] {
        let mut forged = blob.clone();
        if let Some(byte) = forged.body.get_mut(at) {
            *byte ^= 0x10;
        }
        must_fail(token, &forged, CANARY, "opened with a flipped bit")?;
    }
    must_fail(token, &blob, b"another", "opened in another context")?;
    Ok(blob.mechanism)
}

fn must_fail(token: &mut Token, blob: &HsmBlob, context: &[u8], what: &str) -> Result<(), HsmError> {
    let opened = open_once(token, blob, context).is_ok();
    token.renew();
    token.check()?;
    if opened {
        Err(HsmError::new(ErrorKind::Unsupported, what))
    } else {
        Ok(())
    }
}

fn same(a: &Seed, b: &Seed) -> bool {
    a[..].ct_eq(&b[..]).into()
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, HsmError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut bytes[..]).map_err(|e| HsmError::new(ErrorKind::Device, format!("getrandom: {e}")))?;
    Ok(bytes)
}

fn seal_with(
    token: &Token,
    kek: &Kek,
    ring: &Ring,
    version: u32,
    context: &[u8],
    seed: &Seed,
) -> Result<HsmBlob, Fault> {
    let session = token.session()?;
    let mechanism = kek.mechanism();
    let bound = binding(mechanism, ring, version, context);
    let inner = || join(seed, &binding_hash(mechanism, ring, version, context));
    let body = match kek {
        Kek::Gcm(key) => gcm_seal(session, *key, &bound, seed)?,
        Kek::Kw(key) => kw_seal(session, *key, &inner())?,
        Kek::CbcHmac { cipher, mac } => cbc_seal(session, *cipher, *mac, &bound, seed)?,
        Kek::Oaep { public, .. } => session.encrypt(&oaep(), *public, &inner()[..])?,
    };
    if !mechanism.body_bytes().contains(&body.len()) {
        return Err(Fault::new(
            ErrorKind::Unsupported,
            format!("{} bytes sealed", body.len()),
        ));
    }
    Ok(HsmBlob {
        mechanism,
        ring: ring.clone(),
        version,
        body,
    })
}

fn open_with(token: &Token, kek: &Kek, blob: &HsmBlob, context: &[u8]) -> Result<Seed, Fault> {
    let session = token.session()?;
    let bound = binding(blob.mechanism, &blob.ring, blob.version, context);
    let hash = binding_hash(blob.mechanism, &blob.ring, blob.version, context);
    match kek {
        Kek::Gcm(key) => gcm_open(session, *key, &bound, &blob.body),
        Kek::Kw(key) => part(&kw_open(session, &token.raw, *key, &blob.body)?, &hash),
        Kek::CbcHmac { cipher, mac } => cbc_open(session, *cipher, *mac, &bound, &blob.body),
        Kek::Oaep { private, .. } => {
            let plain = Zeroizing::new(session.decrypt(&oaep(), *private, &blob.body)?);
            part(&exactly(&plain)?, &hash)
        }
    }
}

fn join(seed: &Seed, hash: &[u8; 32]) -> Inner {
    let mut inner = Zeroizing::new([0; 64]);
    let (a, b) = inner.split_at_mut(32);
    a.copy_from_slice(&seed[..]);
    b.copy_from_slice(hash);
    inner
}

/// Takes the seed out of the 64 bytes, if they belong to this name and context.
fn part(inner: &Inner, hash: &[u8; 32]) -> Result<Seed, Fault> {
    let (seed, bound) = inner.split_at(32);
    if bool::from(bound.ct_eq(hash)) {
        exactly(seed)
    } else {
        Err(Fault::integrity("another name or context"))
    }
}

fn exactly<const N: usize>(plain: &[u8]) -> Result<Zeroizing<[u8; N]>, Fault> {
    let mut out = Zeroizing::new([0; N]);
    if plain.len() != N {
        return Err(Fault::integrity("plaintext of another length"));
    }
    out.copy_from_slice(plain);
    Ok(out)
}

fn short() -> Fault {
    Fault::integrity("body too short")
}

// ---- AES-256-GCM ----

/// `iv 12 || ciphertext 32 || tag 16`. The IV is ours; it is read back since FIPS tokens put in their own.
fn gcm_seal(session: &Session, key: ObjectHandle, bound: &[u8], seed: &Seed) -> Result<Vec<u8>, Fault> {
    let mut iv = *random::<12>()?;
    let sealed = {
        let params = GcmParams::new(&mut iv, bound, 128.into())?;
        session.encrypt(&M::AesGcm(params), key, &seed[..])?
    };
    Ok([&iv[..], &sealed].concat())
}

fn gcm_open(session: &Session, key: ObjectHandle, bound: &[u8], body: &[u8]) -> Result<Seed, Fault> {
    let (iv, sealed) = body.split_first_chunk::<12>().ok_or_else(short)?;
    let mut iv = *iv;
    let params = GcmParams::new(&mut iv, bound, 128.into())?;
    exactly(&Zeroizing::new(session.decrypt(&M::AesGcm(params), key, sealed)?))
}

// ---- AES key wrap ----

/// Wraps the 64 bytes as a generic secret that exists in this session only.
fn kw_seal(session: &Session, key: ObjectHandle, inner: &Inner) -> Result<Vec<u8>, Fault> {
    let mut template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Value(inner.to_vec()),
    ];
    let made = session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(value) = attribute {
            value.zeroize();
        }
    }
    let object = made?;
    let wrapped = session.wrap_key(&M::AesKeyWrap, key, object);
    let _ = session.destroy_object(object);
    let mut wrapped = wrapped?;
    // The binding does not cut the buffer to the returned length; key wrap adds 8 bytes, always.
    wrapped.truncate(inner.len() + 8);
    Ok(wrapped)
}

fn kw_open(session: &Session, raw: &Raw, key: ObjectHandle, body: &[u8]) -> Result<Inner, Fault> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    let object = session.unwrap_key(&M::AesKeyWrap, key, body, &template)?;
    let mut inner = Zeroizing::new([0; 64]);
    let read = raw.value(session, object, &mut inner[..]);
    let _ = session.destroy_object(object);
    read?;
    Ok(inner)
}

// ---- AES-256-CBC and HMAC-SHA-256 ----

/// `iv 16 || ciphertext 32 || tag 32`, the tag over binding, IV and ciphertext.
fn cbc_seal(
    session: &Session,
    cipher: ObjectHandle,
    mac: ObjectHandle,
    bound: &[u8],
    seed: &Seed,
) -> Result<Vec<u8>, Fault> {
    let iv = *random::<16>()?;
    let sealed = session.encrypt(&M::AesCbc(iv), cipher, &seed[..])?;
    let tag = session.sign(&M::Sha256Hmac, mac, &[bound, &iv, &sealed].concat())?;
    Ok([&iv[..], &sealed, &tag].concat())
}

/// The tag is checked, in the token, before anything is decrypted.
fn cbc_open(
    session: &Session,
    cipher: ObjectHandle,
    mac: ObjectHandle,
    bound: &[u8],
    body: &[u8],
) -> Result<Seed, Fault> {
    let (sealed, tag) = body.split_last_chunk::<32>().ok_or_else(short)?;
    session.verify(&M::Sha256Hmac, mac, &[bound, sealed].concat(), tag)?;
    let (iv, sealed) = sealed.split_first_chunk::<16>().ok_or_else(short)?;
    exactly(&Zeroizing::new(session.decrypt(&M::AesCbc(*iv), cipher, sealed)?))
}

// ---- RSA-OAEP ----

fn oaep() -> M<'static> {
    M::RsaPkcsOaep(PkcsOaepParams::new(
        MechanismType::SHA256,
        PkcsMgfType::MGF1_SHA256,
        PkcsOaepSource::empty(),
    ))
}
