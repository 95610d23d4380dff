//! The vault: made, opened by its operators, and used.

use super::{Shown, check, stage::Stage, step};
use std::fs;
use strongroom_client::{Client, Error, Fields, Secret};

/// Who may do what, as the application's policy says.
const APP_POLICY: &str = r#"permit(principal in S::Group::"shop", action in S::Action::"kv_read", resource in S::Path::"kv/shop");
permit(principal in S::Group::"shop", action == S::Action::"issue", resource in S::Path::"pg");"#;

/// Two key slots, by the real command line.
pub fn init(stage: &mut Stage) -> Shown {
    step(
        2,
        "init: two key slots",
        "Every day the HSM and three of five operators open the vault together; should the HSM burn, four of seven break-glass shares do.",
    );
    let shares = stage.shares().display().to_string();
    let slots = ["--slot", "daily=hsm+quorum:3/5", "--slot", "break-glass=quorum:4/7"];
    let made = stage.json(
        &[&["operator", "init"], &slots[..], &["--shares-dir", &shares]].concat(),
        b"",
    )?;
    let files = fs::read_dir(&shares)?.count();
    check(files == 12, "12 shares, a private file for each holder")?;
    let token = made["setup_token"].as_str().ok_or("no set-up token")?;
    stage.operator = stage.operator.clone().with_token(token);
    stage.genesis = made["audit_genesis"].as_str().ok_or("no genesis")?.to_owned();
    check(
        made["setup_token_ttl_secs"] == 3600,
        "a set-up token that ends in an hour",
    )?;
    let refused = stage.run(&["kv", "list"], b"");
    check(
        refused.code == 5,
        "the new vault is sealed, and serves nothing (exit code 5)",
    )
}

/// One share an invocation, as three operators at three terminals would.
pub fn unseal(stage: &Stage) -> Shown {
    step(
        3,
        "unseal: three holders, one share each",
        "The first holder opens a session; its nonce is handed to the others. No share is ever an argument.",
    );
    unseal_with(stage, &[2, 5, 4])
}

/// Presents the shares with these numbers; the vault is open after the third, not before.
pub fn unseal_with(stage: &Stage, numbers: &[u32; 3]) -> Shown {
    let mut session = String::new();
    for (turn, number) in numbers.iter().enumerate() {
        let share = fs::read(stage.shares().join(format!("daily-{number}.share")))?;
        let mut args = vec!["operator", "unseal", "--slot", "daily"];
        if !session.is_empty() {
            args.extend(["--session", &session]);
        }
        let answer = stage.json(&args, &share)?;
        let done = answer["done"] == true;
        check(
            done == (turn == 2),
            format_args!(
                "holder {number}: {}",
                if done { "unsealed" } else { "accepted; not open yet" }
            ),
        )?;
        session = answer["session"].as_str().unwrap_or_default().to_owned();
    }
    let status = stage.json(&["operator", "status"], b"")?;
    check(status["state"] == "open", "the vault is open")
}

/// Static secrets, by the command line and by an application. Returns the application's client.
pub async fn secrets(stage: &Stage) -> Shown<Client> {
    step(
        4,
        "Secrets, a policy, an application",
        "The operator writes; the application reads over TLS with a token of its own, and only what its policy names.",
    );
    stage.json(&["mount", "enable", "kv", "--kind", "kv"], b"")?;
    let put = stage.json(&["kv", "put", "kv/shop/payment", "api-key=-"], b"first-key")?;
    check(put["version"] == 1, "kv/shop/payment has version 1")?;
    let put = stage.json(
        &["kv", "put", "kv/shop/payment", "api-key=-", "--cas", "1"],
        b"second-key",
    )?;
    check(
        put["version"] == 2,
        "a second version, written only because the first was current",
    )?;
    let stale = stage.run(
        &["kv", "put", "kv/shop/payment", "api-key=-", "--cas", "1"],
        b"too-late",
    );
    check(stale.code == 1, "a writer who had seen version 1 is refused")?;
    let old = stage.run(
        &["kv", "get", "kv/shop/payment", "--field", "api-key", "--version", "1"],
        b"",
    );
    check(old.out == "first-key", "version 1 is still readable")?;
    stage.json(&["policy", "put", "shop", "-"], APP_POLICY.as_bytes())?;
    let made = stage.json(&["token", "create", "--identity", "shop", "--group", "shop"], b"")?;
    let app = stage.client(made["token"].as_str().ok_or("no token")?).await?;
    let read = app.get("kv/shop/payment").await?;
    check(
        read.field("api-key")?.expose() == b"second-key",
        "the application reads the current version",
    )?;
    let fields: Fields = [("api-key".to_owned(), Secret::from("mine"))].into();
    let refused = app.put("kv/shop/payment", &fields, None).await;
    check(matches!(refused, Err(Error::Denied(_))), "and may not write it")?;
    Ok(app)
}
