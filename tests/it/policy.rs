//! Policies: written, refused, decided, explained.

use crate::world::{World, failure, shared, value};
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
    // A name alone is the identity as it is stored, and one that is not there is said to be none.
    let by_name = |name: &str| {
        let args = [
            "--output",
            "json",
            "policy",
            "explain",
            "read",
            "kv/decided/a",
            "--identity",
            name,
        ];
        serde_json::from_str::<serde_json::Value>(&world.cli().run(&args).out).unwrap()
    };
    assert_eq!(by_name("decided")["allowed"], true);
    let nobody = by_name("nobody-of-this-name");
    assert_eq!(nobody["allowed"], false);
    assert!(
        nobody["reason"].as_str().unwrap().contains("no identity of this name"),
        "{nobody}"
    );
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

fn json(ran: &strongroom_tests::Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// R-POL-2: cases in a file, tried on policy files without a daemon, on the daemon's policies, and on these with files put over them.
#[test]
fn cases_are_tested_offline_and_on_what_is_stored() {
    let world = &shared().world;
    let dir = world.lab.dir().join("cases");
    std::fs::create_dir_all(dir.join("policies")).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let open = r#"@id("read") permit(principal in S::Group::"casers", action == S::Action::"read", resource in S::Path::"kv/cases")
when { principal.hasTag("department") && principal.getTag("department") == "finance" && context.ip.isInRange(ip("10.0.0.0/8")) };"#;
    std::fs::write(dir.join("policies/cases-open.cedar"), open).unwrap();
    let case = |name: &str, expect: &str, more: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\nidentity = \"casey\"\ngroups = [\"casers\"]\naction = \"read\"\npath = \"kv/cases/a\"\nexpect = \"{expect}\"\n{more}\n"
        )
    };
    let finance = "attributes = { department = \"finance\" }\nip = \"10.1.2.3\"\n";
    let cases = [
        case(
            "from inside",
            "allow",
            &format!("{finance}by = [\"cases-open#read\"]\n"),
        ),
        case(
            "from outside",
            "deny",
            "attributes = { department = \"finance\" }\nip = \"192.0.2.1\"\n",
        ),
        case(
            "another department",
            "deny",
            "attributes = { department = \"sales\" }\nip = \"10.1.2.3\"\n",
        ),
    ]
    .concat();
    std::fs::write(dir.join("cases.toml"), cases).unwrap();
    let nowhere = world.lab.cli();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/examples");
    nowhere.ok(&[
        "policy",
        "test",
        &format!("{examples}/cases.toml"),
        "--policies",
        examples,
    ]);
    let ran = nowhere.run(&[
        "--address",
        "unix:/nonexistent",
        "--output",
        "json",
        "policy",
        "test",
        &at("cases.toml"),
        "--policies",
        &at("policies"),
    ]);
    assert_eq!((ran.code, json(&ran)["passed"].clone()), (0, 3.into()), "{ran:?}");

    let stored = world
        .cli()
        .run(&["--output", "json", "policy", "test", &at("cases.toml")]);
    assert_eq!(
        (stored.code, json(&stored)["failed"].clone()),
        (1, 1.into()),
        "nothing is stored yet: {stored:?}"
    );
    let both = world.cli().run(&[
        "policy",
        "test",
        &at("cases.toml"),
        "--stored",
        "--policies",
        &at("policies/cases-open.cedar"),
    ]);
    assert!(both.code == 0 && both.out.contains("from inside"), "{both:?}");
    world.put_policy("cases-open", open);
    world.cli().ok(&["policy", "test", &at("cases.toml")]);
    let without = world.cli().run(&[
        "--output",
        "json",
        "policy",
        "test",
        &at("cases.toml"),
        "--delete",
        "cases-open",
    ]);
    assert_eq!(
        (without.code, json(&without)["failed"].clone()),
        (1, 1.into()),
        "{without:?}"
    );
    std::fs::write(dir.join("wrong.toml"), "[[case]]\naction = \"read\"\npth = \"kv/a\"\n").unwrap();
    let wrong = world.cli().run(&["policy", "test", &at("wrong.toml")]);
    assert!(wrong.code == 2 && wrong.err.contains("pth"), "{wrong:?}");
}

/// R-POL-2: a change is decided over the recorded past before it is written: exactly what would come out otherwise is listed; the present policies
/// decide the past as it was decided; nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_replayed_over_the_past() {
    let world = World::open();
    let root = world.client().await;
    let cli = world.cli();
    for path in ["kv/a/1", "kv/b/1"] {
        root.put(path, &value("x"), None).await.unwrap();
    }
    let open = r#"permit(principal in S::Group::"eng", action == S::Action::"read", resource in S::Path::"kv");
