//! Making, listing and destroying keys.

use cryptoki::mechanism::{Mechanism as M, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use super::fault::Fault;
use super::seal::{missing, trial};
use super::sign;
use super::token::Token;
use crate::config::MechanismChoice;
use crate::error::{ErrorKind, HsmError};
use crate::name::{KeyInfo, KeyKind, Mechanism, Part, Ring, id, label, version_of};
use crate::wire::{KEYS_MAX, Trial};

/// Most objects looked at when listing.
const SCAN_MAX: usize = 4096;
/// The ring of `self_test`; emptied before and after.
const SELF_TEST_RING: &str = "strongroom-self-test";

pub(super) fn create(
    token: &mut Token,
    ring: &Ring,
    version: u32,
    kind: KeyKind,
    choice: MechanismChoice,
) -> Result<KeyInfo, HsmError> {
    if !objects(token, ring, version)?.is_empty() {
        return Err(HsmError::new(ErrorKind::KeyExists, label(ring, version)));
    }
    let mechanism = match (kind, choice) {
        (KeyKind::Kek, MechanismChoice::Only(mechanism)) => Some(create_kek(token, ring, version, mechanism)?),
        (KeyKind::Kek, MechanismChoice::Auto) => Some(create_best(token, ring, version)?),
        (KeyKind::SignEs256 | KeyKind::SignPs256, _) => {
            sign::create(token, ring, version, kind)?;
            None
        }
    };
    Ok(KeyInfo {
        ring: ring.clone(),
        version,
        kind,
        mechanism,
    })
}

/// The first mechanism whose new KEK passes its trial.
fn create_best(token: &mut Token, ring: &Ring, version: u32) -> Result<Mechanism, HsmError> {
    let mut reasons = String::new();
    let mut kind = ErrorKind::Unsupported;
    for mechanism in Mechanism::ALL {
        match create_kek(token, ring, version, mechanism) {
            Ok(mechanism) => return Ok(mechanism),
            Err(error) => {
                if !matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Integrity) {
                    kind = ErrorKind::Device;
                }
                reasons += &format!("{}: {}; ", mechanism.as_str(), error.detail);
                token.renew();
                token.check()?;
            }
        }
    }
    Err(HsmError::new(kind, reasons))
}

/// Makes a KEK and tries it; takes it away again if it fails.
fn create_kek(token: &mut Token, ring: &Ring, version: u32, mechanism: Mechanism) -> Result<Mechanism, HsmError> {
    let made = generate_kek(token, ring, version, mechanism).map_err(HsmError::from);
    match made.and_then(|()| trial(token, ring, version)) {
        Ok(tried) => Ok(tried),
        Err(error) => {
            token.renew();
            for object in objects(token, ring, version)? {
                let _ = token.session()?.destroy_object(object);
            }
            Err(error)
        }
    }
}

pub(super) fn self_test(token: &mut Token) -> Result<Vec<Trial>, HsmError> {
    let ring = Ring::new(SELF_TEST_RING)?;
    let mut trials = Vec::new();
    for mechanism in Mechanism::ALL {
        for object in objects(token, &ring, 1)? {
            token.session()?.destroy_object(object).map_err(Fault::from)?;
        }
        let failure = create_kek(token, &ring, 1, mechanism).err();
        token.renew();
        token.check()?;
        trials.push(Trial { mechanism, failure });
    }
    for object in objects(token, &ring, 1)? {
        token.session()?.destroy_object(object).map_err(Fault::from)?;
    }
    Ok(trials)
}

pub(super) fn list(token: &Token, ring: &Ring) -> Result<Vec<KeyInfo>, HsmError> {
    let mut keys: Vec<KeyInfo> = Vec::new();
    for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY] {
        let template = [Attribute::Token(true), Attribute::Class(class)];
        let found = token.session()?.find_objects(&template).map_err(Fault::from)?;
        if found.len() > SCAN_MAX {
            return Err(HsmError::new(
                ErrorKind::Unsupported,
                "more than 4096 keys on the token",
            ));
        }
        for object in found {
            keys.extend(info(token, ring, object)?);
        }
    }
    keys.sort_by_key(|k| k.version);
    if keys.len() > KEYS_MAX {
        return Err(HsmError::new(ErrorKind::Unsupported, "more than 512 keys in the ring"));
    }
    Ok(keys)
}

/// What an object says it is, if it is one of this ring.
fn info(token: &Token, ring: &Ring, object: ObjectHandle) -> Result<Option<KeyInfo>, Fault> {
    let attributes = token
        .session()?
        .get_attributes(object, &[AttributeType::Label, AttributeType::Id])?;
    let (mut name, mut number) = (Vec::new(), Vec::new());
    for attribute in attributes {
        match attribute {
            Attribute::Label(bytes) => name = bytes,
            Attribute::Id(bytes) => number = bytes,
            _ => {}
        }
    }
    let version = std::str::from_utf8(&name).ok().and_then(|name| version_of(ring, name));
    let Some(version) = version.filter(|v| *v > 0) else {
        return Ok(None);
    };
    let part = Part::ALL.into_iter().find(|part| id(ring, version, *part) == number);
    Ok(part.and_then(Part::means).map(|(kind, mechanism)| KeyInfo {
        ring: ring.clone(),
        version,
        kind,
        mechanism,
    }))
}

