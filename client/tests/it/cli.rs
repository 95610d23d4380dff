//! The program itself: exit codes, what goes in by stdin, what comes out.

use crate::fake::{Fake, Step};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};
use tonic::Code;

/// Runs `strongroom` with nothing of this machine's settings, `stdin` given to it.
pub fn run(home: &Path, arguments: &[&str], environment: &[(&str, &str)], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn on(fake: &Fake, arguments: &[&str], stdin: &[u8]) -> Output {
    let environment = [
        ("STRONGROOM_ADDR", fake.address()),
        ("STRONGROOM_TOKEN", "srm_at_canary".to_owned()),
    ];
    run(
        fake.dir.path(),
        arguments,
        &environment.each_ref().map(|(k, v)| (*k, v.as_str())),
        stdin,
    )
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit codes that scripts depend on, and errors as JSON in JSON mode.
#[test]
fn exit_codes_tell_scripts_what_happened() {
    let fake = Fake::start();
    fake.set_fields(&[("a", b"b")]);
    for (code, reason, exit, kind) in [
        (Code::PermissionDenied, "DENIED", 3, "denied"),
        (Code::Unauthenticated, "TOKEN_INVALID", 3, "unauthenticated"),
        (Code::FailedPrecondition, "SEALED", 5, "sealed"),
        (Code::FailedPrecondition, "NOT_POSSIBLE", 1, "conflict"),
        (Code::ResourceExhausted, "STORAGE_FULL", 1, "exhausted"),
    ] {
        fake.script("kv.get", &[Step::Fail(code, reason)]);
        let output = on(&fake, &["kv", "get", "kv/a", "-o", "json"], b"");
        assert_eq!(output.status.code(), Some(exit), "{reason}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["kind"], kind);
        assert_eq!(error["error"]["reason"], reason);
        assert_eq!(error["error"]["exit_code"], exit);
        assert!(error["error"]["next"].as_str().is_some_and(|next| !next.is_empty()));
    }
    assert_eq!(on(&fake, &["kv", "get", "kv/a"], b"").status.code(), Some(0));
    assert_eq!(on(&fake, &["operator", "status"], b"").status.code(), Some(5), "sealed");
    assert_eq!(on(&fake, &["kv", "got"], b"").status.code(), Some(2));
    let absent = run(
        fake.dir.path(),
        &["kv", "get", "kv/a", "--address", "unix:/nonexistent/s"],
        &[],
        b"",
    );
    assert_eq!(absent.status.code(), Some(4), "{}", text(&absent.stderr));
    assert!(text(&absent.stderr).contains(" next: "), "{}", text(&absent.stderr));
    let usage = on(&fake, &["kv", "got", "-o", "json"], b"");
    let usage: serde_json::Value = serde_json::from_slice(&usage.stderr).unwrap();
    assert_eq!(usage["error"]["exit_code"], 2);
}

/// Values go in by stdin and come out byte for byte.
#[test]
fn values_are_exact() {
    let fake = Fake::start();
    let binary: Vec<u8> = (0..=255).chain([b'\n']).collect();
    let put = on(&fake, &["kv", "put", "kv/a", "-"], &binary);
    assert_eq!(put.status.code(), Some(0), "{}", text(&put.stderr));
    assert_eq!(fake.seen("kv.put")[0].text, binary);
    fake.set_fields(&[("value", &binary)]);
    assert_eq!(
        on(&fake, &["kv", "get", "kv/a", "--field", "value"], b"").stdout,
        binary
    );
    let json: serde_json::Value =
        serde_json::from_slice(&on(&fake, &["kv", "get", "kv/a", "-o", "json"], b"").stdout).unwrap();
    assert_eq!(json["fields"], serde_json::json!({}));
    assert!(
        json["fields_base64"]["value"]
            .as_str()
            .is_some_and(|b| b.starts_with("AAECAwQ"))
    );
    let missing = on(&fake, &["kv", "get", "kv/a", "--field", "valeu"], b"");
    assert!(
        text(&missing.stderr).contains("it has: value"),
        "{}",
        text(&missing.stderr)
    );
}

/// House rule: a value in the arguments is refused, and not repeated.
#[test]
fn a_value_in_the_arguments_is_refused() {
    let fake = Fake::start();
    let refused = on(&fake, &["kv", "put", "kv/a", "password=hunter2"], b"");
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(!said.contains("hunter2") && said.contains("password=-"), "{said}");
    assert!(fake.seen("kv.put").is_empty());
    let accepted = on(&fake, &["kv", "put", "kv/a", "--literal", "value=plain"], b"");
    assert_eq!(accepted.status.code(), Some(0), "{}", text(&accepted.stderr));
    assert_eq!(fake.seen("kv.put")[0].text, b"plain");
    for wrong in [
        &["audit", "hash", "hunter2"][..],
        &["mount", "config", "pg", "--root-secret", "hunter2"],
        &["token", "save", "hunter2"],
    ] {
        let output = on(&fake, wrong, b"");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// No escape sequence of a stored value reaches the terminal, and none is added when piped.
#[test]
fn output_has_no_escape_sequences() {
    let fake = Fake::start();
    fake.set_fields(&[("value", b"\x1b]0;owned\x07\x1b[31mred")]);
    for arguments in [
        &["kv", "get", "kv/a"][..],
        &["operator", "status"],
        &["kv", "--help"],
        &["doctor"],
    ] {
        let output = on(&fake, arguments, b"");
        assert!(
            !output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b),
            "{arguments:?}: {}",
            text(&output.stdout)
        );
        assert!(!output.stdout.is_empty());
    }
}

/// R-SEAL-3: shares come from stdin or private files; each holder learns what the next one types.
#[test]
fn unsealing_share_by_share() {
    let fake = Fake::start();
    let first = on(&fake, &["operator", "unseal"], b"share-1\n");
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let said = text(&first.stdout);
    assert!(
        said.contains("1 of 3") && said.contains("operator unseal --slot daily --session nonce-1"),
        "{said}"
    );
    let files: Vec<_> = ["2", "3"]
        .iter()
        .map(|n| {
            let path = fake.dir.path().join(format!("{n}.share"));
            fs::write(&path, format!("share-{n}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        })
        .collect();
    let arguments = [
        "operator",
        "unseal",
        "--session",
        "nonce-1",
        "--share-file",
        &files[0],
        "--share-file",
        &files[1],
    ];
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o644)).unwrap();
    let open_to_all = on(&fake, &arguments, b"");
    assert_eq!(open_to_all.status.code(), Some(2));
    assert!(
        text(&open_to_all.stderr).contains("chmod 600"),
        "{}",
        text(&open_to_all.stderr)
    );
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o600)).unwrap();
    let rest = on(&fake, &arguments, b"");
    assert_eq!(
        (rest.status.code(), text(&rest.stdout).as_str()),
        (Some(0), "unsealed\n"),
        "{}",
        text(&rest.stderr)
    );
    let shares: Vec<_> = fake
        .seen("operator.present")
        .iter()
        .map(|seen| text(&seen.text))
        .collect();
    assert_eq!(shares, ["share-1", "share-2", "share-3"]);
    let again = on(&fake, &["operator", "unseal"], b"");
    assert_eq!(text(&again.stdout), "the vault is open already\n");
    assert_eq!(
        on(&fake, &["operator", "status", "-o", "json"], b"").status.code(),
        Some(0)
    );
}

/// R-OPS-4: the config file is strict; the error names file, line and key. Flags win over environment over file.
#[test]
fn settings_have_an_order_and_strict_keys() {
    let fake = Fake::start();
    fake.set_fields(&[("a", b"b")]);
    let dir = fake.dir.path().join(".config/strongroom");
    fs::create_dir_all(&dir).unwrap();
    fs::write(
        dir.join("config.toml"),
        format!("address = \"{}\"\noutput = \"json\"\n", fake.address()),
    )
    .unwrap();
    let by_file = run(fake.dir.path(), &["kv", "get", "kv/a"], &[], b"");
    assert_eq!(by_file.status.code(), Some(0), "{}", text(&by_file.stderr));
    assert!(serde_json::from_slice::<serde_json::Value>(&by_file.stdout).is_ok());
    let by_flag = run(fake.dir.path(), &["kv", "get", "kv/a", "--output", "table"], &[], b"");
    assert_eq!(text(&by_flag.stdout), "FIELD  VALUE\na      b\n");
    let env = run(
        fake.dir.path(),
        &["kv", "get", "kv/a"],
        &[("STRONGROOM_ADDR", "unix:/nonexistent/s")],
        b"",
    );
    assert_eq!(env.status.code(), Some(4));
    fs::write(
        dir.join("config.toml"),
        "address = \"https://a\"\nadress = \"https://b\"\n",
    )
    .unwrap();
    let wrong = run(fake.dir.path(), &["operator", "status"], &[], b"");
    let said = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        said.contains("config.toml, line 2") && said.contains("adress"),
        "{said}"
    );
}

/// R-TOK-5: the token comes from a private file or the environment, and a file that is open to others is refused.
#[test]
fn the_token_comes_from_private_places() {
    let fake = Fake::start();
    fake.set_fields(&[("a", b"b")]);
    let dir = fake.dir.path().join(".config/strongroom");
    fs::create_dir_all(&dir).unwrap();
    let cache = dir.join("token");
    fs::write(&cache, "srm_at_cached\n").unwrap();
    let address = fake.address();
    let environment = [("STRONGROOM_ADDR", address.as_str())];
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(fake.dir.path(), &["kv", "get", "kv/a"], &environment, b"");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o600)).unwrap();
    run(fake.dir.path(), &["kv", "get", "kv/a"], &environment, b"");
    run(
        fake.dir.path(),
        &["kv", "get", "kv/a", "--token-file", "-"],
        &environment,
        b"srm_at_stdin\n",
    );
    on(&fake, &["kv", "get", "kv/a"], b"");
    let tokens: Vec<_> = fake
        .seen("kv.get")
        .into_iter()
        .filter_map(|seen| seen.authorization)
        .collect();
    assert_eq!(
        tokens,
        ["Bearer srm_at_cached", "Bearer srm_at_stdin", "Bearer srm_at_canary"]
    );
    run(fake.dir.path(), &["operator", "status"], &environment, b"");
    assert_eq!(
        fake.seen("operator.status")[0].authorization,
        None,
        "status needs no token and is sent none"
    );
}

/// A reader that goes away is no failure, and nothing panics.
#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [&["completion", "bash"][..], &["man"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{arguments:?}: {}", text(&output.stderr));
    }
}

