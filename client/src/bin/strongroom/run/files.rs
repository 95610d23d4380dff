//! Secrets as files: in a directory of their own that only this user can enter, in memory where the system has such a place, removed at the
//! end.

use crate::failure::Failure;
use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use strongroom_client::Secret;

/// Where a system keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// The files of one run; removed when dropped.
#[derive(Debug, Default)]
pub struct Files(Option<PathBuf>);

impl Files {
    /// Writes one; returns its place.
    pub fn add(&mut self, name: &str, value: &Secret) -> Result<PathBuf, Failure> {
        self.write(name, value).map_err(|error| {
            Failure::other(
                format!("cannot write the file for {name}: {error}"),
                "check the temporary directory",
            )
        })
    }

    fn write(&mut self, name: &str, value: &Secret) -> io::Result<PathBuf> {
        let dir = match &self.0 {
            Some(dir) => dir.clone(),
            None => self.0.insert(directory()?).clone(),
        };
        let place = dir.join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&place)?;
        file.write_all(value.expose())?;
        Ok(place)
    }
}

fn directory() -> io::Result<PathBuf> {
    let base = env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .into_iter()
        .chain([IN_MEMORY.into()])
        .find(|dir| is_usable(dir))
        .unwrap_or_else(env::temp_dir);
    let mut dice = [0_u8; 12];
    getrandom::fill(&mut dice).map_err(io::Error::other)?;
    let dir = base.join(format!("strongroom-{}", data_encoding::HEXLOWER.encode(&dice)));
    fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

fn is_usable(dir: &Path) -> bool {
    dir.is_dir() && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(dir) = &self.0
            && let Err(error) = fs::remove_dir_all(dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "files with secrets could not be removed");
        }
    }
}
