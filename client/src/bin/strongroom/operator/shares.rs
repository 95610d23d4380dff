//! How shares reach their holders: shown once, or one private file each. Never lost: what cannot be
//! written is shown.

use crate::{
    failure::Failure,
    token::{private_directory, private_new_file},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use strongroom_client::v1;

/// Where shares go.
#[derive(Debug)]
pub struct Delivery(Option<PathBuf>);

/// The shares of one slot as they are told: for programs and for people.
#[derive(Debug)]
pub struct Sheet {
    pub json: Value,
    pub text: String,
}

impl Delivery {
    /// Proves that the directory can be written, before there are shares to lose.
    pub fn prepare(dir: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(dir) = &dir {
            let probe = dir.join(format!(".strongroom-{}", std::process::id()));
            private_directory(dir)
                .and_then(|()| private_new_file(&probe))
                .and_then(|_| fs::remove_file(&probe))
                .map_err(|e| {
                    Failure::usage(
                        format!("cannot write shares to {}: {e}", dir.display()),
                        "name a directory that you own; nothing was changed",
                    )
                })?;
        }
        Ok(Self(dir))
    }

    /// Writes or shows the shares of one slot.
    pub fn hand_out(&self, shares: v1::SlotShares) -> Sheet {
        let slot = shares.slot;
        if shares.shares.is_empty() {
            let text = format!("Slot `{slot}` has no shares: its HSM opens it.\n\n");
            return Sheet {
                json: json!({"slot": slot, "shares": []}),
                text,
            };
        }
        let Some(dir) = &self.0 else {
            return shown(&slot, &shares.shares, "");
        };
        let mut files = Vec::new();
        for (index, share) in shares.shares.iter().enumerate() {
            let path = dir.join(format!("{slot}-{}.share", index + 1));
            match write(&path, share) {
                Ok(()) => files.push(path),
                Err(error) => {
                    let why = format!(
                        "{} could not be written ({error}), so all are shown here.\n",
                        path.display()
                    );
                    return shown(&slot, &shares.shares, &why);
                }
            }
        }
        let mut text =
            format!("Shares of slot `{slot}`, one file for each holder. Hand them out, then destroy these copies:\n");
        text.extend(files.iter().map(|path| format!("  {}\n", path.display())));
        text.push('\n');
        Sheet {
            json: json!({"slot": slot, "files": files}),
            text,
        }
    }
}

fn shown(slot: &str, shares: &[String], why: &str) -> Sheet {
    let mut text =
        format!("{why}Shares of slot `{slot}`, shown once and kept nowhere. One for each holder, never together:\n");
    text.extend(shares.iter().map(|share| format!("  {share}\n")));
    text.push('\n');
    Sheet {
        json: json!({"slot": slot, "shares": shares}),
        text,
    }
}

fn write(path: &Path, share: &str) -> std::io::Result<()> {
    let mut file = private_new_file(path)?;
    file.write_all(share.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn two(slot: &str) -> v1::SlotShares {
        v1::SlotShares {
            slot: slot.into(),
            shares: vec!["share-one".into(), "share-two".into()],
        }
    }

    /// R-SEAL-3: each holder's share is a private file of its own.
    #[test]
    fn each_share_has_a_private_file() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("shares");
        let sheet = Delivery::prepare(Some(dir.clone())).unwrap().hand_out(two("daily"));
        for (file, share) in [("daily-1.share", "share-one\n"), ("daily-2.share", "share-two\n")] {
            assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), share);
            assert_eq!(
                fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(!sheet.text.contains("share-one") && !sheet.json.to_string().contains("share-one"));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no probe left");
    }

    /// Shares that cannot be written (a file is in the way) are shown, not lost.
    #[test]
    fn unwritable_shares_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("daily-2.share"), "of another vault").unwrap();
        let sheet = Delivery::prepare(Some(dir.path().into()))
            .unwrap()
            .hand_out(two("daily"));
        assert!(
            sheet.text.contains("share-one") && sheet.text.contains("share-two"),
            "{}",
            sheet.text
        );
        assert_eq!(
            fs::read_to_string(dir.path().join("daily-2.share")).unwrap(),
            "of another vault"
        );
        assert!(
            Delivery::prepare(Some(dir.path().join("daily-2.share"))).is_err(),
            "a file is no directory"
        );
    }
}
