//! `strongroom.v1.Transit`.

use super::Services;
use crate::{
    gate::{Failure, ops::transit as ops},
    rpc::parse::{cursor, cursor_text, malformed, page_size, path},
    transit::{DATA_KEY_BYTES, KeyShown, Made, Text, ToVerify},
};
use bytes::Bytes;
use strongroom_proto::v1::{self, transit_ciphertext, transit_plaintext, transit_server, transit_verified};
use tonic::{Request, Response, Status, async_trait};
use zeroize::Zeroizing;

#[async_trait]
impl transit_server::Transit for Services {
    async fn create_key(
        &self,
        request: Request<v1::TransitCreateKeyRequest>,
    ) -> Result<Response<v1::TransitCreateKeyResponse>, Status> {
        let parse = |m: v1::TransitCreateKeyRequest| {
            Ok(ops::CreateKey {
                path: path("path", &m.path)?,
                kind: m.kind.parse().map_err(|error| malformed("kind", error))?,
                hsm: (!m.hsm.is_empty()).then_some(m.hsm),
            })
        };
        self.unary(request, parse, |()| v1::TransitCreateKeyResponse {}).await
    }

    async fn list_keys(
        &self,
        request: Request<v1::TransitListKeysRequest>,
    ) -> Result<Response<v1::TransitListKeysResponse>, Status> {
        let parse = |m: v1::TransitListKeysRequest| {
            Ok(ops::ListKeys {
                mount: path("mount", &m.mount)?,
                after: cursor(&m.page_token)?,
                limit: page_size(m.page_size)?,
            })
        };
        self.unary(request, parse, |(names, next)| v1::TransitListKeysResponse {
            names,
            next_page_token: cursor_text(next.as_deref()),
        })
        .await
    }

