//! The directory the segments live in, behind a trait, so that tests can fill the disk and pull the plug.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use strongroom_audit::{ReadAt, segment_seq};

/// A file of the log.
pub trait LogFile: ReadAt + Send {
    /// Writes all of `bytes` at `offset`.
    /// # Errors
    /// As the system says; part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync: what was written is durable when this is Ok.
    /// # Errors
    /// As the system says; what was written may be lost then, and asking again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

impl LogFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The directory of the log.
pub trait LogDir: Send {
    /// First sequences of the segments there, ascending.
    /// # Errors
    /// As the system says.
    fn segments(&self) -> io::Result<Vec<u64>>;
    /// Opens an existing file to read and write.
    /// # Errors
    /// As the system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Makes an empty file, replacing one of that name.
    /// # Errors
    /// As the system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Renames; durable after [`Self::sync`].
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes; one that is not there is removed.
    /// # Errors
    /// As the system says.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and renames durable.
    /// # Errors
    /// As the system says.
    fn sync(&self) -> io::Result<()>;
}

/// A real directory.
#[derive(Debug)]
pub struct OsDir {
    path: PathBuf,
    handle: File,
}

impl OsDir {
    /// Opens the directory, making it (mode 0700) when it is missing.
    /// # Errors
    /// As the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            path: path.into(),
            handle: File::open(path)?,
        })
    }
}

impl LogDir for OsDir {
    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            found.extend(entry?.file_name().to_str().and_then(segment_seq));
        }
        found.sort_unstable();
        Ok(found)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(
            OpenOptions::new().read(true).write(true).open(self.path.join(name))?,
        ))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(options.open(self.path.join(name))?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}
