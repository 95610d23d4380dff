//! Tokens: life, renewal, revocation, and what a session takes with it.

use crate::world::{World, eventually, failure, reason, shared};
use std::time::Duration;
use strongroom_client::{Error, v1};

const READ: &str = r#"permit(principal in S::Group::"token-tests", action in S::Action::"kv_read", resource in S::Path::"kv");
permit(principal in S::Group::"token-tests", action == S::Action::"issue", resource in S::Path::"pg");"#;

/// A token without a live caller behind it is refused alike, whatever is wrong with it.
async fn refused(world: &World, token: &str) {
    let error = world.lab.client(token).await.get("kv/a").await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated(_)), "{error:?}");
    assert_eq!(error.reason(), Some("TOKEN_INVALID"));
}

/// R-TOK-5: a token has prefix, 43 and 6 characters; not one of it may be changed; what is no token is refused like one that is over.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_whole_token_is_taken() {
    let world = &shared().world;
    let token = world.token("whole", &[]);
    assert!(
        token.starts_with("srm_at_") && token.len() == 7 + 43 + 6,
        "its length: {}",
        token.len()
    );
    let flip = |at: usize| {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).unwrap()
    };
    for wrong in [
        flip(0),
        flip(7),
        flip(30),
        flip(55),
        token[..55].to_owned(),
        format!("{token}a"),
        "x".to_owned(),
        "x".repeat(5000),
    ] {
        refused(world, &wrong).await;
    }
    let show = |token: &str| {
        world
            .lab
            .cli()
            .with_token(token)
            .run(&["--output", "json", "token", "show"])
    };
    assert_eq!(show(&token).code, 0);
    assert_eq!(failure(&show(&flip(9)))["exit_code"], 3);
}

/// R-AUTH-4: a token lives 15 minutes unless told otherwise, at most a day; it renews to its maximum and not beyond; then it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_as_long_as_it_says() {
    let world = &shared().world;
    let made = world.token_with("lives", &[], &[]);
    assert_eq!(made["ttl_secs"], 900);
    let made = world.token_with("lives", &[], &["--ttl", "2s", "--max-ttl", "5s"]);
    let token = made["token"].as_str().unwrap().to_owned();
    let cli = world.lab.cli().with_token(&token);
    assert_eq!(cli.json(&["token", "show"])["identity"], "lives");
    let renewed = cli.json(&["token", "renew", "--ttl", "1h"]);
    assert!(
        renewed["ttl_secs"].as_u64().unwrap() <= 5,
        "not beyond its maximum: {renewed}"
    );
    tokio::time::sleep(Duration::from_secs(6)).await;
    refused(world, &token).await;
    let beyond = world.cli().run(&[
        "--output",
        "json",
        "token",
        "create",
        "--identity",
        "lives",
        "--ttl",
        "25h",
    ]);
    assert_eq!(failure(&beyond)["reason"], "MALFORMED");
}

/// R-TOK-6, R-AUTH-4: a revoked token is over at once; by accessor too; its siblings live.
#[tokio::test(flavor = "multi_thread")]
async fn revocation_is_at_once() {
    let world = &shared().world;
    world.put_policy("token-tests", READ);
    let one = world.token_with("revoked", &["token-tests"], &[]);
    let two = world.token_with("revoked", &["token-tests"], &[]);
    let text = |made: &serde_json::Value, key: &str| made[key].as_str().unwrap().to_owned();
    world.cli().ok(&["token", "revoke", &text(&one, "accessor")]);
    refused(world, &text(&one, "token")).await;
    let sibling = world.lab.cli().with_token(&text(&two, "token"));
    sibling.ok(&["token", "show"]);
    sibling.ok(&["token", "revoke", "--own"]);
    refused(world, &text(&two, "token")).await;
}

/// R-LEASE-1, R-TOK-6: revoking a session ends every token that came from it and every account it leased.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_its_leases_along() {
    let shared = shared();
    let world = &shared.world;
    world.put_policy("token-tests", READ);
    let made = world.token_with("leaver", &["token-tests"], &[]);
    let token = made["token"].as_str().unwrap();
    let client = world.lab.client(token).await;
    let child = client
        .change(v1::TokenCreateRequest::default(), |s, r| async move {
            s.token().create(r).await
        })
        .await
        .unwrap();
    let of_child = world
        .lab
        .client(&child.token)
        .await
        .issue("pg/readers", None)
        .await
        .unwrap();
    let own = client.issue("pg/readers", None).await.unwrap();
    let accounts = [&of_child, &own].map(|made| made.field("username").unwrap().expose_str().unwrap().to_owned());
    let revoked = world
        .cli()
        .json(&["token", "revoke", made["accessor"].as_str().unwrap(), "--session"]);
    assert_eq!(
        (revoked["tokens"].clone(), revoked["leases_queued"].clone()),
        (2.into(), 2.into()),
        "{revoked}"
    );
    refused(world, token).await;
    refused(world, &child.token).await;
    for account in accounts {
        let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{account}'");
        eventually("its account is gone", || {
            shared.server.admin("postgres", &sql).unwrap() == "0"
        });
    }
}

/// R-POL-1: an identity's groups are replaced by those given, kept when none are, and all taken away with `--exactly`.
#[test]
fn the_last_group_can_be_taken_away() {
    let world = &shared().world;
    let first = world.token("member", &["one", "two"]);
    let groups = || world.lab.cli().with_token(&first).json(&["token", "show"])["groups"].clone();
    assert_eq!(groups(), serde_json::json!(["one", "two"]));
    world.token("member", &[]);
    assert_eq!(groups(), serde_json::json!(["one", "two"]));
    world.token_with("member", &["two"], &["--exactly"]);
    assert_eq!(groups(), serde_json::json!(["two"]));
    world.token_with("member", &[], &["--exactly"]);
    assert_eq!(groups(), serde_json::json!([]));
    let own = world.cli().run(&["token", "create", "--exactly"]);
    assert_eq!(own.code, 2, "whose? {own:?}");
}

/// R-AUTH-4: the token of `init` says that it is for set-up and ends in an hour, and does not renew beyond it.
#[test]
fn the_setup_token_ends_in_an_hour() {
    let cli = shared().world.cli();
    let told = cli.json(&["token", "show"]);
    assert_eq!(told["purpose"], "setup");
    assert_eq!(told["expires_at"], told["max_expires_at"], "{told}");
    assert!(told["ttl_secs"].as_u64().unwrap() <= 3600, "{told}");
    let renewed = cli.json(&["token", "renew", "--ttl", "2h"]);
    assert!(renewed["ttl_secs"].as_u64().unwrap() <= 3600, "{renewed}");
}

/// R-POL-1: nobody hands out what is not theirs: groups that the caller is not in, the vault's own identities.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_out_what_is_not_theirs() {
    let world = &shared().world;
    world.put_policy(
        "hands",
        r#"permit(principal in S::Group::"handers", action == S::Action::"token_create", resource in S::Path::"sys/token");"#,
    );
    let hander = world.lab.client(&world.token("hander", &["handers"])).await;
    let ask = |identity: &str, groups: &[&str]| {
        let hander = hander.clone();
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let request = v1::TokenCreateRequest {
            identity: identity.to_owned(),
            groups,
            ..Default::default()
        };
        async move {
            hander
                .change(request, |s, r| async move { s.token().create(r).await })
                .await
        }
    };
    ask("handed", &["handers"]).await.unwrap();
    assert_eq!(reason(ask("handed-more", &["admin"]).await), "DENIED");
    assert_eq!(
        reason(ask("setup", &[]).await),
        "MALFORMED",
        "a name of the vault's own"
    );
}
