//! A service that holds its secrets fresh: one call at the start, then a line for every change, until it is interrupted.
//!
//! ```text
//! STRONGROOM_ADDR=https://localhost:8470 STRONGROOM_CACERT=ca.pem STRONGROOM_TOKEN_FILE=token \
//!     cargo run -p strongroom-client --example secrets -- kv/prod/mail pg/readers
//! ```
#![allow(clippy::print_stdout)]

use std::{env, error::Error};
use strongroom_client::{Client, Secrets};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let mut builder = Client::builder().address(env::var("STRONGROOM_ADDR")?);
    if let Some(ca) = env::var_os("STRONGROOM_CACERT") {
        builder = builder.ca_file(ca);
    }
    if let Some(file) = env::var_os("STRONGROOM_TOKEN_FILE") {
        builder = builder.token_file(file);
    }
    let secrets = builder.secrets(paths).await?;
    show(&secrets);
    let mut changes = secrets.changes();
    loop {
        tokio::select! {
            changed = changes.changed() => changed?,
            interrupted = tokio::signal::ctrl_c() => { interrupted?; break }
        }
        show(&secrets);
    }
    println!("leases not proven gone: {}", secrets.close().await);
    Ok(())
}

/// Names, never values.
fn show(secrets: &Secrets) {
    for path in secrets.paths() {
        if let Ok(held) = secrets.get(&path) {
            println!("{path}: {:?}, fields {:?}", held.kind, held.fields.keys());
        }
    }
}