permit(principal, action == S::Action::"list", resource in S::Path::"kv") when { principal.hasTag("team") && context.auth_strength < 2 };"#;
    world.put_policy("eng", open);
    let ann = world
        .lab
        .client(
            world.token_with("ann", &["eng"], &["--attribute", "team=a"])["token"]
                .as_str()
                .unwrap(),
        )
        .await;
    let bob = world.lab.client(&world.token("bob", &["eng"])).await;
    for _ in 0..3 {
        ann.get("kv/a/1").await.unwrap();
        bob.get("kv/b/1").await.unwrap();
        ann.list("kv/a").await.map(drop).unwrap();
        bob.put("kv/b/1", &value("y"), None).await.unwrap_err();
    }
    let proposed = world.lab.dir().join("eng.cedar");
    let put = |text: &str| std::fs::write(&proposed, text).unwrap();
    let simulate = || {
        let ran = cli.run(&[
            "--output",
            "json",
            "policy",
            "simulate",
            "--policies",
            &proposed.display().to_string(),
        ]);
        (ran.code, json(&ran))
    };
    put(open);
    let (code, same) = simulate();
    assert_eq!(
        (code, same["changed"].clone(), same["drifted"].clone()),
        (0, serde_json::json!([]), 0.into()),
        "{same}"
    );
    assert!(same["decided"].as_u64().unwrap() >= 12, "{same}");

    put(r#"permit(principal in S::Group::"eng", action, resource in S::Path::"kv/b");"#);
    let (code, told) = simulate();
    assert_eq!(code, 1);
    let mut lines: Vec<_> = told["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|changed| {
            let text = |key: &str| changed[key].as_str().unwrap().to_owned();
            (
                text("identity"),
                text("action"),
                text("path"),
                text("would"),
                changed["count"].as_u64().unwrap(),
            )
        })
        .collect();
    lines.sort();
    let line = |who: &str, action: &str, path: &str, would: &str| {
        (who.to_owned(), action.to_owned(), path.to_owned(), would.to_owned(), 3)
    };
    let want = [
        line("ann", "list", "kv/a", "deny"),
        line("ann", "read", "kv/a/1", "deny"),
        line("bob", "write", "kv/b/1", "allow"),
    ];
    assert_eq!(lines, want, "{told}");
    assert_eq!(
        cli.ok(&["policy", "get", "eng"]).trim_end(),
        open,
        "nothing was written"
    );

    // What was foretold comes true, and the past is then unlike the present.
    cli.ok(&["policy", "put", "eng", &proposed.display().to_string()]);
    ann.get("kv/a/1").await.unwrap_err();
    bob.put("kv/b/1", &value("y"), None).await.unwrap();
    let (code, after) = simulate();
    assert_eq!((code, after["changed"].clone()), (0, serde_json::json!([])), "{after}");
    assert!(after["drifted"].as_u64().unwrap() >= 9, "{after}");
    let nobody = world
        .lab
        .cli()
        .with_token(&world.token("nobody", &[]))
        .run(&["policy", "simulate", "--delete", "eng"]);
    assert_eq!(nobody.code, 3, "{nobody:?}");
}

