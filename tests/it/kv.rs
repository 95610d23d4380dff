//! Versioned secrets over gRPC and by the command line.

use crate::world::{failure, reason, shared, value};
use strongroom_client::{Error, Fields, Secret, Select, v1};

/// R-KV-1: every verb by the command line: versions, check-and-set, delete, undelete, destroy, history.
#[test]
fn every_verb_by_command_line() {
    let cli = shared().world.cli();
    let get = |args: &[&str]| cli.run(&[&["--output", "json", "kv", "get", "kv/cli/a"], args].concat());
    cli.ok_with(&["kv", "put", "kv/cli/a", "-", "--cas", "0"], b"one");
    let exists = cli.run_with(
        &["--output", "json", "kv", "put", "kv/cli/a", "-", "--cas", "0"],
        b"again",
    );
    let refused = failure(&exists);
    assert_eq!(
        (refused["reason"].clone(), refused["exit_code"].clone()),
        ("CONFLICT".into(), 1.into())
    );
    assert!(
        refused["message"].as_str().unwrap().contains("current version is 1"),
        "{refused}"
    );
    cli.ok_with(&["kv", "put", "kv/cli/a", "-", "--cas", "1"], b"two");
    assert_eq!(cli.ok(&["kv", "get", "kv/cli/a", "--field", "value"]), "two");
    assert_eq!(
        cli.ok(&["kv", "get", "kv/cli/a", "--field", "value", "--label", "previous"]),
        "one"
    );
    cli.ok(&["kv", "delete", "kv/cli/a"]);
    let hidden = failure(&get(&[]));
    assert!(hidden["message"].as_str().unwrap().contains("undelete"), "{hidden}");
    assert_eq!(
        cli.ok(&["kv", "get", "kv/cli/a", "--field", "value", "--version", "1"]),
        "one"
    );
    cli.ok(&["kv", "undelete", "kv/cli/a", "--versions", "2"]);
    assert_eq!(cli.ok(&["kv", "get", "kv/cli/a", "--field", "value"]), "two");
    let labelled = cli.run(&["--output", "json", "kv", "destroy", "kv/cli/a", "--versions", "2"]);
    assert_eq!(
        failure(&labelled)["reason"],
        "NOT_POSSIBLE",
        "a labelled version is not destroyed"
    );
    for text in [&b"three"[..], b"four"] {
        cli.ok_with(&["kv", "put", "kv/cli/a", "-"], text);
    }
    cli.ok(&["kv", "destroy", "kv/cli/a", "--versions", "1"]);
    assert!(
        failure(&get(&["--version", "1"]))["message"]
            .as_str()
            .unwrap()
            .contains("destroyed")
    );
    let history = cli.json(&["kv", "history", "kv/cli/a"]);
    assert_eq!(history["current"], 4);
    assert_eq!(
        history["versions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|version| version["destroyed"] == true)
            .count(),
        1
    );
    cli.ok(&["kv", "destroy", "kv/cli/a", "--all"]);
    assert_eq!(failure(&get(&[]))["reason"], "NOT_FOUND");
}

/// R-KV-1: fields are bytes, come from stdin, files and JSON, and go out byte for byte.
#[test]
fn values_are_bytes() {
    let world = &shared().world;
    let cli = world.cli();
    let bytes: Vec<u8> = (0..=255).collect();
    let file = world.lab.dir().join("bytes");
    std::fs::write(&file, &bytes).unwrap();
    cli.ok_with(
        &["kv", "put", "kv/bytes/a", &format!("raw=@{}", file.display()), "text=-"],
        b"line\n",
    );
    let shown = cli.json(&["kv", "get", "kv/bytes/a"]);
    assert_eq!(shown["fields"]["text"], "line\n");
    let base64 = shown["fields_base64"]["raw"].as_str().unwrap();
    assert_eq!(data_encoding::BASE64.decode(base64.as_bytes()).unwrap(), bytes);
    cli.ok_with(
        &["kv", "put", "kv/bytes/b", "--from-json", "-"],
        br#"{"user":"app","password":"x y"}"#,
    );
    assert_eq!(cli.ok(&["kv", "get", "kv/bytes/b", "--field", "password"]), "x y");
}

/// R-KV-1: check-and-set and a missing secret, as the library types them; of many racing writers with one version, one wins.
#[tokio::test(flavor = "multi_thread")]
async fn check_and_set_has_one_winner() {
    let client = shared().world.client().await;
    assert_eq!(client.put("kv/cas/a", &value("first"), Some(0)).await.unwrap(), 1);
    let racers: Vec<_> = (0..16)
        .map(|racer| {
            let client = client.clone();
            tokio::spawn(async move { client.put("kv/cas/a", &value(&format!("racer {racer}")), Some(1)).await })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(version) => winners += version,
            Err(error) => assert!(matches!(error, Error::Conflict(_)), "{error:?}"),
        }
    }
    assert_eq!(winners, 2, "one racer wrote version 2");
    assert!(matches!(client.get("kv/cas/none").await, Err(Error::NotFound(_))));
    assert!(matches!(
        client.get_at("kv/cas/a", Select::Version(9)).await,
        Err(Error::NotFound(_))
    ));
}

/// R-KV-1: 1 MiB goes in and comes out; a byte more is refused with words; so are too many fields, wrong names, paths that are not canonical.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told() {
    let client = shared().world.client().await;
    let fields = |bytes: usize| -> Fields { [("value".to_owned(), Secret::new(vec![b'x'; bytes]))].into() };
    let most = 1 << 20;
    client.put("kv/limits/large", &fields(most), None).await.unwrap();
    assert_eq!(
        client
            .get("kv/limits/large")
            .await
            .unwrap()
            .field("value")
            .unwrap()
            .expose()
            .len(),
        most
    );
    let longest = "n".repeat(126);
    let many: Fields = (10..74)
        .map(|n| (format!("{longest}{n}"), Secret::new(vec![b'x'; most / 64])))
        .collect();
    client.put("kv/limits/long-names", &many, None).await.unwrap();
    assert_eq!(client.get("kv/limits/long-names").await.unwrap().fields.len(), 64);
    let refused = client.put("kv/limits/large", &fields(most + 1), None).await;
    assert!(
        refused
            .as_ref()
            .is_err_and(|error| error.to_string().contains("1048577 bytes")),
        "{refused:?}"
    );
    assert_eq!(reason(refused), "TOO_LARGE");
    let many: Fields = (0..65).map(|n| (format!("f{n}"), Secret::from("x"))).collect();
    for (path, fields) in [
        ("kv/limits/many", many),
        ("kv/limits/none", Fields::new()),
        ("kv/limits/name", [("a b".to_owned(), Secret::from("x"))].into()),
        ("kv/../kv/a", value("x")),
        ("kv//a", value("x")),
        ("/kv/a", value("x")),
        ("kv/%61", value("x")),
        ("kv", value("x")),
        ("", value("x")),
    ] {
        assert_eq!(reason(client.put(path, &fields, None).await), "MALFORMED", "{path:?}");
    }
    let deep = format!("kv/{}", vec!["d"; 40].join("/"));
    assert_eq!(reason(client.put(&deep, &value("x"), None).await), "MALFORMED");
}

