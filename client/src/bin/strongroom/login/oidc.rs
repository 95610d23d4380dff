//! The two log-ins of people. The daemon asks the provider; here a person is sent there, and what comes back is handed on.

use super::{browser, log_in};
use crate::{context::Context, failure::Failure};
use serde_json::json;
use std::time::{Duration, Instant};
use strongroom_client::{Client, v1};
use v1::login_request::Proof;

/// The daemon asks a provider within this, up to three times.
const PATIENCE: Duration = Duration::from_secs(60);
/// A person takes no longer; the daemon's own bound is ten minutes.
const LIFE: Duration = Duration::from_secs(600);
/// RFC 8628, 3.5: what `slow_down` adds.
const SLOWER: Duration = Duration::from_secs(5);

async fn begin(client: &Client, trust: &str, port: u16) -> Result<v1::LoginBeginResponse, Failure> {
    let request = v1::LoginBeginRequest {
        trust: trust.to_owned(),
        port: port.into(),
    };
    let begun = client
        .once(request, |s, r| async move { s.login().begin(r).await })
        .await?;
    // It is shown, and given to a browser: nothing but a plain https URL.
    if !begun.url.starts_with("https://") || begun.url.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(Failure::other("the daemon names no https URL", "ask who runs it"));
    }
    Ok(begun)
}

/// With a browser on this machine.
pub async fn by_browser(
    context: &Context,
    client: &Client,
    trust: String,
    binding: v1::LoginBinding,
    port: Option<u16>,
    open: bool,
) -> Result<v1::LoginResponse, Failure> {
    let client = context.patient(client, PATIENCE);
    let waiting = browser::Waiting::at(port.unwrap_or(0)).await?;
    let begun = begin(&client, &trust, waiting.port()?).await?;
    let (waiting, path) = waiting.at_redirect(&begun.redirect_uri).await?;
    let shown = json!({"open": begun.url});
    context.out.asked(
        &shown,
        &format!("Open this URL in a browser on this machine:\n{}", begun.url),
    );
    if open && !browser::open(&begun.url) {
        context
            .out
            .notice("No browser could be started here; open the URL yourself, or use --device.");
    }
    let port = waiting.port()?;
    let brought = tokio::time::timeout(LIFE, waiting.brought(&path, &begun.state))
        .await
        .map_err(|_| Failure::other("nobody logged in within ten minutes", "begin again"))??;
    let code = match brought.outcome {
        Ok(code) => code,
        Err(word) => {
            brought.tab.answer(false).await;
            let message = format!("the provider refused the log-in: {word}");
            return Err(Failure::other(
                message,
                "log in again, or ask whoever runs the provider",
            ));
        }
    };
    let proof = v1::LoginOidc {
        handle: begun.handle,
        code,
        iss: brought.iss,
        port: port.into(),
    };
    let request = v1::LoginRequest {
        trust,
        proof: Some(Proof::Oidc(proof)),
        binding: binding.into(),
    };
    let done = log_in(&client, request).await;
    brought.tab.answer(done.is_ok()).await;
    Ok(done?)
}

/// With a code that is typed anywhere (RFC 8628).
pub async fn by_device(
    context: &Context,
    client: &Client,
    trust: String,
    binding: v1::LoginBinding,
) -> Result<v1::LoginResponse, Failure> {
    let client = context.patient(client, PATIENCE);
    let begun = begin(&client, &trust, 0).await?;
    let shown = json!({"open": begun.url, "user_code": begun.user_code, "complete": begun.url_complete});
    let words = format!(
        "Open this URL on any device:\n{}\nand type this code: {}\nType only a code that you asked for yourself.",
        begun.url, begun.user_code
    );
    context.out.asked(&shown, &words);
    let (began, mut pause) = (Instant::now(), Duration::from_secs(begun.interval_secs.max(1)));
    let proof = v1::LoginOidc {
        handle: begun.handle,
        code: begun.device_code,
        iss: None,
        port: 0,
    };
    let request = v1::LoginRequest {
        trust,
        proof: Some(Proof::Oidc(proof)),
        binding: binding.into(),
    };
    while began.elapsed() < LIFE {
        tokio::time::sleep(pause).await;
        match log_in(&client, request.clone()).await {
            Ok(done) => return Ok(done),
            Err(error) => match error.reason() {
                Some("LOGIN_PENDING") => {}
                Some("LOGIN_SLOW_DOWN") => pause += SLOWER,
                // The daemon or its provider was not to be had, or too many asked: the code is still good.
                _ if error.is_retryable() || !error.retry_after().is_zero() => {
                    tokio::time::sleep(error.retry_after()).await;
                }
                _ => return Err(error.into()),
            },
        }
    }
    Err(Failure::other(
        "nobody typed the code within ten minutes",
        "begin again",
    ))
}
