//! `transit`: keys that work for callers: 1 KiB encrypted, 32 bytes signed with Ed25519 and with ECDSA on P-256.

use super::stage::Stage;
use crate::{
    Fault, Options,
    contest::{Figure, hold},
    limits::{Echo, VALUE_BYTES},
    load::Callers,
    openbao::{OpenBao, Question, asking},
    report::Found,
    strongroom::{Door, asks},
};
use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::json;
use strongroom_proto::v1;

const CONNS: usize = 16;

#[derive(Clone, Copy)]
enum Work {
    Encrypt,
    Sign(&'static str),
}

/// Each with its name.
const WORKS: [(&str, Work); 3] = [
    ("1 KiB encrypted (AES-256-GCM)", Work::Encrypt),
    ("32 bytes signed (Ed25519)", Work::Sign(asks::ED25519)),
    ("32 bytes signed (ECDSA P-256)", Work::Sign(asks::P256)),
];

async fn keys(stage: &Stage) -> Result<(), Fault> {
    let admin = stage.ours.admin().await?;
    let mount = v1::MountEnableRequest {
        path: asks::KEYS.into(),
        kind: "transit".into(),
        ..Default::default()
    };
    admin
        .change(
            mount,
            |stubs, request| async move { stubs.mount().enable(request).await },
        )
        .await?;
    for (path, kind) in [
        (asks::AES, "aes256-gcm"),
        (asks::ED25519, "ed25519"),
        (asks::P256, "ecdsa-p256"),
    ] {
        let key = v1::TransitCreateKeyRequest {
            path: path.into(),
            kind: kind.into(),
            ..Default::default()
        };
        admin
            .change(key, |stubs, request| async move {
                stubs.transit().create_key(request).await
            })
            .await?;
    }
    let Some(bao) = &stage.peer else { return Ok(()) };
    bao.admin("PUT", "sys/mounts/transit", &json!({ "type": "transit" }))
        .await?;
    for (name, kind) in [("aes", "aes256-gcm96"), ("ed25519", "ed25519"), ("p256", "ecdsa-p256")] {
        bao.admin("PUT", &format!("transit/keys/{name}"), &json!({ "type": kind }))
            .await?;
    }
    Ok(())
}

impl Work {
    async fn asked(self, door: &Door, conns: usize) -> Result<Callers, Fault> {
        match self {
            Self::Encrypt => door.callers(conns, asks::encrypt()).await,
            Self::Sign(key) => door.callers(conns, asks::sign(key)).await,
        }
    }

    async fn asked_of_peer(self, bao: &OpenBao, conns: usize) -> Result<Callers, Fault> {
        let (path, body, expect) = match self {
            Self::Encrypt => {
                let body = json!({ "plaintext": BASE64.encode(&[b'v'; VALUE_BYTES]) });
                ("transit/encrypt/aes".to_owned(), body, "ciphertext")
            }
            Self::Sign(key) => {
                let name = key.trim_start_matches(asks::KEYS);
                let body = json!({ "input": BASE64.encode(&[7; 32]) });
                (format!("transit/sign{name}"), body, "signature")
            }
        };
        let body = Bytes::from(body.to_string());
        let ask = move |_| {
            Ok(Question {
                method: "PUT",
                path: path.clone(),
                body: body.clone(),
                expect,
            })
        };
        asking(bao.dial(), conns, ask).await
    }
}

/// Measures.
/// # Errors
/// Any failed request.
pub async fn measure(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    keys(&stage).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let conns = options.conns.unwrap_or(CONNS);
    let mut all = Vec::new();
    for (what, work) in WORKS {
        let mut contenders = vec![stage.ours(work.asked(&stage.ours.door(), conns).await?)];
        if let Some(bao) = &stage.peer {
            contenders.push(Stage::peer(bao, "D1", work.asked_of_peer(bao, conns).await?));
        }
        contenders.push(echo.contender(work.asked(&echo.door(stage.ours.lab()), conns).await?));
        let rows = hold(options, &mut contenders).await?;
        let mut notes = stage.notes();
        notes.push("the limit does the same cryptography, and nothing else".into());
        all.push(Found {
            suite: "transit",
            what: format!("{what}, {conns} connections, TLS 1.3"),
            rows,
            figure: Figure::Cpu,
            facts: vec![("work".into(), what.into()), ("conns".into(), conns.into())],
            notes,
        });
    }
    Ok(all)
}
