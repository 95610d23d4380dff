//! The same without an async runtime: fetch at the start, read from memory, wait for one change, give back.
//!
//! ```text
//! STRONGROOM_ADDR=unix:/run/strongroom/strongroom.sock STRONGROOM_TOKEN_FILE=token \
//!     cargo run -p strongroom-client --example blocking -- kv/prod/mail
//! ```
#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};
use strongroom_client::{Client, blocking};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: blocking PATH")?;
    let mut builder = Client::builder().address(env::var("STRONGROOM_ADDR")?);
    if let Some(ca) = env::var_os("STRONGROOM_CACERT") {
        builder = builder.ca_file(ca);
    }
    if let Some(file) = env::var_os("STRONGROOM_TOKEN_FILE") {
        builder = builder.token_file(file);
    }
    let secrets = blocking::secrets(builder, [path.as_str()])?;
    println!("{path}: {:?}, {:?}", secrets.get(&path)?.kind, secrets.health());
    if secrets.wait_for_change(Duration::from_secs(60)) {
        println!("{path}: {:?}", secrets.get(&path)?.kind);
    }
    println!("leases not proven gone: {}", secrets.close());
    Ok(())
}
