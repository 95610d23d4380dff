//! Every way a log-in can be refused.

/// Why a proof is not believed. The word stands in the audit record; whoever sent a token hears it only when its signature was good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Longer than any token.
    TooLarge,
    /// Not three parts of base64url.
    NotAToken,
    /// The header is not what a header is.
    Header,
    /// It says `crit`.
    Critical,
    /// It brings a key or another way to be read.
    BringsKey,
    /// Its `typ` is of something else.
    Type,
    /// The claims are no JSON object, or one with repeated keys.
    Claims,
    /// `none`, HMAC, or one that the trust does not take.
    Algorithm,
    /// No trust names its issuer.
    UnknownIssuer,
    /// None of the issuer's keys is meant by it.
    NoKey,
    /// The issuer's keys could not be had.
    KeysUnavailable,
    /// The signature is not the key's.
    Signature,
    /// It is not for us.
    Audience,
    /// No subject.
    Subject,
    /// A time is missing, or is no time.
    Times,
    /// It is over.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It was issued too long ago, or lives too long.
    TooOld,
    /// It was used before.
    Replayed,
    /// It may have been used before this daemon began to remember.
    NotRemembered,
    /// As many are remembered as can be.
    RememberedFull,
    /// Of a kind of run that the platform's preset never trusts.
    Trap,
    /// No binding of the trust fits its claims.
    NoBinding,
    /// Its claims are more than policies take.
    TooManyClaims,
    /// It proves no possession of the key it should be bound to.
    Possession,
    /// The proof of that key is good, but for a nonce of ours.
    ProofNonce,
    /// No such trust, or one of another method.
    NoTrust,
    /// No such secret id: never made, expired, or of another role.
    Secret,
    /// The secret id was used before: somebody has a copy.
    SecretReused,
    /// Not from a network that the trust or the secret id names.
    Network,
    /// No client certificate, or none that the trust's authorities vouch for.
    Certificate,
    /// Not over the Unix socket.
    Peer,
    /// The handle of no log-in that was begun here, for this trust and place.
    Handle,
    /// The trust, or its provider, has no flow without a browser.
    NoFlow,
    /// As many log in with a typed code as may, or they begin too fast.
    TooManyFlows,
    /// The OpenID provider cannot be asked, or says nothing that can be used.
    ProviderUnavailable,
    /// The provider says no, or the person did.
    ProviderDenied,
    /// The provider knows no such code, or no longer.
    Code,
    /// Nobody has typed the code yet.
    Pending,
    /// Nobody has, and it was asked too often.
    SlowDown,
    /// The ID token is not of the log-in that was begun.
    Nonce,
}

impl Refused {
    /// The word in the audit record.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::NotAToken => "not-a-token",
            Self::Header => "header",
            Self::Critical => "crit",
            Self::BringsKey => "brings-key",
            Self::Type => "type",
            Self::Claims => "claims",
            Self::Algorithm => "algorithm",
            Self::UnknownIssuer => "unknown-issuer",
            Self::NoKey => "no-key",
            Self::KeysUnavailable => "keys-unavailable",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::Times => "times",
            Self::Expired => "expired",
            Self::NotYet => "not-yet",
            Self::TooOld => "too-old",
            Self::Replayed => "replayed",
            Self::NotRemembered => "not-remembered",
            Self::RememberedFull => "remembered-full",
            Self::Trap => "trap",
            Self::NoBinding => "no-binding",
            Self::TooManyClaims => "too-many-claims",
            Self::Possession => "possession",
            Self::ProofNonce => "proof-nonce",
            Self::NoTrust => "no-trust",
            Self::Secret => "secret",
            Self::SecretReused => "secret-reused",
            Self::Network => "network",
            Self::Certificate => "certificate",
            Self::Peer => "peer",
            Self::Handle => "handle",
            Self::NoFlow => "no-flow",
            Self::TooManyFlows => "too-many-flows",
            Self::ProviderUnavailable => "provider-unavailable",
            Self::ProviderDenied => "provider-denied",
            Self::Code => "code",
            Self::Pending => "pending",
            Self::SlowDown => "slow-down",
            Self::Nonce => "nonce",
        }
    }

    /// Whether whoever was asked has vouched for the sender (a good signature, a handle of ours): then they may know more, and are no stranger who tries.
    pub const fn is_told(self) -> bool {
        matches!(
            self,
            Self::Audience
                | Self::Subject
                | Self::Times
                | Self::Expired
                | Self::NotYet
                | Self::TooOld
                | Self::Replayed
                | Self::NotRemembered
                | Self::RememberedFull
                | Self::Trap
                | Self::NoBinding
                | Self::TooManyClaims
                | Self::ProofNonce
                | Self::NoFlow
                | Self::ProviderUnavailable
                | Self::ProviderDenied
                | Self::Pending
                | Self::SlowDown
                | Self::Nonce
        )
    }
}
