//! The parts around the virtual disk: its process, loop devices, ext4.

use super::{
    Variant,
    device::{DISK_BYTES, FILE},
};
use crate::campaign::{Tried, doing};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Runs a system tool; what it printed.
pub fn tool(name: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Tried<String> {
    let output = Command::new(name)
        .args(args.iter().map(|arg| arg.as_ref()))
        .output()
        .map_err(doing(name))?;
    if !output.status.success() {
        return Err(format!(
            "{name}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )
        .into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What keeps this machine from cutting power, if anything.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root (loop devices, mounts)".into());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = File::options().read(true).write(true).open(device) {
            return Some(format!("{device}: {error}"));
        }
    }
    ["losetup", "mkfs.ext4", "mount", "umount"]
        .into_iter()
        .find_map(|name| {
            let found = Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            found.is_err().then(|| format!("{name} is not installed"))
        })
}

/// An empty ext4 to begin with.
pub fn make_template(path: &Path) -> Tried<()> {
    File::create(path)?.set_len(DISK_BYTES)?;
    tool(
        "mkfs.ext4",
        &[&"-q", &"-F", &"-E", &"lazy_itable_init=1,nodiscard", &path],
    )
    .map(drop)
}

/// A mounted ext4; unmounted when dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts an image, replaying its journal.
    pub fn image(image: &Path, at: &Path) -> Tried<Self> {
        fs::create_dir_all(at)?;
        tool("mount", &[&"-t", &"ext4", &"-o", &"loop,noatime", &image, &at])?;
        Ok(Self(at.into()))
    }
    fn device(device: &str, at: &Path) -> Tried<Self> {
        fs::create_dir_all(at)?;
        tool("mount", &[&"-t", &"ext4", &"-o", &"noatime", &device, &at])?;
        Ok(Self(at.into()))
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever was killed inside may take a moment to be gone.
        for _ in 0..50 {
            if tool("umount", &[&self.0]).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let _ = tool("umount", &[&"-l", &self.0]);
    }
}

struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = tool("losetup", &[&"--detach", &self.0]);
    }
}

/// The virtual disk with a mounted ext4 on it. Fields are dropped in this order: file system, loop device, disk.
pub struct VirtualDisk {
    pub mounted: Mounted,
    _device: Loop,
    process: Process,
}

struct Process {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Where the cut fell, as the disk saw it.
#[derive(Clone, Copy, Debug)]
pub struct Frozen {
    pub unflushed: u64,
    pub flushes: u64,
}

impl VirtualDisk {
    pub fn start(dir: &Path, template: &Path, ignore_flush: bool) -> Tried<Self> {
        let (fuse, mount) = (dir.join("fuse"), dir.join("mount"));
        fs::create_dir_all(&fuse)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("disk")
            .arg(&fuse)
            .arg(template)
            .args(ignore_flush.then_some("--ignore-flush"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("the disk has no output")?);
        let mut process = Process { child, ask, answers };
        if process.answer()? != "mounted" {
            return Err("the virtual disk does not mount".into());
        }
        let device = Loop(tool("losetup", &[&"--find", &"--show", &fuse.join(FILE)])?);
        let mounted = Mounted::device(&device.0, &mount)?;
        Ok(Self {
            mounted,
            _device: device,
            process,
        })
    }

    /// The power goes, as soon as so many writes are unflushed. What acknowledgement was read before this call must have survived.
    pub fn freeze(&mut self, unflushed: u64) -> Tried<Frozen> {
        self.process.ask(&format!("freeze {unflushed}"))?;
        let answer = self.process.answer()?;
        let (unflushed, flushes) = answer.split_once(' ').ok_or("the disk does not freeze")?;
        Ok(Frozen {
            unflushed: unflushed.parse()?,
            flushes: flushes.parse()?,
        })
    }

    /// What the last freeze left on the medium.
    pub fn image(&mut self, variant: Variant, seed: u64, path: &Path) -> Tried<()> {
        self.process
            .ask(&format!("image {} {seed} {}", variant.name(), path.display()))?;
        match self.process.answer()?.as_str() {
            "stored" => Ok(()),
            other => Err(format!("the disk made no image: {other}").into()),
        }
    }
}

impl Process {
    fn ask(&mut self, line: &str) -> Tried<()> {
        let ask = self.ask.as_mut().ok_or("the disk is gone")?;
        writeln!(ask, "{line}")?;
        Ok(ask.flush()?)
    }
    fn answer(&mut self) -> Tried<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}
