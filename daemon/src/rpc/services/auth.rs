//! `strongroom.v1.Login` and `strongroom.v1.Trust`.

use super::Services;
use crate::{
    auth::{
        Proof,
        oidc::{Brought, CODE_BYTES_MAX, Flow},
    },
    base::secret::SecretBytes,
    gate::{
        Failure,
        ops::{login as logins, trust as ops},
    },
    rpc::parse::{bounded, id, malformed},
};
use std::sync::Arc;
use strongroom_proto::v1::{self, LoginBinding, login_request::Proof as WireProof, login_server, trust_server};
use tonic::{Request, Response, Status, async_trait};

/// A JWT longer than any that is believed.
const JWT_BYTES_MAX: usize = 32 << 10;
const SECRET_ID_BYTES_MAX: usize = 256;
const HANDLE_BYTES_MAX: usize = 256;
const ISSUER_BYTES_MAX: usize = 512;
const CLIENT_SECRET_BYTES_MAX: usize = 4096;

fn secret(field: &str, text: String, limit: usize) -> Result<SecretBytes, Failure> {
    if text.len() > limit {
        return Err(malformed(field, format_args!("at most {limit} bytes")));
    }
    Ok(SecretBytes::new(text.into_bytes()))
}

fn proof(proof: Option<WireProof>) -> Result<Proof, Failure> {
    Ok(match proof {
        Some(WireProof::Jwt(jwt)) => Proof::Jwt(secret("jwt", jwt, JWT_BYTES_MAX)?),
        Some(WireProof::Role(role)) => Proof::Role {
            role_id: id("role.role_id", &role.role_id)?,
            secret_id: secret("role.secret_id", role.secret_id, SECRET_ID_BYTES_MAX)?,
        },
        Some(WireProof::Oidc(oidc)) => Proof::Oidc(Brought {
            handle: secret("oidc.handle", oidc.handle, HANDLE_BYTES_MAX)?,
            code: secret("oidc.code", oidc.code, CODE_BYTES_MAX)?,
            issuer: match oidc.iss {
                Some(issuer) if issuer.len() > ISSUER_BYTES_MAX => {
                    return Err(malformed("oidc.iss", format_args!("at most {ISSUER_BYTES_MAX} bytes")));
                }
                issuer => issuer,
            },
            port: port("oidc.port", oidc.port)?,
        }),
        Some(WireProof::Peer(_)) => Proof::Peer,
        Some(WireProof::Certificate(_)) => Proof::Certificate,
        None => return Err(malformed("proof", "none is given")),
    })
}

fn port(field: &str, number: u32) -> Result<u16, Failure> {
    u16::try_from(number).map_err(|_| malformed(field, "at most 65535"))
}

