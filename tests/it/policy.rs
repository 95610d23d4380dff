//! Policies: written, refused, decided, explained.

use crate::world::{failure, shared, value};
use strongroom_client::Error;

/// R-POL-1: what does not fit the schema is refused when it is written, with the line; nothing of it is kept.
#[test]
fn invalid_policies_are_refused_with_their_line() {
    let cli = shared().world.cli();
    let good = "permit(principal in S::Group::\"g\", action, resource in S::Path::\"kv\");\n";
    for (text, words) in [
        (
            format!("{good}permit(principal, action == S::Action::\"raed\", resource);"),
            vec!["2", "raed"],
        ),
        (
            format!("{good}\npermit(principal, action, resource) when {{ context.nothing }};"),
            vec!["3", "nothing"],
        ),
        (format!("{good}permit(principal, action resource);"), vec!["2"]),
        (
            "forbid(principal, action, resource in S::Path::\"kv/../x\");".to_owned(),
            vec!["1"],
        ),
        (String::new(), vec![]),
    ] {
        let ran = cli.run_with(&["--output", "json", "policy", "put", "wrong", "-"], text.as_bytes());
        if text.is_empty() && ran.code == 0 {
            cli.ok(&["policy", "delete", "wrong"]);
            continue;
        }
        let refused = failure(&ran);
        assert_eq!(refused["reason"], "MALFORMED", "{text}: {refused}");
        for word in words {
            assert!(refused["message"].as_str().unwrap().contains(word), "{word}: {refused}");
        }
    }
    let listed = cli.json(&["policy", "list"]);
    assert!(
        !listed["names"].as_array().unwrap().contains(&"wrong".into()),
        "{listed}"
    );
}

/// R-POL-1, R-POL-2: deny by default; a permit opens its path and no more; forbid wins; `explain` names who decided, before and after.
#[tokio::test(flavor = "multi_thread")]
async fn deny_permit_forbid_and_explain() {
    let world = &shared().world;
    let root = world.client().await;
    root.put("kv/decided/a", &value("x"), None).await.unwrap();
    root.put("kv/decided/secret", &value("x"), None).await.unwrap();
    let token = world.token("decided", &["deciders"]);
    let client = world.lab.client(&token).await;
    let explain = |path: &str| {
        let args = [
            "--output",
            "json",
            "policy",
            "explain",
            "read",
            path,
            "--identity",
            "decided",
            "--group",
            "deciders",
        ];
        let ran = world.cli().run(&args);
        let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        assert_eq!(ran.code, if told["allowed"] == true { 0 } else { 3 }, "{told}");
        told
    };
    assert!(
        matches!(client.get("kv/decided/a").await, Err(Error::Denied(_))),
        "nothing is permitted"
    );
    assert_eq!(explain("kv/decided/a")["allowed"], false);
    world.put_policy(
        "decided-open",
        r#"@id("read") permit(principal in S::Group::"deciders", action == S::Action::"read", resource in S::Path::"kv/decided");"#,
    );
    client.get("kv/decided/a").await.unwrap();
    client.get("kv/decided/secret").await.unwrap();
    let told = explain("kv/decided/a");
    assert_eq!(
        (told["allowed"].clone(), told["deciding"][0].clone()),
        (true.into(), "decided-open#read".into()),
        "{told}"
    );
    assert_eq!(
        explain("kv/decidedly/a")["allowed"],
        false,
        "a prefix is a whole segment"
    );
    world.put_policy(
        "decided-shut",
        r#"@id("shut") forbid(principal in S::Group::"deciders", action, resource in S::Path::"kv/decided/secret");"#,
    );
    assert!(
        matches!(client.get("kv/decided/secret").await, Err(Error::Denied(_))),
        "forbid wins"
    );
    client.get("kv/decided/a").await.unwrap();
    let told = explain("kv/decided/secret");
    assert!(
        told["deciding"]
            .as_array()
            .unwrap()
            .contains(&"decided-shut#shut".into()),
        "{told}"
    );
    world.cli().ok(&["policy", "delete", "decided-shut"]);
    client.get("kv/decided/secret").await.unwrap();
    let other = world.lab.cli().with_token(&token).run(&[
        "--output",
        "json",
        "policy",
        "explain",
        "read",
        "kv/a",
        "--identity",
        "root",
    ]);
    assert_eq!(
        failure(&other)["reason"],
        "DENIED",
        "explaining others needs `policy_read`"
    );
}

/// R-POL-1: a policy sees the transport; check-and-set protects a document; it is read back as it was written.
#[tokio::test(flavor = "multi_thread")]
async fn circumstances_and_versions() {
    let world = &shared().world;
    let text = r#"permit(principal in S::Group::"local", action == S::Action::"read", resource in S::Path::"kv/local")
when { context.transport == S::Transport::"unix" };
"#;
    let cli = world.cli();
    let put = |cas: &str| {
        cli.run_with(
            &["--output", "json", "policy", "put", "local", "-", "--cas", cas],
            text.as_bytes(),
        )
    };
    assert_eq!(put("0").code, 0);
    assert_eq!(failure(&put("0"))["reason"], "CONFLICT");
    assert_eq!(cli.ok(&["policy", "get", "local"]), text);
    world.client().await.put("kv/local/a", &value("x"), None).await.unwrap();
    let token = world.token("local", &["local"]);
    world.lab.cli().with_token(&token).ok(&["kv", "get", "kv/local/a"]);
    assert!(
        matches!(
            world.lab.client(&token).await.get("kv/local/a").await,
            Err(Error::Denied(_))
        ),
        "not over TLS"
    );
}
