//! What the machine can do, measured in the same run: a bare tonic service over TLS that answers with the same bytes and does nothing else
//! (but the cryptography that the answer is made of), and `fdatasync` of a preallocated file. Reading order: this file, `bare`.

mod bare;

pub use bare::serve;

use crate::{
    Fault,
    contest::{Contender, Role},
    host,
    load::{Answered, Caller, Callers},
    strongroom::Door,
};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
};
use strongroom_tests::Lab;

/// What every value of the bench holds.
pub const VALUE_BYTES: usize = 1024;

/// A bare service in a process of its own, killed when dropped.
pub struct Echo {
    child: Child,
    port: u16,
}

impl Echo {
    /// Starts it on the server's core, with the certificate of `lab`.
    /// # Errors
    /// It does not come up.
    pub fn start(lab: &Lab) -> Result<Self, Fault> {
        let mut child = host::starting_on(&[host::SERVER_CORE], || {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg("--echo")
                .arg(lab.dir().join("server.pem"))
                .arg(lab.dir().join("server.key"));
            Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
        })?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output of the bare service")?).read_line(&mut line)?;
        Ok(Self {
            child,
            port: line.trim().parse()?,
        })
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The way to it: it speaks our wire, and believes any token. This one is as long as ours.
    pub fn door(&self, lab: &Lab) -> Door {
        Door::new(self.port, lab, &"t".repeat(56))
    }

    /// As a contender.
    pub fn contender(&self, callers: Callers) -> Contender {
        Contender {
            name: "limit: bare tonic".into(),
            role: Role::Limit,
            durability: "none",
            pid: Some(self.pid()),
            callers,
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of the preallocated file, and of one write.
const FILE_BYTES: u64 = 8 << 20;
const WRITE_BYTES: usize = 4096;

/// One writer that writes 4 KiB into a preallocated file and waits for `fdatasync`, again and again.
/// # Errors
/// The file cannot be made in `dir`.
pub fn fdatasync(dir: &Path) -> Result<Contender, Fault> {
    let file = tempfile::tempfile_in(dir)?;
    let zeros = vec![0; 1 << 20];
    for at in 0..FILE_BYTES >> 20 {
        file.write_all_at(&zeros, at << 20)?;
    }
    file.sync_all()?;
    let callers: Callers = vec![Box::new(Syncer { file, at: 0 })];
    Ok(Contender {
        name: "limit: fdatasync, 1 writer".into(),
        role: Role::Limit,
        durability: "synced",
        pid: None,
        callers,
    })
}

struct Syncer {
    file: File,
    at: u64,
}

impl Caller for Syncer {
    fn call(&mut self) -> Answered<'_> {
        // Blocks the load's thread: nothing else runs in this window.
        Box::pin(async {
            self.file.write_all_at(&[7; WRITE_BYTES], self.at)?;
            self.at = (self.at + WRITE_BYTES as u64) % FILE_BYTES;
            self.file.sync_data()?;
            Ok(())
        })
    }
}
