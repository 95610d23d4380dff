//! A new token in a free slot: for throw-away tokens (tests, `strongroomd dev`). Through the module itself, so
//! that it works for every vendor and no PIN is ever an argument of a tool.

use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::token::Module;
use crate::error::{ErrorKind, HsmError};

type Bytes = Zeroizing<Vec<u8>>;

/// Initialises the first slot without a token of its own, never one that has one.
pub(super) fn run(module: &Module, label: &str, so_pin: Bytes, pin: Bytes) -> Result<(), HsmError> {
    let tokens = module.tokens()?;
    if tokens
        .iter()
        .any(|(_, info)| info.initialized && info.identity.label == label)
    {
        return Err(HsmError::new(ErrorKind::KeyExists, "a token of this label"));
    }
    let free = tokens.iter().find(|(_, info)| !info.initialized).map(|(slot, _)| *slot);
    let slot = free.ok_or_else(|| HsmError::new(ErrorKind::Device, "no slot with an uninitialised token"))?;
    let (so_pin, pin) = (text(so_pin)?, text(pin)?);
    module.pkcs11.init_token(slot, &so_pin, label).map_err(Fault::from)?;
    // SoftHSM gives the new token another slot number.
    let tokens = module.tokens()?;
    let ours = tokens
        .iter()
        .find(|(_, info)| info.initialized && info.identity.label == label);
    let (slot, _) = ours.ok_or_else(|| HsmError::new(ErrorKind::Device, "the new token did not appear"))?;
    let session = module.pkcs11.open_rw_session(*slot).map_err(Fault::from)?;
    session.login(UserType::So, Some(&so_pin)).map_err(Fault::from)?;
    session.init_pin(&pin).map_err(Fault::from)?;
    session.logout().map_err(Fault::from)?;
    Ok(())
}

fn text(mut pin: Bytes) -> Result<AuthPin, HsmError> {
    let text = String::from_utf8(std::mem::take(&mut *pin)).map_err(|_| HsmError::invalid("a PIN that is not text"))?;
    Ok(AuthPin::new(text.into_boxed_str()))
}
