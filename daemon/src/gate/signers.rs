//! The HSMs of the configuration, as the transit room asks them.

use crate::{
    base::id::TransitObjectId,
    transit::{KeyKind, SignerError, Signers},
};
use strongroom_hsm::{ErrorKind, Hsm, HsmError, KeyKind as HsmKey, Ring};

/// Each object is a ring of its own, with one version.
const VERSION: u32 = 1;

/// All that there are.
pub struct HsmSigners(Vec<Hsm>);

impl HsmSigners {
    /// Those of the configuration.
    pub const fn new(hsms: Vec<Hsm>) -> Self {
        Self(hsms)
    }

    fn named(&self, hsm: &str) -> Result<&Hsm, SignerError> {
        let found = self.0.iter().find(|one| one.name() == hsm);
        found.ok_or_else(|| SignerError::NoSuchHsm(hsm.to_owned()))
    }
}

impl Signers for HsmSigners {
    fn knows(&self, hsm: &str) -> bool {
        self.named(hsm).is_ok()
    }

    fn make(&self, hsm: &str, object: TransitObjectId, kind: KeyKind) -> Result<Vec<u8>, SignerError> {
        let kind = match kind {
            KeyKind::EcdsaP256 => HsmKey::SignEs256,
            KeyKind::RsaPss3072 => HsmKey::SignPs256,
            _ => return Err(SignerError::Unsupported),
        };
        let (hsm, ring) = (self.named(hsm)?, ring(object)?);
        hsm.create(&ring, VERSION, kind).map_err(told)?;
        hsm.public_key(&ring, VERSION).map_err(told)
    }

    fn sign(&self, hsm: &str, object: TransitObjectId, digest: &[u8; 32]) -> Result<Vec<u8>, SignerError> {
        self.named(hsm)?.sign(&ring(object)?, VERSION, digest).map_err(told)
    }

    fn destroy(&self, hsm: &str, object: TransitObjectId) -> Result<bool, SignerError> {
        match self.named(hsm)?.destroy(&ring(object)?, VERSION) {
            Err(error) if error.kind == ErrorKind::KeyMissing => Ok(false),
            done => done.map(|()| true).map_err(told),
        }
    }
}

fn ring(object: TransitObjectId) -> Result<Ring, SignerError> {
    Ring::new(&format!("transit-{object}")).map_err(told)
}

fn told(error: HsmError) -> SignerError {
    match error.kind {
        ErrorKind::AuthFailed | ErrorKind::AuthHeld | ErrorKind::AuthLocked => SignerError::Pin,
        ErrorKind::KeyMissing => SignerError::Missing,
        ErrorKind::Unsupported => SignerError::Unsupported,
        _ => SignerError::Away(Box::new(error)),
    }
}
