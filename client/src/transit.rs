//! Keys that encrypt and sign for callers who never hold them. Many items at once, and the life of keys, go over [`Client::read`] and
//! [`Client::change`] with the wire's own messages.

use crate::{
    call::Client,
    error::{Error, Refusal},
    secret::Secret,
    v1::{self, transit_ciphertext, transit_plaintext, transit_verified},
};
use bytes::Bytes;

/// A signature or an HMAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Its bytes: raw for Ed25519, RSA and HMAC, DER for ECDSA.
    pub bytes: Vec<u8>,
    /// The version of the key that made it; verification asks for it.
    pub key_version: u32,
}

/// A fresh key for the caller's own use.
#[derive(Debug)]
pub struct DataKey {
    /// The key; `None` when only the wrapped one was asked for.
    pub plaintext: Option<Secret>,
    /// The same as a ciphertext, for [`Client::decrypt`] later.
    pub wrapped: Vec<u8>,
}

impl Client {
    /// Encrypts with the newest version of `key` (`transit/orders`). `context`: associated data, at most 4096 bytes, needed again to decrypt.
    /// # Errors
    /// [`Error::Denied`] also when there is no such mount; [`Error::NotFound`] for no such key.
    pub async fn encrypt(&self, key: &str, plaintext: &Secret, context: &[u8]) -> Result<Vec<u8>, Error> {
        let item = v1::TransitPlain {
            plaintext: plaintext.to_wire(),
            context: Bytes::copy_from_slice(context),
        };
        let request = v1::TransitEncryptRequest {
            path: key.to_owned(),
            items: vec![item],
        };
        let got = self
            .read(request, |s, r| async move { s.transit().encrypt(r).await })
            .await?;
        ciphertext(got.results)
    }

    /// Decrypts.
    /// # Errors
    /// [`Error::Invalid`] for a ciphertext of another key, a changed one, another context, or a version that is not in use any more.
    pub async fn decrypt(&self, key: &str, ciphertext: &[u8], context: &[u8]) -> Result<Secret, Error> {
        let request = v1::TransitDecryptRequest {
            path: key.to_owned(),
            items: vec![sealed(ciphertext, context)],
        };
        let got = self
            .read(request, |s, r| async move { s.transit().decrypt(r).await })
            .await?;
        match got.results.into_iter().next().and_then(|item| item.result) {
            Some(transit_plaintext::Result::Plaintext(text)) => Ok(Secret::from_wire(text)),
            Some(transit_plaintext::Result::Failure(failure)) => Err(failed(failure)),
            None => Err(unanswered()),
        }
    }

    /// Encrypts anew with the newest version; the text does not leave the daemon.
    /// # Errors
    /// As [`decrypt`](Client::decrypt).
    pub async fn rewrap(&self, key: &str, old: &[u8], context: &[u8]) -> Result<Vec<u8>, Error> {
        let request = v1::TransitRewrapRequest {
            path: key.to_owned(),
            items: vec![sealed(old, context)],
        };
        let got = self
            .read(request, |s, r| async move { s.transit().rewrap(r).await })
            .await?;
        ciphertext(got.results)
    }

    /// Signs with the newest version.
    /// # Errors
    /// [`Error::NotFound`] for no such key; the key's kind does not sign.
    pub async fn sign(&self, key: &str, input: &[u8]) -> Result<Signature, Error> {
        let request = v1::TransitSignRequest {
            path: key.to_owned(),
            inputs: vec![Bytes::copy_from_slice(input)],
        };
        let got = self
            .read(request, |s, r| async move { s.transit().sign(r).await })
            .await?;
        signature(got.results)
    }

    /// Makes an HMAC with the newest version.
    /// # Errors
    /// As [`sign`](Client::sign).
    pub async fn hmac(&self, key: &str, input: &[u8]) -> Result<Signature, Error> {
        let request = v1::TransitHmacRequest {
            path: key.to_owned(),
            inputs: vec![Bytes::copy_from_slice(input)],
        };
        let got = self
            .read(request, |s, r| async move { s.transit().hmac(r).await })
            .await?;
        signature(got.results)
    }

    /// Whether the named version of `key` made this signature or HMAC.
    /// # Errors
    /// [`Error::Invalid`] for a version that is not in use.
    pub async fn verify(&self, key: &str, input: &[u8], signature: &Signature) -> Result<bool, Error> {
        let item = v1::TransitToVerify {
            input: Bytes::copy_from_slice(input),
            signature: Bytes::copy_from_slice(&signature.bytes),
            key_version: signature.key_version,
        };
        let request = v1::TransitVerifyRequest {
            path: key.to_owned(),
            items: vec![item],
        };
        let got = self
            .read(request, |s, r| async move { s.transit().verify(r).await })
            .await?;
        match got.results.into_iter().next().and_then(|item| item.result) {
            Some(transit_verified::Result::Valid(valid)) => Ok(valid),
            Some(transit_verified::Result::Failure(failure)) => Err(failed(failure)),
            None => Err(unanswered()),
        }
    }

    /// A fresh key of 32 or 64 bytes, and the same wrapped by `key`.
    /// # Errors
    /// As [`encrypt`](Client::encrypt).
    pub async fn data_key(&self, key: &str, bytes: u32, context: &[u8], wrapped_only: bool) -> Result<DataKey, Error> {
        let context = Bytes::copy_from_slice(context);
        let request = v1::TransitDataKeyRequest {
            path: key.to_owned(),
            bytes,
            context,
            wrapped_only,
        };
        let got = self
            .read(request, |s, r| async move { s.transit().data_key(r).await })
            .await?;
        Ok(DataKey {
            plaintext: (!wrapped_only).then(|| Secret::from_wire(got.plaintext)),
            wrapped: got.ciphertext.to_vec(),
        })
    }
}

fn sealed(ciphertext: &[u8], context: &[u8]) -> v1::TransitSealed {
    v1::TransitSealed {
        ciphertext: Bytes::copy_from_slice(ciphertext),
        context: Bytes::copy_from_slice(context),
    }
}

fn ciphertext(results: Vec<v1::TransitCiphertext>) -> Result<Vec<u8>, Error> {
    match results.into_iter().next().and_then(|item| item.result) {
        Some(transit_ciphertext::Result::Ciphertext(bytes)) => Ok(bytes.to_vec()),
        Some(transit_ciphertext::Result::Failure(failure)) => Err(failed(failure)),
        None => Err(unanswered()),
    }
}

fn signature(results: Vec<v1::TransitSignature>) -> Result<Signature, Error> {
    let made = results.into_iter().next().ok_or_else(unanswered)?;
    Ok(Signature {
        bytes: made.signature.to_vec(),
        key_version: made.key_version,
    })
}

fn failed(failure: v1::TransitFailure) -> Error {
    Error::Invalid(Refusal::local(&failure.reason, failure.message))
}

fn unanswered() -> Error {
    Error::Internal(Refusal::local("NO_RESULT", "the daemon answered without a result"))
}