#[async_trait]
impl login_server::Login for Services {
    async fn begin(&self, request: Request<v1::LoginBeginRequest>) -> Result<Response<v1::LoginBeginResponse>, Status> {
        let parse = |m: v1::LoginBeginRequest| {
            Ok(logins::Begin {
                port: port("port", m.port)?,
                trust: m.trust,
            })
        };
        self.unary(request, parse, |begun| {
            let text = |secret: &SecretBytes| String::from_utf8_lossy(secret.expose()).into_owned();
            let mut answer = v1::LoginBeginResponse {
                handle: text(&begun.handle),
                url: begun.url,
                ends_at: begun.ends.to_string(),
                ..Default::default()
            };
            match begun.flow {
                Flow::Browser { state, redirect } => {
                    answer.state = state;
                    answer.redirect_uri = redirect;
                }
                Flow::Device {
                    device_code,
                    user_code,
                    url_complete,
                    interval_secs,
                } => {
                    answer.device_code = text(&device_code);
                    answer.user_code = user_code;
                    answer.url_complete = url_complete;
                    answer.interval_secs = interval_secs;
                }
            }
            answer
        })
        .await
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginResponse>, Status> {
        let takes_proofs = self.gate.takes_proofs();
        let parse = |m: v1::LoginRequest| {
            let bind = match m.binding() {
                LoginBinding::None => logins::Binding::None,
                LoginBinding::Certificate => logins::Binding::Certificate,
                LoginBinding::Dpop if takes_proofs => logins::Binding::Key,
                LoginBinding::Dpop => {
                    return Err(malformed(
                        "binding",
                        "this daemon takes no DPoP proofs: set `listener.origin`",
                    ));
                }
            };
            Ok(logins::LogIn::new(m.trust, proof(m.proof)?, bind))
        };
        self.unary(request, parse, |logged_in| {
            let principal = logged_in.caller.identity().principal();
            v1::LoginResponse {
                token: logged_in.created.text.expose().to_owned(),
                accessor: logged_in.created.accessor.to_string(),
                session: logged_in.created.session.to_string(),
                ttl_secs: logged_in.created.ttl_secs,
                expires_at: logged_in.created.expires.to_string(),
                trust: principal.name().strip_prefix("login:").unwrap_or_default().to_owned(),
                groups: principal.groups().iter().cloned().collect(),
                attributes: principal.attributes().clone(),
                sealed: logged_in.caller.is_sealed(),
            }
        })
        .await
    }

    async fn explain(
        &self,
        request: Request<v1::LoginExplainRequest>,
    ) -> Result<Response<v1::LoginExplainResponse>, Status> {
        let parse = |m: v1::LoginExplainRequest| {
            Ok(logins::Explain {
                jwt: secret("jwt", m.jwt, JWT_BYTES_MAX)?,
            })
        };
        self.unary(request, parse, |told| {
            let mut answer = v1::LoginExplainResponse {
                trust: told.trust,
                accepted: told.outcome.is_ok(),
                checks: told
                    .checks
                    .into_iter()
                    .map(|check| v1::LoginCheck {
                        name: check.name.to_owned(),
                        passed: check.passed,
                        detail: check.detail,
                    })
                    .collect(),
                ..Default::default()
            };
            match told.outcome {
                Ok((identity, arrival)) => {
                    answer.identity = identity.to_string();
                    answer.ttl_secs = arrival.ttl_secs;
                    answer.groups = arrival.groups.into_iter().collect();
                    answer.attributes = arrival.attributes;
                }
                Err(word) => answer.checks.push(v1::LoginCheck {
                    name: "outcome".to_owned(),
                    passed: false,
                    detail: word.to_owned(),
                }),
            }
            answer
        })
        .await
    }
}

#[async_trait]
impl trust_server::Trust for Services {
    async fn put(&self, request: Request<v1::TrustPutRequest>) -> Result<Response<v1::TrustPutResponse>, Status> {
        let parse = |m: v1::TrustPutRequest| {
            Ok(ops::Put {
                name: m.name,
                definition: bounded("definition", m.definition)?,
                client_secret: (m.client_secret)
                    .map(|text| secret("client_secret", text, CLIENT_SECRET_BYTES_MAX).map(Arc::new))
                    .transpose()?,
                cas: m.cas,
                check_only: m.check_only,
            })
        };
        self.unary(request, parse, |written| v1::TrustPutResponse {
            version: written.version,
            warnings: written.warnings,
        })
        .await
    }

    async fn get(&self, request: Request<v1::TrustGetRequest>) -> Result<Response<v1::TrustGetResponse>, Status> {
        let parse = |m: v1::TrustGetRequest| Ok(ops::Get { name: m.name });
        self.unary(request, parse, |trust| v1::TrustGetResponse {
            name: trust.name.clone(),
            definition: trust.definition.text(),
            version: trust.times.version,
            updated_at: trust.times.updated.to_string(),
            has_client_secret: trust.client_secret().is_some(),
            role_id: trust.role_id().map(|id| id.to_string()).unwrap_or_default(),
        })
        .await
    }

    async fn list(&self, request: Request<v1::TrustListRequest>) -> Result<Response<v1::TrustListResponse>, Status> {
        self.unary(
            request,
            |_: v1::TrustListRequest| Ok(ops::List),
            |trusts| v1::TrustListResponse {
                trusts: trusts
                    .into_iter()
                    .map(|trust| v1::TrustSummary {
                        name: trust.name,
                        method: trust.method.to_owned(),
                        issuer: trust.issuer,
                        version: trust.version,
                    })
                    .collect(),
            },
        )
        .await
    }

    async fn delete(
        &self,
        request: Request<v1::TrustDeleteRequest>,
    ) -> Result<Response<v1::TrustDeleteResponse>, Status> {
        let parse = |m: v1::TrustDeleteRequest| Ok(ops::Delete { name: m.name });
        self.unary(request, parse, |()| v1::TrustDeleteResponse {}).await
    }

    async fn end(&self, request: Request<v1::TrustEndRequest>) -> Result<Response<v1::TrustEndResponse>, Status> {
        let parse = |m: v1::TrustEndRequest| Ok(ops::End { name: m.name });
        self.unary(request, parse, |()| v1::TrustEndResponse {}).await
    }

    async fn make_secret(
        &self,
        request: Request<v1::TrustMakeSecretRequest>,
    ) -> Result<Response<v1::TrustMakeSecretResponse>, Status> {
        let parse = |m: v1::TrustMakeSecretRequest| {
            Ok(ops::MakeSecret {
                name: m.name,
                ttl_secs: m.ttl_secs,
                networks: m.networks,
            })
        };
        self.unary(request, parse, |made| v1::TrustMakeSecretResponse {
            secret_id: made.text.expose().to_owned(),
            role_id: made.role_id.to_string(),
            expires_at: made.expires.to_string(),
        })
        .await
    }
}
