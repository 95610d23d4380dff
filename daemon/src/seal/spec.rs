//! What a slot is asked to be: its name, its factors, its HSMs. Parsed once, at the edge.

use super::error::SealError;
use std::{fmt, str::FromStr};

/// A slot's name: 1 to 64 of `a-z 0-9 -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 64;
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(SealError::Spec("a slot's name is 1 to 64 of a-z 0-9 -"))
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// `k` of `n` shares, 1 <= k <= n <= 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    k: u8,
    n: u8,
}

impl Quorum {
    /// Most shares of one slot.
    pub const SHARES_MAX: u8 = 32;

    /// # Errors
    /// `Spec` out of bounds.
    pub fn new(k: u8, n: u8) -> Result<Self, SealError> {
        if (1..=n).contains(&k) && n <= Self::SHARES_MAX {
            Ok(Self { k, n })
        } else {
            Err(SealError::Spec("a quorum k/n needs 1 <= k <= n <= 32"))
        }
    }
    /// Shares needed.
    pub const fn k(self) -> u8 {
        self.k
    }
    /// Shares made.
    pub const fn n(self) -> u8 {
        self.n
    }
}

/// What must come together to open a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// An HSM alone: opens by itself at start.
    Hsm,
    /// Operators alone: break-glass.
    Quorum(Quorum),
    /// An HSM and operators.
    HsmQuorum(Quorum),
}

impl Factors {
    /// Whether an HSM takes part.
    pub const fn has_hsm(self) -> bool {
        matches!(self, Self::Hsm | Self::HsmQuorum(_))
    }
    /// The operators' part.
    pub const fn quorum(self) -> Option<Quorum> {
        match self {
            Self::Hsm => None,
            Self::Quorum(quorum) | Self::HsmQuorum(quorum) => Some(quorum),
        }
    }
}

impl fmt::Display for Factors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hsm => f.write_str("hsm"),
            Self::Quorum(Quorum { k, n }) => write!(f, "quorum:{k}/{n}"),
            Self::HsmQuorum(Quorum { k, n }) => write!(f, "hsm+quorum:{k}/{n}"),
        }
    }
}

impl FromStr for Factors {
    type Err = SealError;
    /// `hsm`, `quorum:4/7` or `hsm+quorum:3/5`.
    fn from_str(text: &str) -> Result<Self, SealError> {
        const RULE: SealError = SealError::Spec("factors are `hsm`, `quorum:k/n` or `hsm+quorum:k/n`");
        let quorum = |text: &str| {
            let (k, n) = text.split_once('/').ok_or(RULE)?;
            Quorum::new(k.parse().map_err(|_| RULE)?, n.parse().map_err(|_| RULE)?)
        };
        match text.split_once(':') {
            None if text == "hsm" => Ok(Self::Hsm),
            Some(("quorum", rest)) => quorum(rest).map(Self::Quorum),
            Some(("hsm+quorum", rest)) => quorum(rest).map(Self::HsmQuorum),
            _ => Err(RULE),
        }
    }
}

/// A slot to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSpec {
    /// Its name.
    pub name: SlotName,
    /// Its factors.
    pub factors: Factors,
    /// Names of the HSMs that shall each be able to open it, in the order in which they are asked. Empty: all that are configured.
    pub hsms: Vec<String>,
}

impl SlotSpec {
    /// HSMs of one slot.
    pub const HSMS_MAX: usize = 8;

    /// From the wire's words.
    /// # Errors
    /// `Spec` when a part is out of bounds, or HSMs are named for a slot without that factor.
    pub fn parse(name: &str, factors: &str, hsms: &[String]) -> Result<Self, SealError> {
        let spec = Self {
            name: name.parse()?,
            factors: factors.parse()?,
            hsms: hsms.to_vec(),
        };
        if !spec.factors.has_hsm() && !spec.hsms.is_empty() {
            return Err(SealError::Spec("a slot without the hsm factor names no HSMs"));
        }
        if spec.hsms.len() > Self::HSMS_MAX {
            return Err(SealError::Spec("a slot names at most 8 HSMs"));
        }
        let twice = spec
            .hsms
            .iter()
            .enumerate()
            .any(|(at, name)| spec.hsms.iter().skip(at + 1).any(|other| other == name));
        if twice {
            Err(SealError::Spec("an HSM is named twice"))
        } else {
            Ok(spec)
        }
    }
}

/// What a session is opened for. Bound when it opens: shares given for one operation serve no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Opens the sealed vault.
    Unseal,
    /// Adds a slot.
    AddSlot(SlotSpec),
    /// Removes a slot.
    RemoveSlot(SlotName),
    /// New shares and a new seed for an existing slot.
    RekeySlot(SlotSpec),
    /// Proves that the slot opens.
    VerifySlot,
    /// A token for policy and auth only.
    Recover,
}

impl Operation {
    /// One word, for status and audit.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unseal => "unseal",
            Self::AddSlot(_) => "add_slot",
            Self::RemoveSlot(_) => "remove_slot",
            Self::RekeySlot(_) => "rekey_slot",
            Self::VerifySlot => "verify_slot",
            Self::Recover => "recover",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-SEAL-2: the three kinds of slot, and nothing else, can be asked for.
    #[test]
    fn factors_parse_and_print() {
        for good in ["hsm", "quorum:1/1", "quorum:4/7", "hsm+quorum:3/5", "hsm+quorum:32/32"] {
            assert_eq!(good.parse::<Factors>().unwrap().to_string(), good);
        }
        let bad = [
            "",
            "HSM",
            "hsm:",
            "hsm:1/2",
            "quorum",
            "quorum:",
            "quorum:0/3",
            "quorum:4/3",
            "quorum:2/33",
            "quorum:2",
            "quorum:-1/3",
            "quorum:256/256",
            "quorum+hsm:1/2",
            "hsm+quorum",
            "quorum:3/5 ",
        ];
        for bad in bad {
            assert!(bad.parse::<Factors>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn specs_are_checked() {
        let hsms = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(SlotSpec::parse("daily", "hsm+quorum:3/5", &hsms(&["a", "b"])).is_ok());
        assert!(SlotSpec::parse("Daily", "hsm", &[]).is_err());
        assert!(SlotSpec::parse("", "hsm", &[]).is_err());
        assert!(SlotSpec::parse(&"a".repeat(65), "hsm", &[]).is_err());
        assert!(SlotSpec::parse("glass", "quorum:1/2", &hsms(&["a"])).is_err());
        assert!(SlotSpec::parse("daily", "hsm", &hsms(&["a", "a"])).is_err());
    }
}