/// R-SEAL-3: `init` hands out shares and the set-up token once, to a terminal or to private files.
#[test]
fn init_hands_out_shares_once() {
    let fake = Fake::start();
    let shown = on(&fake, &["operator", "init"], b"");
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    let said = text(&shown.stdout);
    assert!(
        said.contains("daily-share-1") && said.contains("srm_at_setup"),
        "{said}"
    );
    assert!(
        text(&shown.stderr).contains("break-glass"),
        "one slot is not enough: {}",
        text(&shown.stderr)
    );

    let dir = fake.dir.path().join("shares").display().to_string();
    let slots = ["--slot", "daily=hsm+quorum:3/5", "--slot", "break-glass=quorum:4/7"];
    let arguments = ["operator", "init", "--shares-dir", &dir, "--save-token", "-o", "json"];
    let kept = on(&fake, &[&arguments[..], &slots].concat(), b"");
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept.stderr));
    let json: serde_json::Value = serde_json::from_slice(&kept.stdout).unwrap();
    assert_eq!(json["slots"][1]["files"].as_array().map(Vec::len), Some(2));
    assert!(
        !text(&kept.stdout).contains("-share-1\"") && !text(&kept.stdout).contains("srm_at"),
        "{json}"
    );
    for file in [
        "shares/daily-1.share",
        "shares/break-glass-2.share",
        ".config/strongroom/token",
    ] {
        let path = fake.dir.path().join(file);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    assert_eq!(
        fs::read_to_string(fake.dir.path().join(".config/strongroom/token")).unwrap(),
        "srm_at_setup\n"
    );

    let unwritable = on(&fake, &["operator", "init", "--shares-dir", "/dev/null/shares"], b"");
    assert_eq!(unwritable.status.code(), Some(2), "told before anything is made");
    assert_eq!(fake.seen("operator.init").len(), 2);
}

/// Shares that nobody read are a failure, unlike any other output that is cut off.
#[test]
fn shares_that_nobody_read_are_a_failure() {
    let fake = Fake::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(["operator", "init", "--address", &fake.address()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

/// Completion and manual pages are made from the grammar.
#[test]
fn completion_and_manual_pages() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(dir.path(), &["completion", shell], &[], b"");
        assert!(text(&script.stdout).contains("strongroom"), "{shell}");
    }
    let pages = dir.path().join("man1");
    let made = run(dir.path(), &["man", "--dir", pages.to_str().unwrap()], &[], b"");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let page = fs::read_to_string(pages.join("strongroom-kv-put.1")).unwrap();
    assert!(page.contains("kv put"), "{page}");
}
