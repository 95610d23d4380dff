//! `handshake`: each request is a new connection, a TLS 1.3 handshake in full (X25519MLKEM768, a P-256 certificate), one read, and its end; without
//! and with a client certificate. Ours asks with a token that is bound to that certificate.

use super::{kv::SECRETS, stage::Stage};
use crate::{
    Fault, Options,
    contest::{Figure, hold},
    limits::Echo,
    openbao::{Question, newcomers},
    report::Found,
    strongroom::asks,
};
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use std::{fs, path::PathBuf};
use strongroom_proto::v1;

const CONNS: usize = 16;
const NAME: &str = "bench.example.com";

/// A client's certificate and key as files, and the authority that signed it.
struct Client {
    files: (PathBuf, PathBuf),
    ca_pem: String,
}

fn client(stage: &Stage) -> Result<Client, Fault> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &ca)?;
    let dir = stage.ours.lab().dir();
    let files = (dir.join("client.pem"), dir.join("client.key"));
    fs::write(&files.0, certificate.pem())?;
    fs::write(&files.1, key.serialize_pem())?;
    Ok(Client {
        files,
        ca_pem: ca.pem(),
    })
}

/// Logs in by certificate; the token works with that certificate alone.
async fn bound_token(stage: &Stage, client: &Client) -> Result<String, Fault> {
    let bind = json!([{ "dns": NAME, "groups": ["bench"] }]);
    stage
        .trust(
            "services",
            &json!({ "certificate": { "ca_pem": client.ca_pem, "bind": bind } }),
        )
        .await?;
    let request = v1::LoginRequest {
        trust: "services".into(),
        proof: Some(v1::login_request::Proof::Certificate(v1::LoginCertificate {})),
        ..Default::default()
    };
    let door = stage.ours.door().showing(&client.files);
    Ok(door
        .client()
        .await?
        .stubs()
        .login()
        .login(request)
        .await?
        .into_inner()
        .token)
}

/// Measures.
/// # Errors
/// Any failed request.
pub async fn measure(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    stage.seed(SECRETS).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let conns = options.conns.unwrap_or(CONNS);
    let client = client(&stage)?;
    let bound = bound_token(&stage, &client).await?;
    let ask = || asks::read(SECRETS);
    let ask_peer = |turn: u64| {
        Ok(Question {
            method: "GET",
            path: format!("kv/data/r/s{}", turn % SECRETS),
            body: Bytes::new(),
            expect: "vvvv",
        })
    };
    let mut all = Vec::new();
    for mutual in [false, true] {
        let (mut door, mut limit) = (stage.ours.door(), echo.door(stage.ours.lab()));
        if mutual {
            (door, limit) = (door.with(&bound).showing(&client.files), limit.showing(&client.files));
        }
        let mut contenders = vec![stage.ours(door.newcomers(conns, ask()))];
        if let Some(bao) = &stage.peer {
            let dial = match mutual {
                true => bao
                    .dial()
                    .showing(&stage.ours.lab().ca(), (&client.files.0, &client.files.1))?,
                false => bao.dial().clone(),
            };
            contenders.push(Stage::peer(bao, "D1", newcomers(&dial, conns, ask_peer)));
        }
        contenders.push(echo.contender(limit.newcomers(conns, ask())));
        let rows = hold(options, &mut contenders).await?;
        let how = if mutual { "mTLS" } else { "TLS" };
        let mut notes = stage.notes();
        notes.push(
            "no session is resumed; all three ask for a client certificate, and check its signature if there is one"
                .into(),
        );
        if mutual {
            notes.push("ours also checks, with each call, that the token is bound to that certificate".into());
        }
        all.push(Found {
            suite: "handshake",
            what: format!("a connection by {how} 1.3 (X25519MLKEM768, P-256) and one read of 1 KiB, {conns} at once"),
            rows,
            figure: Figure::Cpu,
            facts: vec![("tls".into(), how.into()), ("conns".into(), conns.into())],
            notes,
        });
    }
    Ok(all)
}