    async fn get_key(
        &self,
        request: Request<v1::TransitGetKeyRequest>,
    ) -> Result<Response<v1::TransitGetKeyResponse>, Status> {
        let parse = |m: v1::TransitGetKeyRequest| {
            Ok(ops::GetKey {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, shown).await
    }

    async fn rotate_key(
        &self,
        request: Request<v1::TransitRotateKeyRequest>,
    ) -> Result<Response<v1::TransitRotateKeyResponse>, Status> {
        let parse = |m: v1::TransitRotateKeyRequest| {
            Ok(ops::RotateKey {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |version| v1::TransitRotateKeyResponse { version })
            .await
    }

    async fn configure_key(
        &self,
        request: Request<v1::TransitConfigureKeyRequest>,
    ) -> Result<Response<v1::TransitConfigureKeyResponse>, Status> {
        let parse = |m: v1::TransitConfigureKeyRequest| {
            Ok(ops::ConfigureKey {
                path: path("path", &m.path)?,
                least: m.min_decryption_version,
                deletable: m.deletion_allowed,
            })
        };
        self.unary(request, parse, |()| v1::TransitConfigureKeyResponse {})
            .await
    }

    async fn trim_key(
        &self,
        request: Request<v1::TransitTrimKeyRequest>,
    ) -> Result<Response<v1::TransitTrimKeyResponse>, Status> {
        let parse = |m: v1::TransitTrimKeyRequest| {
            Ok(ops::TrimKey {
                path: path("path", &m.path)?,
                oldest: m.oldest_version,
            })
        };
        self.unary(request, parse, |()| v1::TransitTrimKeyResponse {}).await
    }

    async fn delete_key(
        &self,
        request: Request<v1::TransitDeleteKeyRequest>,
    ) -> Result<Response<v1::TransitDeleteKeyResponse>, Status> {
        let parse = |m: v1::TransitDeleteKeyRequest| {
            Ok(ops::DeleteKey {
                path: path("path", &m.path)?,
            })
        };
        self.unary(request, parse, |()| v1::TransitDeleteKeyResponse {}).await
    }

    async fn encrypt(
        &self,
        request: Request<v1::TransitEncryptRequest>,
    ) -> Result<Response<v1::TransitEncryptResponse>, Status> {
        let parse = |m: v1::TransitEncryptRequest| {
            let text = |item: v1::TransitPlain| Text {
                bytes: item.plaintext,
                context: item.context,
            };
            Ok(ops::Encrypt {
                path: path("path", &m.path)?,
                items: m.items.into_iter().map(text).collect(),
            })
        };
        self.unary(request, parse, |each| v1::TransitEncryptResponse {
            results: ciphertexts(each),
        })
        .await
    }

    async fn decrypt(
        &self,
        request: Request<v1::TransitDecryptRequest>,
    ) -> Result<Response<v1::TransitDecryptResponse>, Status> {
        let parse = |m: v1::TransitDecryptRequest| {
            Ok(ops::Decrypt {
                path: path("path", &m.path)?,
                items: sealed(m.items),
            })
        };
        self.unary(request, parse, |each| v1::TransitDecryptResponse {
            results: each.into_iter().map(plaintext).collect(),
        })
        .await
    }

    async fn rewrap(
        &self,
        request: Request<v1::TransitRewrapRequest>,
    ) -> Result<Response<v1::TransitRewrapResponse>, Status> {
        let parse = |m: v1::TransitRewrapRequest| {
            Ok(ops::Rewrap {
                path: path("path", &m.path)?,
                items: sealed(m.items),
            })
        };
        self.unary(request, parse, |each| v1::TransitRewrapResponse {
            results: ciphertexts(each),
        })
        .await
    }

    async fn sign(
        &self,
        request: Request<v1::TransitSignRequest>,
    ) -> Result<Response<v1::TransitSignResponse>, Status> {
        let parse = |m: v1::TransitSignRequest| {
            Ok(ops::Sign {
                path: path("path", &m.path)?,
                inputs: m.inputs,
            })
        };
        self.unary(request, parse, |each| v1::TransitSignResponse {
            results: signatures(each),
        })
        .await
    }

    async fn verify(
        &self,
        request: Request<v1::TransitVerifyRequest>,
    ) -> Result<Response<v1::TransitVerifyResponse>, Status> {
        let parse = |m: v1::TransitVerifyRequest| {
            let item = |item: v1::TransitToVerify| ToVerify {
                input: item.input,
                made: item.signature,
                version: item.key_version,
            };
            Ok(ops::Verify {
                path: path("path", &m.path)?,
                items: m.items.into_iter().map(item).collect(),
            })
        };
        self.unary(request, parse, |each| v1::TransitVerifyResponse {
            results: each.into_iter().map(verified).collect(),
        })
        .await
    }

    async fn hmac(
        &self,
        request: Request<v1::TransitHmacRequest>,
    ) -> Result<Response<v1::TransitHmacResponse>, Status> {
        let parse = |m: v1::TransitHmacRequest| {
            Ok(ops::Hmac {
                path: path("path", &m.path)?,
                inputs: m.inputs,
            })
        };
        self.unary(request, parse, |each| v1::TransitHmacResponse {
            results: signatures(each),
        })
        .await
    }

    async fn data_key(
        &self,
        request: Request<v1::TransitDataKeyRequest>,
    ) -> Result<Response<v1::TransitDataKeyResponse>, Status> {
        let parse = |m: v1::TransitDataKeyRequest| {
            let length = if m.bytes == 0 {
                DATA_KEY_BYTES[0]
            } else {
                m.bytes as usize
            };
            Ok(ops::DataKey {
                path: path("path", &m.path)?,
                length,
                context: m.context,
                wrapped_only: m.wrapped_only,
            })
        };
        self.unary(request, parse, |made| v1::TransitDataKeyResponse {
            plaintext: made
                .plain
                .map(|plain| Bytes::copy_from_slice(&plain))
                .unwrap_or_default(),
            ciphertext: made.wrapped.bytes.into(),
            key_version: made.wrapped.version,
        })
        .await
    }
}

fn sealed(items: Vec<v1::TransitSealed>) -> Vec<Text> {
    let text = |item: v1::TransitSealed| Text {
        bytes: item.ciphertext,
        context: item.context,
    };
    items.into_iter().map(text).collect()
}

fn failed(failure: &Failure) -> v1::TransitFailure {
    v1::TransitFailure {
        reason: failure.reason.as_str().to_owned(),
        message: failure.message.to_string(),
    }
}

fn ciphertexts(each: ops::Each<Made>) -> Vec<v1::TransitCiphertext> {
    let word = |item| match item {
        Ok(Made { bytes, version }) => v1::TransitCiphertext {
            result: Some(transit_ciphertext::Result::Ciphertext(bytes.into())),
            key_version: version,
        },
        Err(failure) => v1::TransitCiphertext {
            result: Some(transit_ciphertext::Result::Failure(failed(&failure))),
            key_version: 0,
        },
    };
    each.into_iter().map(word).collect()
}

fn plaintext(item: Result<Zeroizing<Vec<u8>>, Failure>) -> v1::TransitPlaintext {
    let result = match item {
        Ok(text) => transit_plaintext::Result::Plaintext(Bytes::copy_from_slice(&text)),
        Err(failure) => transit_plaintext::Result::Failure(failed(&failure)),
    };
    v1::TransitPlaintext { result: Some(result) }
}

fn verified(item: Result<bool, Failure>) -> v1::TransitVerified {
    let result = match item {
        Ok(valid) => transit_verified::Result::Valid(valid),
        Err(failure) => transit_verified::Result::Failure(failed(&failure)),
    };
    v1::TransitVerified { result: Some(result) }
}

/// Nothing about an input of its own can fail.
fn signatures(each: ops::Each<Made>) -> Vec<v1::TransitSignature> {
    let word = |made: Made| v1::TransitSignature {
        signature: made.bytes.into(),
        key_version: made.version,
    };
    each.into_iter().flatten().map(word).collect()
}

fn shown(shown: KeyShown) -> v1::TransitGetKeyResponse {
    let version = |version: crate::transit::VersionShown| v1::TransitKeyVersion {
        version: version.version,
        created_at: version.created.to_string(),
        public_key_pem: version.public_pem,
    };
    v1::TransitGetKeyResponse {
        kind: shown.facts.kind.as_str().to_owned(),
        latest_version: shown.facts.latest,
        min_decryption_version: shown.facts.least,
        deletion_allowed: shown.facts.deletable,
        created_at: shown.facts.created.to_string(),
        hsm: shown.facts.hsm.unwrap_or_default(),
        versions: shown.versions.into_iter().map(version).collect(),
        id: shown.facts.id.to_string(),
    }
}