/// R-KV-1: maximum versions, required check-and-set, custom metadata and labels.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_kept() {
    let client = shared().world.client().await;
    let set = |request: v1::KvSetMetadataRequest| {
        let client = client.clone();
        async move {
            client
                .change(request, |s, r| async move { s.kv().set_metadata(r).await })
                .await
        }
    };
    let path = "kv/meta/a".to_owned();
    for n in 1..=3 {
        client.put(&path, &value(&format!("{n}")), None).await.unwrap();
    }
    let custom = v1::KvCustom {
        entries: [("owner".to_owned(), "shop".to_owned())].into(),
    };
    let request = v1::KvSetMetadataRequest {
        path: path.clone(),
        custom: Some(custom),
        versions_max: Some(2),
        cas_required: Some(true),
        labels: [("blue".to_owned(), 3)].into(),
        ..Default::default()
    };
    set(request.clone()).await.unwrap();
    assert_eq!(
        reason(client.put(&path, &value("4"), None).await),
        "NOT_POSSIBLE",
        "check-and-set is required"
    );
    client.put(&path, &value("4"), Some(3)).await.unwrap();
    client.put(&path, &value("5"), Some(4)).await.unwrap();
    let told = client
        .read(v1::KvHistoryRequest { path: path.clone() }, |s, r| async move {
            s.kv().history(r).await
        })
        .await
        .unwrap();
    assert_eq!((told.current, told.versions_max, told.cas_required), (5, 2, true));
    assert_eq!(told.custom["owner"], "shop");
    let blue = client.get_at(&path, Select::Label("blue".to_owned())).await.unwrap();
    assert_eq!(blue.version, 3, "a labelled version outlives the maximum");
    assert!(
        client.get_at(&path, Select::Version(1)).await.is_err(),
        "the oldest went"
    );
    let current = v1::KvSetMetadataRequest {
        path,
        labels: [("current".to_owned(), 3)].into(),
        ..Default::default()
    };
    assert_eq!(reason(set(current).await), "MALFORMED", "`current` moves on put alone");
}

