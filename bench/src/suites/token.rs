//! `token-verify`: a token looks at itself. `login`: a service shows a JWT (ES256, its issuer's key at hand) and gets a token. `token-create`: a
//! token makes a token.

use super::stage::Stage;
use crate::{
    Fault, Options,
    contest::{Figure, hold},
    limits::Echo,
    openbao::{OpenBao, Question, asking},
    report::Found,
    strongroom::asks,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use strongroom_tests::issuer::Issuer;

const CONNS: usize = 16;
/// What OpenBao's roles and ours ask of a JWT.
const AUDIENCE: &str = "strongroom-tests";

fn found(
    suite: &'static str,
    what: &str,
    conns: usize,
    rows: Vec<crate::contest::Row>,
    notes: Vec<String>,
) -> Vec<Found> {
    vec![Found {
        suite,
        what: format!("{what}, {conns} connections, TLS 1.3"),
        rows,
        figure: Figure::Cpu,
        facts: vec![("conns".into(), conns.into())],
        notes,
    }]
}

/// Looks tokens up.
/// # Errors
/// Any failed request.
pub async fn verify(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let conns = options.conns.unwrap_or(CONNS);
    let mut contenders = vec![stage.ours(stage.ours.door().callers(conns, asks::look_up()).await?)];
    if let Some(bao) = &stage.peer {
        let ask = |_| {
            Ok(Question {
                method: "GET",
                path: "auth/token/lookup-self".into(),
                body: Bytes::new(),
                expect: "accessor",
            })
        };
        contenders.push(Stage::peer(bao, "D1", asking(bao.dial(), conns, ask).await?));
        let batch = bao
            .token(&json!({ "policies": ["bench"], "ttl": "4h", "type": "batch" }))
            .await?;
        let callers = asking(&bao.dial().with(&batch), conns, ask).await?;
        contenders.push(Stage::peer_otherwise(bao, "batch", "D1", callers));
    }
    let bare = echo.door(stage.ours.lab()).callers(conns, asks::look_up()).await?;
    contenders.push(echo.contender(bare));
    let rows = hold(options, &mut contenders).await?;
    Ok(found(
        "token-verify",
        "a token looks at itself",
        conns,
        rows,
        stage.notes(),
    ))
}

/// Makes tokens.
/// # Errors
/// Any failed request.
pub async fn create(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let conns = options.conns.unwrap_or(CONNS);
    let mut contenders = vec![stage.ours(stage.ours.door().callers(conns, asks::create()).await?)];
    if let Some(bao) = &stage.peer {
        let ask = |kind: &'static str| {
            move |_| {
                Ok(Question {
                    method: "PUT",
                    path: "auth/token/create".into(),
                    body: Bytes::from(json!({ "policies": ["bench"], "ttl": "15m", "type": kind }).to_string()),
                    expect: "client_token",
                })
            }
        };
        contenders.push(Stage::peer(
            bao,
            "synced, D1",
            asking(bao.dial(), conns, ask("service")).await?,
        ));
        let callers = asking(bao.dial(), conns, ask("batch")).await?;
        contenders.push(Stage::peer_otherwise(bao, "batch", "not stored, D1", callers));
    }
    let bare = echo.door(stage.ours.lab()).callers(conns, asks::create()).await?;
    contenders.push(echo.contender(bare));
    let rows = hold(options, &mut contenders).await?;
    Ok(found(
        "token-create",
        "a token makes a token, which is stored",
        conns,
        rows,
        stage.notes(),
    ))
}

/// Lets OpenBao believe `issuer`; roles `service` and `batch` are for the same JWTs.
/// # Errors
/// It refuses.
pub async fn teach(bao: &OpenBao, issuer: &Issuer) -> Result<(), Fault> {
    bao.admin("PUT", "sys/auth/jwt", &json!({ "type": "jwt" })).await?;
    let config = json!({
        "jwt_validation_pubkeys": [issuer.public_key_pem()], "bound_issuer": issuer.name, "jwt_supported_algs": ["ES256"],
    });
    bao.admin("PUT", "auth/jwt/config", &config).await?;
    for kind in ["service", "batch"] {
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_subject": "job", "bound_audiences": [AUDIENCE],
            "token_policies": ["bench"], "token_ttl": "15m", "token_type": kind,
        });
        bao.admin("PUT", &format!("auth/jwt/role/{kind}"), &role).await?;
    }
    Ok(())
}

/// A JWT for OpenBao's role `kind`.
pub fn jwt_body(issuer: &Issuer, kind: &str) -> Bytes {
    Bytes::from(json!({ "role": kind, "jwt": asks::jwt(issuer) }).to_string())
}

/// The trust that stores each log-in.
fn storing(issuer: &Issuer) -> Value {
    let mut trust = issuer.trust(&["bench"]);
    trust["token"] = json!({ "ttl_secs": 900, "max_ttl_secs": 3600 });
    trust
}

/// Logs in.
/// # Errors
/// Any failed request.
pub async fn log_in(options: &Options) -> Result<Vec<Found>, Fault> {
    let stage = Stage::set(options).await?;
    let echo = Echo::start(stage.ours.lab())?;
    let conns = options.conns.unwrap_or(CONNS);
    let (sealing, keeping) = (Arc::new(Issuer::new("sealing")), Arc::new(Issuer::new("keeping")));
    stage.trust("sealing", &sealing.trust(&["bench"])).await?;
    stage.trust("keeping", &storing(&keeping)).await?;
    let door = stage.ours.door();
    let mut contenders = vec![
        stage.ours(door.callers(conns, asks::log_in(Arc::clone(&sealing))).await?),
        stage.ours_otherwise("token stored", door.callers(conns, asks::log_in(keeping)).await?),
    ];
    if let Some(bao) = &stage.peer {
        teach(bao, &sealing).await?;
        let ask = |kind: &'static str| {
            let issuer = Arc::clone(&sealing);
            move |_| {
                Ok(Question {
                    method: "PUT",
                    path: "auth/jwt/login".into(),
                    body: jwt_body(&issuer, kind),
                    expect: "client_token",
                })
            }
        };
        let nobody = bao.dial().with("");
        contenders.push(Stage::peer(
            bao,
            "synced, D1",
            asking(&nobody, conns, ask("service")).await?,
        ));
        let callers = asking(&nobody, conns, ask("batch")).await?;
        contenders.push(Stage::peer_otherwise(bao, "batch", "not stored, D1", callers));
    }
    let bare = echo
        .door(stage.ours.lab())
        .callers(conns, asks::log_in(sealing))
        .await?;
    contenders.push(echo.contender(bare));
    let rows = hold(options, &mut contenders).await?;
    let mut notes = stage.notes();
    notes.push("ours: a sealed token of 15 minutes, of which nothing is stored, and a JWT logs in once; OpenBao stores its default token and has no memory of JWTs".into());
    notes.push("the load signs a JWT for each request: rates are its, too".into());
    Ok(found(
        "login",
        "a service logs in with a JWT (ES256)",
        conns,
        rows,
        notes,
    ))
}
