use crate::{
    auth::{
        AuthError, Put, Trust,
        tests::{Lab, whole},
    },
    base::secret::SecretBytes,
    policy::{Action, testing as permits},
};
use serde_json::{Value, json};
use std::sync::Arc;

fn people(more: Value) -> Value {
    let mut oidc = json!({
        "issuer": "https://id.example.com", "client_id": "vault", "bind": [{"claims": {"groups": "staff"}, "groups": ["g"]}],
    });
    oidc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "oidc": oidc })
}

/// R-AUTH-1: a trust in people must say who they are, by claims that are not theirs to choose, and sends them nowhere but to their own machine.
#[tokio::test]
async fn trusts_in_people_are_refused_when_too_wide() {
    let lab = Lab::at(1_795_000_000).await;
    let bind = |claims: Value| people(json!({"bind": [{"claims": claims, "groups": ["g"]}]}));
    for (trust, reason) in [
        (people(json!({"bind": []})), "nobody may log in"),
        (bind(json!({})), "everybody there may log in"),
        (
            bind(json!({"email_verified": true, "acr": "2"})),
            "everybody there may log in",
        ),
        (
            bind(json!({"preferred_username": "ann"})),
            "can be changed by whoever has it",
        ),
        (
            bind(json!({"sub": "1", "upn": "ann@example.com"})),
            "can be changed by whoever has it",
        ),
        (bind(json!({"email": "ann@example.com"})), "email_verified"),
        (
            bind(json!({"email": "ann@example.com", "email_verified": "true"})),
            "email_verified",
        ),
        (
            bind(json!({"email": "ann@example.com", "email_verified": [true, false]})),
            "email_verified",
        ),
        (bind(json!({"sub": "ann*"})), "no wildcards"),
        (bind(json!({"sub": "1", "aud": "vault"})), "binds nobody"),
        (people(json!({"issuer": "http://id.example.com"})), "https://HOST/PATH"),
        (
            people(json!({"issuer": "https://id.example.com/?tenant=1"})),
            "https://HOST/PATH",
        ),
        (people(json!({"client_id": ""})), "client_id"),
        (
            people(json!({"redirect": "https://vault.example.com/callback"})),
            "127.0.0.1",
        ),
        (
            people(json!({"redirect": "http://127.0.0.1@evil.example/"})),
            "127.0.0.1",
        ),
        (people(json!({"scopes": ["a b"]})), "scopes"),
        (people(json!({"ca_pem": "x"})), "no certificate"),
        (people(json!({"algorithms": ["none"]})), "not understood"),
        (people(json!({"client_secret": "x"})), "not understood"),
    ] {
        let error = lab.put("people", &trust).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let person =
        json!({"jwt": {"platform": "person", "issuer": "https://id.example.com", "audience": "x", "bind": []}});
    let error = lab.put("people", &person).await.unwrap_err().to_string();
    assert!(error.contains("not understood"), "it is no platform: {error}");
    let good = bind(json!({"email": "ann@example.com", "email_verified": true}));
    assert_eq!(lab.put("people", &good).await.unwrap().warnings.len(), 0);
    let warned = lab
        .put("people", &people(json!({"device": true})))
        .await
        .unwrap()
        .warnings;
    assert!(
        warned.iter().any(|warning| warning.contains("typing a code")),
        "{warned:?}"
    );
}

/// R-AUTH-1: a client secret is kept for the same client at the same provider, is read back, is in no definition, and goes to no other.
#[tokio::test]
async fn a_client_secret_stays_where_it_is_sent() {
    let lab = Lab::at(1_795_000_000).await;
    let permit = permits::permit(Action::TrustWrite, "sys/trust/people");
    let secret = |text: &str| Arc::new(SecretBytes::from(text.as_bytes()));
    let put = |definition: Value, secret: Option<Arc<SecretBytes>>| {
        let (lab, permit) = (&lab, &permit);
        async move {
            let text = definition.to_string();
            let put = Put {
                client_secret: secret.as_ref(),
                ..whole(&text, false)
            };
            let (change, _) = lab.room.put(permit, "people", &put).await?;
            lab.commit(change).await;
            let trust = lab.room.trust("people").unwrap();
            assert!(!trust.definition.text().contains("canary"));
            let again = Trust::decode("people", &trust.encode().unwrap()).unwrap();
            let kept = again
                .client_secret()
                .map(|secret| String::from_utf8(secret.expose().to_vec()).unwrap());
            Ok::<_, AuthError>(kept)
        }
    };
    let canary = Some("canary \"1\"".to_owned());
    assert_eq!(
        put(people(json!({})), Some(secret("canary \"1\""))).await.unwrap(),
        canary
    );
    let same = people(json!({"device": true, "scopes": ["groups"]}));
    assert_eq!(put(same, None).await.unwrap(), canary);
    for other in [
        json!({"issuer": "https://evil.example.com"}),
        json!({"client_id": "other"}),
        json!({"allow_private": true}),
    ] {
        assert_eq!(
            put(people(json!({})), Some(secret("canary"))).await.unwrap().as_deref(),
            Some("canary")
        );
        assert_eq!(put(people(other.clone()), None).await.unwrap(), None, "{other}");
    }
    for wrong in ["", "two\nlines", &"x".repeat(2000)] {
        assert!(put(people(json!({})), Some(secret(wrong))).await.is_err(), "{wrong}");
    }
    let unix = json!({"unix": {"bind": [{"uid": 7}]}});
    assert!(matches!(
        put(unix, Some(secret("canary"))).await,
        Err(AuthError::NotAClient)
    ));
}
