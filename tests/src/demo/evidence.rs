//! What survives a crash, and what the audit log tells.

use super::{Shown, check, say, stage::Stage, step, vault};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Far more than the log's files may lag behind the store.
const LAG: Duration = Duration::from_millis(500);

/// kill -9, start, unseal, read back.
pub async fn crash(stage: &mut Stage) -> Shown {
    step(
        9,
        "kill -9",
        "A write that was acknowledged survives; a lease that was alive is still known, and still revoked.",
    );
    stage.json(&["kv", "put", "kv/shop/last-words", "value=-"], b"written just before")?;
    let lease = stage.json(&["creds", "issue", "pg/readers"], b"")?;
    stage.crash();
    let status = stage.cli_json_whatever(&["operator", "status"])?;
    check(
        status["state"] == "sealed",
        "killed and started again: sealed, as it must be",
    )?;
    vault::unseal_with(stage, &[1, 2, 3])?;
    let read = stage.run(&["kv", "get", "kv/shop/last-words", "--field", "value"], b"");
    check(
        read.out == "written just before",
        "the last write before the kill is there",
    )?;
    let read = stage.run(&["kv", "get", "kv/shop/payment", "--field", "api-key"], b"");
    check(read.out == "second-key", "so is what was written at the beginning")?;
    let id = lease["lease_id"].as_str().ok_or("no lease")?;
    let revoked = stage.json(&["lease", "revoke", id], b"")?;
    check(
        revoked["gone"] == 1,
        "a lease from before the kill is known, and proven gone on request",
    )?;
    let left = stage
        .server
        .admin("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_%'")?;
    check(left == "0", "the server has no account that Strongroom made")
}

/// The audit log, whole; then one byte of a copy.
pub fn verify(stage: &Stage) -> Shown {
    step(
        10,
        "The audit log",
        "Every call above stands in it, chained by hashes. The verifier needs the files alone, and a head that was noted elsewhere.",
    );
    let head = stage.json(&["audit", "head"], b"")?;
    let head = head["head"].as_str().ok_or("no head")?.to_owned();
    // The log's files follow the store within milliseconds; the copy is of what stands in them.
    std::thread::sleep(LAG);
    let log = stage.lab.dir().join("audit-copy");
    copy_dir(&stage.lab.audit_dir(), &log)?;
    let dir = log.display().to_string();
    let known = ["--genesis", &stage.genesis, "--head", &head];
    let clean = stage.json(&[&["audit", "verify", &dir], &known[..]].concat(), b"")?;
    check(
        clean["verdict"] == "clean",
        format_args!(
            "{} records, clean, from the genesis that `init` printed to the head just read",
            clean["records"]
        ),
    )?;
    let at = flip(&segments(&log)?)?;
    say(format_args!("    one bit of one byte of the copy is flipped: {at}"));
    let found = stage.run(&["--output", "json", "audit", "verify", &dir], b"");
    let damage: serde_json::Value = serde_json::from_str(&found.out)?;
    check(
        found.code != 0 && damage["verdict"] == "damaged",
        "the verifier finds it:",
    )?;
    let finding = &damage["findings"][0];
    say(format_args!(
        "        byte {}, record {}: {}",
        finding["offset"],
        finding["seq"],
        finding["what"].as_str().unwrap_or_default()
    ));
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Shown {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The log's files, oldest first.
fn segments(log: &Path) -> Shown<Vec<PathBuf>> {
    let mut files = fs::read_dir(log)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Shown<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Flips one bit in the middle of what the first file holds.
fn flip(segments: &[PathBuf]) -> Shown<String> {
    let file = segments.first().ok_or("the log has no files")?;
    let bytes = fs::read(file)?;
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .ok_or("the segment is empty")?;
    let at = used / 2;
    let changed = [bytes.get(at).ok_or("beyond the end")? ^ 1];
    fs::File::options()
        .write(true)
        .open(file)?
        .write_all_at(&changed, at as u64)?;
    Ok(format!(
        "byte {at} of {}",
        file.file_name().unwrap_or_default().display()
    ))
}
