//! Signing keys: ES256 and PS256, and their public keys as DER.

use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism as M, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use super::fault::Fault;
use super::keys::{Use, kept, strictest};
use super::seal::missing;
use super::token::Token;
use crate::error::{ErrorKind, HsmError};
use crate::name::{KeyKind, Part, Ring, id, label};

/// OID 1.2.840.10045.3.1.7 (P-256).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `SubjectPublicKeyInfo` of a P-256 key up to the point (RFC 5480).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// `SEQUENCE { rsaEncryption, NULL }` (RFC 3279).
const RSA_ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// Bits of every RSA key made here.
const RSA_BITS: u64 = 3072;

pub(super) fn create(token: &mut Token, ring: &Ring, version: u32, kind: KeyKind) -> Result<(), HsmError> {
    match kind {
        KeyKind::SignEs256 => ec_pair(token, ring, version)?,
        KeyKind::SignPs256 => {
            rsa_pair(
                token,
                ring,
                version,
                Part::Ps256,
                Use::Sign,
                MechanismType::RSA_PKCS_PSS,
            )?;
        }
        KeyKind::Kek => return Err(HsmError::invalid("not a signing key")),
    }
    // Tried at once: a key that cannot sign is found now, not with the first checkpoint.
    sign(token, ring, version, &[7; 32]).map(|_| ())
}

fn ec_pair(token: &mut Token, ring: &Ring, version: u32) -> Result<(), Fault> {
    let mut public = public_template(ring, version, Part::Es256, Use::Sign);
    public.push(Attribute::EcParams(P256.to_vec()));
    pair(
        token,
        &M::EccKeyPairGen,
        &public,
        ring,
        version,
        Part::Es256,
        Use::Sign,
        MechanismType::ECDSA,
    )
}

pub(super) fn rsa_pair(
    token: &mut Token,
    ring: &Ring,
    version: u32,
    part: Part,
    usage: Use,
    only: MechanismType,
) -> Result<(), Fault> {
    let mut public = public_template(ring, version, part, usage);
    public.extend([
        Attribute::ModulusBits(RSA_BITS.into()),
        Attribute::PublicExponent(vec![1, 0, 1]),
    ]);
    pair(token, &M::RsaPkcsKeyPairGen, &public, ring, version, part, usage, only)
}

fn public_template(ring: &Ring, version: u32, part: Part, usage: Use) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label(ring, version).into_bytes()),
        Attribute::Id(id(ring, version, part)),
        Attribute::Encrypt(usage == Use::Crypt),
        Attribute::Verify(usage == Use::Sign),
        Attribute::Wrap(false),
    ]
}

#[allow(clippy::too_many_arguments)] // one template's worth of facts, used twice
fn pair(
    token: &mut Token,
    generator: &M<'_>,
    public: &[Attribute],
    ring: &Ring,
    version: u32,
    part: Part,
    usage: Use,
    only: MechanismType,
) -> Result<(), Fault> {
    let mut private = kept(ring, version, part);
    private.extend([
        Attribute::Decrypt(usage == Use::Crypt),
        Attribute::Sign(usage == Use::Sign),
        Attribute::Unwrap(false),
    ]);
    strictest(token, only, |token, extra| {
        let private = [&private[..], extra].concat();
        Ok(token.session()?.generate_key_pair(generator, public, &private)?.1)
    })
}

/// The signing key of this name.
fn key(token: &Token, ring: &Ring, version: u32, class: ObjectClass) -> Result<(Part, ObjectHandle), HsmError> {
    let mut found = None;
    for part in [Part::Es256, Part::Ps256] {
        if let Some(object) = token.find(ring, version, part, class)?
            && found.replace((part, object)).is_some()
        {
            return Err(HsmError::new(ErrorKind::KeyConflict, "one name, two signing keys"));
        }
    }
    found.ok_or_else(|| missing(ring, version).into())
}

pub(super) fn sign(token: &Token, ring: &Ring, version: u32, digest: &[u8; 32]) -> Result<Vec<u8>, HsmError> {
    let (part, key) = key(token, ring, version, ObjectClass::PRIVATE_KEY)?;
    let (mechanism, want) = match part {
        Part::Ps256 => (
            M::RsaPkcsPss(PkcsPssParams {
                hash_alg: MechanismType::SHA256,
                mgf: PkcsMgfType::MGF1_SHA256,
                s_len: 32.into(),
            }),
            RSA_BITS as usize / 8,
        ),
        _ => (M::Ecdsa, 64),
    };
    let signature = token.session()?.sign(&mechanism, key, digest).map_err(Fault::from)?;
    if signature.len() == want {
        Ok(signature)
    } else {
        Err(HsmError::new(
            ErrorKind::Device,
            format!("a signature of {} bytes", signature.len()),
        ))
    }
}

pub(super) fn public_key(token: &Token, ring: &Ring, version: u32) -> Result<Vec<u8>, HsmError> {
    let (part, key) = key(token, ring, version, ObjectClass::PUBLIC_KEY)?;
    let wanted = match part {
        Part::Ps256 => &[AttributeType::Modulus, AttributeType::PublicExponent][..],
        _ => &[AttributeType::EcPoint][..],
    };
    let said = token.session()?.get_attributes(key, wanted).map_err(Fault::from)?;
    let spki = match said.as_slice() {
        [Attribute::EcPoint(point)] => p256_spki(point),
        [Attribute::Modulus(n), Attribute::PublicExponent(e)] => Some(rsa_spki(n, e)),
        _ => None,
    };
    spki.ok_or_else(|| HsmError::new(ErrorKind::Device, "the token's public key makes no sense"))
}

/// The point is DER-wrapped (67 bytes) by the standard and bare (65 bytes) on some tokens.
fn p256_spki(point: &[u8]) -> Option<Vec<u8>> {
    let bare = match point {
        [0x04, 0x41, bare @ ..] if bare.len() == 65 => bare,
        bare => bare,
    };
    (bare.len() == 65 && bare.first() == Some(&4)).then(|| [&P256_SPKI[..], bare].concat())
}

fn rsa_spki(n: &[u8], e: &[u8]) -> Vec<u8> {
    let key = der(0x30, &[integer(n), integer(e)].concat());
    let bits = der(0x03, &[&[0], &key[..]].concat());
    der(0x30, &[&RSA_ALGORITHM[..], &bits].concat())
}

/// An unsigned big-endian number as DER INTEGER.
fn integer(n: &[u8]) -> Vec<u8> {
    let start = n.iter().position(|b| *b != 0).unwrap_or(n.len());
    let digits = n.get(start..).unwrap_or_default();
    let sign = if digits.first().is_none_or(|b| b & 0x80 != 0) {
        &[0][..]
    } else {
        &[][..]
    };
    der(0x02, &[sign, digits].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(len as u8),
        0x80..=0xff => out.extend([0x81, len as u8]),
        _ => out.extend([0x82, (len >> 8) as u8, len as u8]), // content is a key of at most 4096 bits
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_lengths_and_signs() {
        assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(der(4, &[9; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(der(4, &[9; 0x100])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn points() {
        let bare = [&[4][..], &[9; 64]].concat();
        let wrapped = [&[4, 0x41][..], &bare].concat();
        assert_eq!(p256_spki(&bare), p256_spki(&wrapped));
        assert_eq!(p256_spki(&bare).unwrap().len(), 91);
        assert_eq!(p256_spki(&bare[1..]), None);
        assert_eq!(p256_spki(&[]), None);
    }
}