/// R-POL-2: who could read something: identities by group and attribute, trusts, groups without members; with the conditions of the call, and
/// what no policy gives.
#[test]
fn who_can_names_everybody_and_the_conditions() {
    let world = World::open();
    let cli = world.cli();
    world.put_policy(
        "who",
        r#"@id("eng") permit(principal in S::Group::"eng", action == S::Action::"read", resource in S::Path::"kv/prod");
@id("finance") permit(principal, action == S::Action::"read", resource in S::Path::"kv/prod")
when { principal.hasTag("department") && principal.getTag("department") == "finance" && context.transport == S::Transport::"unix" };
@id("empty") permit(principal in S::Group::"nobody-yet", action == S::Action::"read", resource in S::Path::"kv/prod");
@id("not") forbid(principal in S::Group::"banned", action, resource);"#,
    );
    world.token("ann", &["eng"]);
    world.token("ann", &[]);
    cli.ok(&["group", "create", "banned", "mallory"]);
    cli.ok(&["group", "add", "eng", "mallory"]);
    cli.ok(&["identity", "put", "fred", "--attribute", "department=finance"]);
    cli.ok(&["identity", "put", "sue", "--attribute", "department=sales"]);
    cli.ok_with(&["trust", "put", "billing", "-"], br#"{"role": {"groups": ["eng"]}}"#);
    let told = cli.json(&["policy", "who-can", "read", "kv/prod/db"]);
    let who = told["who"].as_array().unwrap();
    let row = |kind: &str, name: &str| who.iter().find(|row| row["kind"] == kind && row["name"] == name);
    let ann = row("identity", "ann").unwrap();
    assert_eq!(
        (ann["always"].clone(), ann["tokens"].clone()),
        (true.into(), 2.into()),
        "{told}"
    );
    let fred = row("identity", "fred").unwrap();
    assert_eq!(fred["always"], false);
    assert!(
        fred["permits"][0]["condition"].as_str().unwrap().contains("transport"),
        "{told}"
    );
    for gone in ["sue", "mallory", "setup"] {
        assert!(row("identity", gone).is_none(), "{gone}: {told}");
    }
    assert!(
        row("trust", "billing").is_some() && row("group without known members", "nobody-yet").is_some(),
        "{told}"
    );
    assert!(
        told["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|note| note.as_str().unwrap().contains("set-up")),
        "{told}"
    );
    let text = cli.ok(&["policy", "who-can", "destroy", "kv/prod/db"]);
    assert!(text.contains("nobody, by policy"), "{text}");
    assert_eq!(cli.run(&["policy", "who-can", "raed", "kv/a"]).code, 2);
}

/// R-POL-1: a group or an attribute that is given to or taken from an identity holds for its live tokens at once, and only who may give it can.
#[tokio::test(flavor = "multi_thread")]
async fn groups_and_attributes_hold_at_once() {
    let world = World::open();
    let cli = world.cli();
    world.client().await.put("kv/team/a", &value("x"), None).await.unwrap();
    world.put_policy(
        "team",
        r#"permit(principal in S::Group::"team", action == S::Action::"read", resource in S::Path::"kv/team");
permit(principal, action == S::Action::"write", resource in S::Path::"kv/team") when { principal.hasTag("grade") && principal.getTag("grade") == "lead" };
permit(principal in S::Group::"hr", action == S::Action::"token_create", resource in S::Path::"sys/token");
permit(principal in S::Group::"hr", action == S::Action::"token_create", resource in S::Path::"sys/group/team");"#,
    );
    let client = world.lab.client(&world.token("kim", &[])).await;
    assert!(matches!(client.get("kv/team/a").await, Err(Error::Denied(_))));
    cli.ok(&["group", "create", "team", "kim", "lee"]);
    client.get("kv/team/a").await.unwrap();
    assert!(matches!(
        client.put("kv/team/a", &value("y"), None).await,
        Err(Error::Denied(_))
    ));
    cli.ok(&["identity", "put", "kim", "--attribute", "grade=lead"]);
    client.put("kv/team/a", &value("y"), None).await.unwrap();
    let shown = cli.json(&["identity", "show", "kim"]);
    assert_eq!(shown["groups"], serde_json::json!(["team"]));
    assert_eq!(
        (shown["attributes"]["grade"].clone(), shown["tokens"].clone()),
        ("lead".into(), 1.into()),
        "{shown}"
    );
    let members = cli.json(&["group", "show", "team"]);
    assert_eq!(members["identities"].as_array().unwrap().len(), 2, "{members}");
    assert_eq!(
        cli.json(&["group", "list"])["groups"][0]["members"],
        serde_json::json!(["kim", "lee"])
    );

    let hr = world.lab.cli().with_token(&world.token("hana", &["hr"]));
    hr.ok(&["group", "remove", "team", "lee"]);
    let refused = hr.run(&["--output", "json", "group", "add", "admins", "lee"]);
    assert_eq!(
        failure(&refused)["reason"],
        "DENIED",
        "not a group that hr may give: {refused:?}"
    );
    assert_eq!(
        failure(&hr.run(&["--output", "json", "group", "add", "team", "ghost"]))["reason"],
        "NOT_FOUND"
    );
    assert_eq!(cli.run(&["group", "create", "team", "kim"]).code, 1, "there is one");
    cli.ok(&["group", "delete", "team"]);
    assert!(
        matches!(client.get("kv/team/a").await, Err(Error::Denied(_))),
        "at once"
    );
    cli.ok(&["identity", "put", "kim", "--remove-attribute", "grade"]);
    assert!(matches!(
        client.put("kv/team/a", &value("z"), None).await,
        Err(Error::Denied(_))
    ));
    let own = world
        .lab
        .cli()
        .with_token(&world.token("kim", &[]))
        .json(&["identity", "show"]);
    assert_eq!(
        (own["name"].clone(), own["groups"].clone()),
        ("kim".into(), serde_json::json!([])),
        "one may look at oneself"
    );
}

/// R-POL-1: the attributes of a call and of a caller, each on the real daemon: department, time, network, transport, strength of the log-in,
/// binding, what the log-in says.
#[tokio::test(flavor = "multi_thread")]
async fn policies_see_the_caller_and_the_call() {
    let world = World::open();
    let root = world.client().await;
    let uid = rustix::process::geteuid().as_raw();
    let trust = format!(r#"{{"unix": {{"bind": [{{"uid": {uid}, "groups": ["local"]}}]}}}}"#);
    world.cli().ok_with(&["trust", "put", "here", "-"], trust.as_bytes());
    let over_tls = world.token_with("kim", &[], &["--attribute", "department=finance"])["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let logged_in = world.lab.cli().json(&["login", "peer", "here", "--show"])["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let kim = world.lab.client(&over_tls).await;
    for (name, condition, tls, unix) in [
        (
            "department",
            r#"principal.hasTag("department") && principal.getTag("department") == "finance""#,
            true,
            false,
        ),
        ("past", r#"context.now < datetime("2020-01-01")"#, false, false),
        (
            "time",
            r#"context.now > datetime("2020-01-01") && context.hour_utc >= 0 && context.weekday_utc >= 1"#,
            true,
            true,
        ),
        ("network", r#"context.ip.isLoopback()"#, true, false),
        ("transport", r#"context.transport == S::Transport::"unix""#, false, true),
        ("strength", "context.auth_strength >= 2", false, true),
        ("unbound", r#"context.token_binding == S::Binding::"none""#, true, true),
        ("bound", r#"context.token_binding != S::Binding::"none""#, false, false),
        ("age", "context.token_age_secs < 600", true, true),
        (
            "method",
            r#"principal.hasTag("login:method") && principal.getTag("login:method") == "unix""#,
            false,
            true,
        ),
    ] {
        let path = format!("kv/seen/{name}");
        root.put(&path, &value("x"), None).await.unwrap();
        world.put_policy(
            "seen",
            &format!("permit(principal, action == S::Action::\"read\", resource == S::Path::\"{path}\") when {{ {condition} }};"),
        );
        assert_eq!(kim.get(&path).await.is_ok(), tls, "{name} with a token over TLS");
        let ran = world.lab.cli().with_token(&logged_in).run(&["kv", "get", &path]);
        assert_eq!(ran.code == 0, unix, "{name} of a log-in over the Unix socket: {ran:?}");
    }
}

/// R-AUTH-5: a policy that wants a recent log-in says so to whoever would be let through then, with the command; a new token is let through; who
/// has no permit, or meets another `forbid`, hears no more than no. R-AUDIT-1: the record has the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_asks_for_a_recent_log_in() {
    let world = &crate::world::shared().world;
    let policy = |more: &str| {
        format!(
            r#"permit (principal in S::Group::"steps", action == S::Action::"read", resource in S::Path::"kv/steps");
               @id("recent") @step_up("recent")
               forbid (principal in S::Group::"steps", action == S::Action::"read", resource in S::Path::"kv/steps")
               when {{ context.token_age_secs > 6 }};{more}"#
        )
    };
    let root = world.client().await;
    root.put("kv/steps/a", &crate::world::value("1"), None).await.unwrap();
    world.put_policy("steps", &policy(""));
    let token = world.token("steps", &["steps"]);
    let read = |token: &str, path: &str| {
        let cli = world.lab.cli().with_token(token);
        cli.run(&["--output", "json", "kv", "get", path])
    };
    let mut refused = serde_json::Value::Null;
    crate::world::eventually("the token has become too old", || {
        let ran = read(&token, "kv/steps/a");
        if ran.code != 0 {
            refused = crate::world::failure(&ran);
        }
        ran.code == 3
    });
    assert_eq!(refused["reason"], "STEP_UP_REQUIRED", "{refused}");
    assert!(
        refused["next"].as_str().unwrap().contains("strongroom login"),
        "{refused}"
    );
    let error = world.lab.client(&token).await.get("kv/steps/a").await.unwrap_err();
    assert_eq!(error.refusal().unwrap().step_up, ["recent"]);
    assert_eq!(crate::world::failure(&read(&token, "kv/other"))["reason"], "DENIED");
    let child = world.lab.cli().with_token(&token).json(&["token", "create"]);
    let child = read(child["token"].as_str().unwrap(), "kv/steps/a");
    assert_eq!(
        crate::world::failure(&child)["reason"],
        "STEP_UP_REQUIRED",
        "a token of one's own making is no log-in"
    );
    crate::world::eventually("a new token is let through", || {
        read(&world.token("steps", &["steps"]), "kv/steps/a").code == 0
    });
    let records = crate::audit::records(&world.cli());
    let last = records
        .iter()
        .rev()
        .find(|record| record["path"] == "kv/steps/a" && record["outcome"]["reason"] == "STEP_UP_REQUIRED");
    assert_eq!(last.unwrap()["policy"]["deciding"][0], "steps#recent");
    let also =
        r#"forbid (principal in S::Group::"steps", action == S::Action::"read", resource in S::Path::"kv/steps");"#;
    world.put_policy("steps", &policy(also));
    assert_eq!(crate::world::failure(&read(&token, "kv/steps/a"))["reason"], "DENIED");
}