/// R-KV-2: pages of any size give every name once; a folder's listing shows its folders; recursive shows what is below.
#[tokio::test(flavor = "multi_thread")]
async fn listing_is_paged() {
    let client = shared().world.client().await;
    let mut all: Vec<String> = (0..23).map(|n| format!("n{n:02}")).collect();
    for name in &all {
        client
            .put(&format!("kv/paged/{name}"), &value("x"), None)
            .await
            .unwrap();
    }
    client.put("kv/paged/deep/er/one", &value("x"), None).await.unwrap();
    let pages = |recursive: bool, page_size: u32| {
        let client = client.clone();
        async move {
            let (mut names, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = v1::KvListRequest {
                    path: "kv/paged".into(),
                    recursive,
                    page_size,
                    page_token,
                    ..Default::default()
                };
                let page = client
                    .read(request, |s, r| async move { s.kv().list(r).await })
                    .await
                    .unwrap();
                assert!(page.entries.len() <= page_size as usize);
                names.extend(page.entries.into_iter().map(|entry| entry.name));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    names.sort();
                    return names;
                }
            }
        }
    };
    let below: Vec<String> = std::iter::once("deep/er/one".to_owned())
        .chain(all.iter().cloned())
        .collect();
    all.insert(0, "deep/".to_owned());
    for size in [1, 2, 7, 1000] {
        assert_eq!(pages(false, size).await, all, "pages of {size}");
        assert_eq!(pages(true, size).await, below, "recursive, pages of {size}");
    }
    let found = shared()
        .world
        .cli()
        .json(&["kv", "list", "kv/paged", "--recursive", "--search", "ER/"]);
    assert_eq!(found["names"], serde_json::json!(["deep/er/one"]), "a search by name");
    let forged = v1::KvListRequest {
        path: "kv/paged".into(),
        page_token: "made up".into(),
        ..Default::default()
    };
    assert_eq!(
        reason(client.read(forged, |s, r| async move { s.kv().list(r).await }).await),
        "MALFORMED"
    );
}

/// R-KV-2, R-POL-1: a listing shows what its caller may see and nothing else; unknown and forbidden answer alike.
#[tokio::test(flavor = "multi_thread")]
async fn listing_shows_what_the_caller_may_see() {
    let world = &shared().world;
    let client = world.client().await;
    for path in ["kv/seen/ours/a", "kv/seen/ours/b", "kv/seen/theirs/c", "kv/seen/loose"] {
        client.put(path, &value("x"), None).await.unwrap();
    }
    world.put_policy(
        "seen",
        r#"permit(principal in S::Group::"seers", action in S::Action::"kv_read", resource in S::Path::"kv/seen/ours");"#,
    );
    let seer = world.lab.client(&world.token("seer", &["seers"])).await;
    let mut ours = seer.list("kv/seen/ours").await.unwrap();
    ours.sort();
    assert_eq!(ours, ["a", "b"]);
    let request = v1::KvListRequest {
        path: "kv".into(),
        recursive: true,
        page_size: 1000,
        ..Default::default()
    };
    if let Ok(all) = seer.read(request, |s, r| async move { s.kv().list(r).await }).await {
        assert!(
            all.entries.iter().all(|entry| entry.name.starts_with("seen/ours/")),
            "{:?}",
            all.entries
        );
    }
    let texts: Vec<_> = ["kv/seen/theirs/c", "kv/seen/theirs/none", "kv/none", "nowhere/at/all"]
        .into_iter()
        .map(|path| {
            let seer = seer.clone();
            async move {
                let error = seer.get(path).await.unwrap_err();
                assert!(matches!(error, Error::Denied(_)), "{path}: {error:?}");
                error.refusal().unwrap().message.clone()
            }
        })
        .collect();
    let mut heard = std::collections::BTreeSet::new();
    for text in texts {
        heard.insert(text.await);
    }
    assert_eq!(heard.len(), 1, "unknown and forbidden answer alike: {heard:?}");
    assert!(
        matches!(
            seer.put("kv/seen/ours/a", &value("y"), None).await,
            Err(Error::Denied(_))
        ),
        "reading is not writing"
    );
}

/// Every change takes an idempotency key: the same one again gives the same answer and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_works_once() {
    let client = shared().world.client().await;
    let put = |text: &'static str| {
        let client = client.clone();
        let fields = [("value".to_owned(), bytes::Bytes::from_static(text.as_bytes()))].into();
        let request = v1::KvPutRequest {
            path: "kv/once/a".into(),
            fields,
            idempotency_key: "once-and-only".into(),
            ..Default::default()
        };
        async move { client.once(request, |s, r| async move { s.kv().put(r).await }).await }
    };
    let first = put("one").await.unwrap();
    assert_eq!(
        put("one").await.unwrap().version,
        first.version,
        "the same answer once more"
    );
    let read = client.get("kv/once/a").await.unwrap();
    assert_eq!(read.version, 1);
}
