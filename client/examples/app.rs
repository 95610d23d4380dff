//! A small application: reads a secret, then holds a database account that renews itself.
//!
//! ```text
//! STRONGROOM_ADDR=https://localhost:8470 STRONGROOM_CACERT=ca.pem STRONGROOM_TOKEN_FILE=token \
//!     cargo run -p strongroom-client --example app -- kv/prod/db pg/readers
//! ```
#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};
use strongroom_client::{Client, LeaseState};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(path), Some(role)) = (arguments.next(), arguments.next()) else {
        return Err("usage: app KV-PATH ROLE".into());
    };
    let mut builder = Client::builder().address(env::var("STRONGROOM_ADDR")?);
    if let Some(ca) = env::var_os("STRONGROOM_CACERT") {
        builder = builder.ca_file(ca);
    }
    if let Some(file) = env::var_os("STRONGROOM_TOKEN_FILE") {
        builder = builder.token_file(file);
    }
    let client = builder.connect().await?;

    let secret = client.get(&path).await?;
    println!("{path}: version {}, fields {:?}", secret.version, secret.fields.keys());

    let account = client.issue_kept(&role, Some(Duration::from_secs(60))).await?;
    println!("account {}", account.credential().field("username")?.expose_str()?);

    // The credential stays alive while `account` does. Watch it, and replace it before it ends.
    let mut state = account.state();
    loop {
        let now = state.borrow_and_update().clone();
        println!("{now:?}");
        if matches!(now, LeaseState::Final { .. } | LeaseState::Ended) {
            break;
        }
        tokio::select! {
            changed = state.changed() => changed?,
            interrupted = tokio::signal::ctrl_c() => { interrupted?; break }
        }
    }
    let proven = account.close().await?;
    println!("revoked, proven gone: {proven}");
    Ok(())
}
