//! Log-ins that were begun: nothing of them is kept. A handle is a random name and two times under a keyed hash; what only the daemon may
//! know of the log-in follows from the name, so that whoever asks to log in fills nothing.
//!
//! ```text
//! handle = base64url( name 32 | begun 8 | ends 8 | HMAC-SHA-256(key, "handle", trust, place, name, begun, ends) 32 )
//! state, nonce, verifier = base64url( HMAC-SHA-256(key, WORD, name) )
//! ```
//! The key is made anew at each unseal. `trust` is the trust as it was then (name, version, time of making) and the flow; `place` is the redirect,
//! or the device code: a handle is good for the one that it was made for.

use crate::{
    auth::Refused,
    base::{
        locked::{LockError, LockedKey},
        random::Random,
        secret::SecretBytes,
        time::Timestamp,
    },
};
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

const NAME_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
const BODY_BYTES: usize = NAME_BYTES + 2 * TIME_BYTES;
const MAC_BYTES: usize = 32;
/// Characters of a handle.
const TEXT_BYTES: usize = 107;

/// The key of all handles.
pub struct Handles(LockedKey);

/// A log-in that was begun here.
pub struct Begun {
    body: [u8; BODY_BYTES],
    /// When.
    pub began: Timestamp,
    /// It must be done by then.
    pub ends: Timestamp,
}

impl Begun {
    /// Its random name.
    pub fn name(&self) -> [u8; NAME_BYTES] {
        let mut name = [0; NAME_BYTES];
        name.iter_mut().zip(&self.body).for_each(|(to, from)| *to = *from);
        name
    }
}

impl Handles {
    /// With a key of its own.
    /// # Errors
    /// No memory can be locked.
    pub fn new(random: &dyn Random) -> Result<Self, LockError> {
        LockedKey::random(random).map(Self)
    }

    /// A log-in that begins at `now`.
    pub fn begin(random: &dyn Random, now: Timestamp, life_secs: u64) -> Begun {
        let ends = now.plus_secs(life_secs);
        let mut body = [0; BODY_BYTES];
        let (name, times) = body.split_at_mut(NAME_BYTES);
        random.fill(name);
        let (began, end) = times.split_at_mut(TIME_BYTES);
        began.copy_from_slice(&now.0.to_be_bytes());
        end.copy_from_slice(&ends.0.to_be_bytes());
        Begun { body, began: now, ends }
    }

    /// The handle of a log-in, for this trust (its name and state) and place only.
    pub fn text(&self, begun: &Begun, trust: &str, place: &str) -> SecretBytes {
        let mac = self.hash("handle", &[trust.as_bytes(), place.as_bytes(), &begun.body]);
        SecretBytes::new(
            BASE64URL_NOPAD
                .encode(&[&begun.body[..], mac.as_ref()].concat())
                .into_bytes(),
        )
    }

    /// The log-in of a handle.
    /// # Errors
    /// `Handle`: not of this vault since it was opened, or of another trust or place. `Expired`.
    pub fn open(&self, text: &SecretBytes, trust: &str, place: &str, now: Timestamp) -> Result<Begun, Refused> {
        if text.len() != TEXT_BYTES {
            return Err(Refused::Handle);
        }
        let bytes = BASE64URL_NOPAD.decode(text.expose()).map_err(|_| Refused::Handle)?;
        let (body, mac) = bytes.split_first_chunk::<BODY_BYTES>().ok_or(Refused::Handle)?;
        let want = self.hash("handle", &[trust.as_bytes(), place.as_bytes(), body]);
        if mac.len() != MAC_BYTES || !SecretBytes::from(mac).same_as(want.as_ref()) {
            return Err(Refused::Handle);
        }
        let time = |at: usize| {
            let mut time = [0; TIME_BYTES];
            time.iter_mut()
                .zip(body.iter().skip(at))
                .for_each(|(to, from)| *to = *from);
            Timestamp(u64::from_be_bytes(time))
        };
        let (began, ends) = (time(NAME_BYTES), time(NAME_BYTES + TIME_BYTES));
        match now < ends {
            true => Ok(Begun {
                body: *body,
                began,
                ends,
            }),
            false => Err(Refused::Expired),
        }
    }

    /// What must come back with the code; public once the browser has it.
    pub fn state(&self, begun: &Begun) -> String {
        self.derived("state", begun)
    }
    /// What must stand in the ID token.
    pub fn nonce(&self, begun: &Begun) -> String {
        self.derived("nonce", begun)
    }
    /// RFC 7636: 43 characters that never leave the daemon but for the token endpoint.
    pub fn verifier(&self, begun: &Begun) -> SecretBytes {
        SecretBytes::new(self.derived("verifier", begun).into_bytes())
    }

    fn derived(&self, word: &str, begun: &Begun) -> String {
        BASE64URL_NOPAD.encode(self.hash(word, &[&begun.body]).as_ref())
    }

    /// Each part behind its length: no two lists of parts are the same text.
    fn hash(&self, word: &str, parts: &[&[u8]]) -> hmac::Tag {
        let mut hash = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()));
        for part in [&[b"strongroom begun log-in v1", word.as_bytes()], parts].concat() {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// R-AUTH-1: a handle is good for its trust, its place, its time and this run only; what follows from it is told apart.
    #[test]
    fn a_handle_is_good_for_what_it_was_made_for() {
        let (handles, now) = (Handles::new(&OsRandom).unwrap(), Timestamp(1_795_000_000_000));
        let begun = Handles::begin(&OsRandom, now, 600);
        let text = handles.text(&begun, "people", "here");
        let open = |trust, place, secs| {
            handles
                .open(&text, trust, place, now.plus_secs(secs))
                .map(|begun| begun.began)
        };
        assert_eq!(open("people", "here", 599), Ok(now));
        assert_eq!(open("people", "here", 600), Err(Refused::Expired));
        for (trust, place) in [("other", "here"), ("people", "there"), ("peopleh", "ere")] {
            assert_eq!(open(trust, place, 0), Err(Refused::Handle), "{trust} {place}");
        }
        let another = Handles::new(&OsRandom).unwrap();
        assert!(another.open(&text, "people", "here", now).is_err(), "another run");
        let again = handles.open(&text, "people", "here", now).unwrap();
        let verifier = |begun: &Begun| String::from_utf8(handles.verifier(begun).expose().to_vec()).unwrap();
        assert_eq!(verifier(&begun), verifier(&again));
        let other = Handles::begin(&OsRandom, now, 600);
        let words = [&begun, &other].map(|begun| [handles.state(begun), handles.nonce(begun), verifier(begun)]);
        let told: BTreeSet<_> = words.iter().flatten().collect();
        assert_eq!(told.len(), 6);
        assert!(told.iter().all(|text| text.len() == 43));
    }

    proptest! {
        /// A handle with any one character changed, cut or added is none.
        #[test]
        fn no_other_handle_opens(at in 0..TEXT_BYTES, to in "[A-Za-z0-9_-]", more in "[A-Za-z0-9_=-]{1,3}") {
            let (handles, now) = (Handles::new(&OsRandom).unwrap(), Timestamp(1_795_000_000_000));
            let text = handles.text(&Handles::begin(&OsRandom, now, 600), "t", "p");
            let text = String::from_utf8(text.expose().to_vec()).unwrap();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            for wrong in [changed, text[..at].to_owned(), format!("{text}{more}")] {
                if wrong != text {
                    prop_assert!(handles.open(&SecretBytes::new(wrong.into_bytes()), "t", "p", now).is_err());
                }
            }
        }
    }
}