pub(super) fn destroy(token: &Token, ring: &Ring, version: u32) -> Result<(), HsmError> {
    let objects = objects(token, ring, version)?;
    if objects.is_empty() {
        return Err(missing(ring, version).into());
    }
    for object in objects {
        token.session()?.destroy_object(object).map_err(Fault::from)?;
    }
    Ok(())
}

/// Everything under one name, half keys included.
fn objects(token: &Token, ring: &Ring, version: u32) -> Result<Vec<ObjectHandle>, HsmError> {
    let mut found = Vec::new();
    for part in Part::ALL {
        let classes: &[ObjectClass] = match part {
            Part::Gcm | Part::Kw | Part::Cbc | Part::Mac => &[ObjectClass::SECRET_KEY],
            Part::Oaep | Part::Es256 | Part::Ps256 => &[ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY],
        };
        for class in classes {
            found.extend(token.find_all(ring, version, part, *class)?);
        }
    }
    Ok(found)
}

// ---- templates ----

/// What a key may do; everything else is refused explicitly, since defaults differ between tokens. A KEK never
/// gets both unwrap and decrypt: where key wrap is a `C_Decrypt` mechanism too, that would open wrapped keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Crypt,
    Wrap,
    Sign,
}

impl Use {
    fn secret(self) -> Vec<Attribute> {
        vec![
            Attribute::Encrypt(self == Self::Crypt),
            Attribute::Decrypt(self == Self::Crypt),
            Attribute::Wrap(self == Self::Wrap),
            Attribute::Unwrap(self == Self::Wrap),
            Attribute::Sign(self == Self::Sign),
            Attribute::Verify(self == Self::Sign),
        ]
    }
}

/// Common to every private or secret key: it stays on the token, in the clear nowhere.
pub(super) fn kept(ring: &Ring, version: u32, part: Part) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label(ring, version).into_bytes()),
        Attribute::Id(id(ring, version, part)),
    ]
}

/// Good to have, but not every token takes them: tried from the strictest down. `DESTROYABLE=false` is not
/// among them: rotation could not end.
pub(super) fn strictness(only: MechanismType) -> [Vec<Attribute>; 3] {
    let fixed = || vec![Attribute::Modifiable(false), Attribute::Copyable(false)];
    let mut all = fixed();
    all.push(Attribute::AllowedMechanisms(vec![only]));
    [all, fixed(), Vec::new()]
}

fn generate_kek(token: &mut Token, ring: &Ring, version: u32, mechanism: Mechanism) -> Result<(), Fault> {
    let (aes, generic) = (M::AesKeyGen, M::GenericSecretKeyGen);
    match mechanism {
        Mechanism::Gcm => secret(
            token,
            ring,
            version,
            Part::Gcm,
            Use::Crypt,
            &aes,
            MechanismType::AES_GCM,
        ),
        Mechanism::Kw => secret(
            token,
            ring,
            version,
            Part::Kw,
            Use::Wrap,
            &aes,
            MechanismType::AES_KEY_WRAP,
        ),
        Mechanism::CbcHmac => {
            secret(
                token,
                ring,
                version,
                Part::Cbc,
                Use::Crypt,
                &aes,
                MechanismType::AES_CBC,
            )?;
            secret(
                token,
                ring,
                version,
                Part::Mac,
                Use::Sign,
                &generic,
                MechanismType::SHA256_HMAC,
            )
        }
        Mechanism::OaepSha256 => sign::rsa_pair(
            token,
            ring,
            version,
            Part::Oaep,
            Use::Crypt,
            MechanismType::RSA_PKCS_OAEP,
        ),
    }
}

/// A 32-byte secret key.
fn secret(
    token: &mut Token,
    ring: &Ring,
    version: u32,
    part: Part,
    usage: Use,
    generator: &M<'_>,
    only: MechanismType,
) -> Result<(), Fault> {
    let mut template = kept(ring, version, part);
    template.extend(usage.secret());
    template.push(Attribute::ValueLen(32.into()));
    strictest(token, only, |token, extra| {
        let template = [&template[..], extra].concat();
        Ok(token.session()?.generate_key(generator, &template)?)
    })
}

/// Generates with the strictest template the token takes, and checks that the key really stays in.
pub(super) fn strictest(
    token: &mut Token,
    only: MechanismType,
    generate: impl Fn(&Token, &[Attribute]) -> Result<ObjectHandle, Fault>,
) -> Result<(), Fault> {
    let mut result = Err(Fault::new(ErrorKind::Unsupported, "no template"));
    for extra in strictness(only) {
        result = generate(token, &extra);
        match &result {
            Ok(_) => break,
            Err(_) => {
                token.renew();
                token.check()?;
            }
        }
    }
    stays_in(token, result?)
}

fn stays_in(token: &Token, key: ObjectHandle) -> Result<(), Fault> {
    let wanted = [AttributeType::Extractable, AttributeType::Sensitive];
    let said = token.session()?.get_attributes(key, &wanted)?;
    let holds = said.contains(&Attribute::Extractable(false)) && said.contains(&Attribute::Sensitive(true));
    if holds {
        Ok(())
    } else {
        Err(Fault::new(ErrorKind::Unsupported, "the token made an extractable key"))
    }
}
