//! Generates the wire types with a pure-Rust compiler (no protoc needed).
//! Messages that carry secrets skip the derived `Debug`: `src/redacted.rs` writes it.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 12] = [
    "strongroom/v1/operator.proto",
    "strongroom/v1/kv.proto",
    "strongroom/v1/mount.proto",
    "strongroom/v1/creds.proto",
    "strongroom/v1/delivery.proto",
    "strongroom/v1/lease.proto",
    "strongroom/v1/token.proto",
    "strongroom/v1/policy.proto",
    "strongroom/v1/audit.proto",
    "strongroom/v1/auth.proto",
    "strongroom/v1/identity.proto",
    "strongroom/v1/transit.proto",
];

/// Every message with a field that is, or may be, a secret.
const SECRET: [&str; 34] = [
    "SlotShares",
    "InitResponse",
    "PresentRequest",
    "PresentResponse",
    "KvGetResponse",
    "KvPutRequest",
    "MountConfigureRequest",
    "CredsIssueResponse",
    "Delivered",
    "FetchResponse",
    "WatchResponse",
    "TokenCreateResponse",
    "AuditHashRequest",
    "AbandonRequest",
    "PolicyPutRequest",
    "LoginRequest",
    "LoginRequest.proof",
    "LoginRole",
    "LoginOidc",
    "LoginBeginResponse",
    "TrustPutRequest",
    "LoginResponse",
    "LoginExplainRequest",
    "TrustMakeSecretResponse",
    "TransitPlain",
    "TransitEncryptRequest",
    "TransitPlaintext",
    "TransitPlaintext.result",
    "TransitDecryptResponse",
    "TransitSignRequest",
    "TransitHmacRequest",
    "TransitToVerify",
    "TransitVerifyRequest",
    "TransitDataKeyResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    config.btree_map(["."]);
    config.skip_debug(SECRET.map(|m| format!(".strongroom.v1.{m}")));
    fs::write(out.join("descriptor.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds_with_config(files, config)?;
    println!("cargo:rerun-if-changed=strongroom");
    Ok(())
}
