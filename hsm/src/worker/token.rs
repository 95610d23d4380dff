//! A module, the slot of our token, the session, and how keys are found.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::raw::{Info, Raw};
use crate::config::TokenSelector;
use crate::error::{ErrorKind, HsmError};
use crate::harden;
use crate::name::{Part, Ring, id};
use crate::pin::PIN_BYTES_MAX;
use crate::wire::{Pin, PinFlags, TokenIdentity};

/// An initialised module.
pub(super) struct Module {
    pub(super) raw: Raw,
    pub(super) pkcs11: Pkcs11,
}

/// Our token among those of the module.
pub(super) struct Found {
    slot: Slot,
    pub(super) identity: TokenIdentity,
    pub(super) flags: PinFlags,
}

/// A module and our slot, before the log-in.
pub(super) struct Selected {
    module: Module,
    slot: Slot,
}

/// A token, logged in.
pub(super) struct Token {
    pub(super) raw: Raw,
    pkcs11: Pkcs11,
    slot: Slot,
    /// `None`: lost, and the next request says so.
    session: Option<Session>,
}

impl Module {
    /// Shuts the process in (if asked), loads the module and initialises it.
    pub(super) fn open(path: &Path, landlock: &[std::path::PathBuf], pin: Option<&Path>) -> Result<Self, HsmError> {
        if !landlock.is_empty() {
            harden::landlock(landlock, path, pin)?;
        }
        let raw = Raw::load(path)?;
        let pkcs11 = Pkcs11::new(path).map_err(Fault::from)?;
        pkcs11
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(Fault::from)?;
        Ok(Self { raw, pkcs11 })
    }

    /// The slots with a token, and who that is. A slot that cannot answer is passed over: another token's
    /// trouble is not ours.
    pub(super) fn tokens(&self) -> Result<Vec<(Slot, Info)>, HsmError> {
        let slots = self.pkcs11.get_slots_with_token().map_err(Fault::from)?;
        Ok(slots
            .into_iter()
            .filter_map(|slot| Some((slot, self.raw.token_info(slot).ok()?)))
            .collect())
    }

    /// Our token: the only one of that label or serial.
    pub(super) fn find(&self, selector: &TokenSelector) -> Result<Found, HsmError> {
        let ours = |identity: &TokenIdentity| match selector {
            TokenSelector::Label(label) => identity.label == *label,
            TokenSelector::Serial(serial) => identity.serial == *serial,
        };
        let mut found = self
            .tokens()?
            .into_iter()
            .filter(|(_, info)| info.initialized && ours(&info.identity));
        match (found.next(), found.next()) {
            (Some((slot, Info { identity, flags, .. })), None) => Ok(Found { slot, identity, flags }),
            (None, _) => Err(HsmError::new(ErrorKind::Device, format!("no token with {selector:?}"))),
            (Some(_), Some(_)) => Err(HsmError::new(
                ErrorKind::KeyConflict,
                format!("two tokens with {selector:?}"),
            )),
        }
    }

    pub(super) fn select(self, found: Found) -> Selected {
        Selected {
            module: self,
            slot: found.slot,
        }
    }

    pub(super) fn finalize(self) {
        let _ = self.pkcs11.finalize();
    }
}

impl Selected {
    /// Opens the session and logs in: the one log-in of this process.
    pub(super) fn login(self, pin: Pin) -> Result<Token, HsmError> {
        let Module { raw, pkcs11 } = self.module;
        let pin = match pin {
            Pin::Bytes(bytes) => bytes,
            Pin::File(path) => read_pin(&path)?,
        };
        let session = pkcs11.open_rw_session(self.slot).map_err(Fault::from)?;
        match session.login_with_raw(UserType::User, &secret(pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(Fault::from(error).into()),
        }
        Ok(Token {
            raw,
            pkcs11,
            slot: self.slot,
            session: Some(session),
        })
    }
}

impl Token {
    /// Fails when the session is lost, before anything is tried with it.
    pub(super) fn check(&self) -> Result<(), HsmError> {
        self.session().map(|_| ())
    }

    pub(super) fn session(&self) -> Result<&Session, HsmError> {
        self.session
            .as_ref()
            .ok_or_else(|| HsmError::new(ErrorKind::SessionLost, "could not be renewed"))
    }

    /// A new session in place of one that saw an error: some tokens leave the failed operation active in it.
    /// The new one is opened first, since closing the last session would log out.
    pub(super) fn renew(&mut self) {
        let fresh = self.pkcs11.open_rw_session(self.slot).ok();
        self.session = fresh.filter(|s| {
            s.get_session_info()
                .is_ok_and(|i| matches!(i.session_state(), SessionState::RwUser))
        });
    }

    /// The one object of this role and class; `None` when there is none.
    pub(super) fn find(
        &self,
        ring: &Ring,
        version: u32,
        part: Part,
        class: ObjectClass,
    ) -> Result<Option<ObjectHandle>, Fault> {
        match self.find_all(ring, version, part, class)?.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(Fault::new(ErrorKind::KeyConflict, "several objects of one CKA_ID")),
        }
    }

    pub(super) fn find_all(
        &self,
        ring: &Ring,
        version: u32,
        part: Part,
        class: ObjectClass,
    ) -> Result<Vec<ObjectHandle>, Fault> {
        let template = [
            Attribute::Token(true),
            Attribute::Class(class),
            Attribute::Id(id(ring, version, part)),
        ];
        Ok(self.session()?.find_objects(&template)?)
    }

    pub(super) fn finalize(self) {
        drop(self.session);
        let _ = self.pkcs11.finalize();
    }
}

/// Reads the PIN into one buffer that does not grow.
fn read_pin(path: &Path) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let needed = |what: String| HsmError::new(ErrorKind::PinNeeded, format!("{}: {what}", path.display()));
    let mut file = File::open(path).map_err(|e| needed(e.to_string()))?;
    let found = file.metadata().map_err(|e| needed(e.to_string()))?;
    // A group may read: that is how secrets are mounted for a service's group.
    let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777;
    if found.is_file() && mode & 0o037 != 0 {
        return Err(needed(format!(
            "mode {mode:04o} lets others at the PIN: chmod 0600, and change the PIN if somebody may have read it"
        )));
    }
    let mut pin = Zeroizing::new(vec![0; PIN_BYTES_MAX + 3]);
    let mut len = 0;
    while let Some(rest) = pin.get_mut(len..).filter(|r| !r.is_empty()) {
        match file.read(rest).map_err(|e| needed(e.to_string()))? {
            0 => break,
            n => len += n,
        }
    }
    pin.truncate(len);
    for end in [b'\n', b'\r'] {
        if pin.last() == Some(&end) {
            pin.pop();
        }
    }
    if pin.is_empty() || pin.len() > PIN_BYTES_MAX {
        return Err(needed("a PIN has 1 to 256 bytes".into()));
    }
    Ok(pin)
}

/// Moves the buffer, without a copy, into the type that wipes it after the log-in.
pub(super) fn secret(mut pin: Zeroizing<Vec<u8>>) -> RawAuthPin {
    RawAuthPin::new(Box::new(std::mem::take(&mut *pin)))
}
