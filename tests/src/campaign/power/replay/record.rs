//! From system calls to events on a tree of files below one directory. What could change that tree and is not understood here is an error: a
//! recorder that overlooks a write would find stores better or worse than they are.

use super::{
    model::{Event, Inode, Name, Tree},
    trace::{Call, Moment, Parser, bytes, number},
};
use crate::campaign::Tried;
use std::{
    collections::HashMap,
    io::BufRead,
    path::{Component, Path, PathBuf},
};

/// What strace is asked for. `sync_file_range` is missing on purpose: it promises nothing.
pub const CALLS: &str = "open,openat,openat2,creat,close,read,readv,write,pwrite64,lseek,fcntl,dup,dup2,dup3,ftruncate,truncate,\
    fsync,fdatasync,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
    writev,pwritev,pwritev2,copy_file_range,sendfile,splice,fallocate,link,linkat,symlink,symlinkat,sync,syncfs,mmap,io_uring_setup";

/// An open file: what `dup` shares.
#[derive(Clone, Copy, Debug)]
struct Open {
    inode: Inode,
    at: u64,
    appends: bool,
}

/// What happened on the tree, and what the process said meanwhile.
pub struct Recording {
    pub base: Tree,
    pub events: Vec<Event>,
    /// Lines of standard output, each with the number of events that had ended when it was begun to be said.
    pub said: Vec<(usize, String)>,
}

impl Recording {
    pub fn syncs(&self) -> u64 {
        let is_sync = |event: &&Event| matches!(event, Event::Sync { .. });
        self.events.iter().filter(is_sync).count() as u64
    }
}

/// Reads a trace.
pub struct Recorder {
    root: PathBuf,
    live: Tree,
    recording: Recording,
    files: Vec<Open>,
    /// Descriptors: which open file, and the line since which.
    fds: HashMap<i64, (usize, u64)>,
    partial: Vec<u8>,
}

impl Recorder {
    /// Of a process that begins with what is in `root`.
    pub fn new(root: &Path, base: Tree) -> Self {
        let recording = Recording {
            base: base.clone(),
            events: Vec::new(),
            said: Vec::new(),
        };
        Self {
            root: root.to_owned(),
            live: base,
            recording,
            files: Vec::new(),
            fds: HashMap::new(),
            partial: Vec::new(),
        }
    }

    /// All of it. A last line that is not whole was cut off by the kill.
    pub fn read(mut self, mut trace: impl BufRead) -> Tried<Recording> {
        let (mut parser, mut line, mut nth) = (Parser::default(), String::new(), 0);
        loop {
            line.clear();
            if trace.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                return Ok(self.recording);
            }
            nth += 1;
            let now = Moment {
                line: nth,
                event: self.recording.events.len(),
            };
            if let Some(call) = parser.line(&line, now)?
                && call.result >= 0
            {
                self.ended(&call, nth)?;
            }
        }
    }

    fn happened(&mut self, event: Event) {
        self.live.apply(&event);
        self.recording.events.push(event);
    }

    fn ended(&mut self, call: &Call, line: u64) -> Tried<()> {
        let arg = |nth: usize| call.args.get(nth).map(String::as_str).unwrap_or_default();
        match call.name.as_str() {
            "open" | "creat" => self.opened("AT_FDCWD", arg(0), arg(1), call, line)?,
            "openat" => self.opened(arg(0), arg(1), arg(2), call, line)?,
            "close" => {
                let fd = number(arg(0))?;
                // Between its two ends another thread may have got the number anew.
                if self.fds.get(&fd).is_some_and(|(_, since)| *since < call.began.line) {
                    self.fds.remove(&fd);
                }
            }
            "fcntl" if arg(1).starts_with("F_DUPFD") => self.shared(arg(0), call.result, line)?,
            "dup" | "dup2" | "dup3" => self.shared(arg(0), call.result, line)?,
            "read" | "readv" => {
                if let Some(file) = self.file(arg(0))? {
                    file.at += u64::try_from(call.result)?;
                }
            }
            "lseek" => {
                if let Some(file) = self.file(arg(0))? {
                    file.at = u64::try_from(call.result)?;
                }
            }
            "write" | "pwrite64" => self.wrote(call)?,
            "ftruncate" => {
                if let Some(file) = self.file(arg(0))? {
                    let inode = file.inode;
                    let length = number(arg(1))?.try_into()?;
                    self.happened(Event::Resize { inode, length });
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = self.file(arg(0))? {
                    let inode = file.inode;
                    let began = call.began.event;
                    self.happened(Event::Sync { inode, began });
                }
            }
            "mkdir" => self.made_dir("AT_FDCWD", arg(0))?,
            "mkdirat" => self.made_dir(arg(0), arg(1))?,
            "rename" => self.moved(("AT_FDCWD", arg(0)), ("AT_FDCWD", arg(1)), "0")?,
            "renameat" => self.moved((arg(0), arg(1)), (arg(2), arg(3)), "0")?,
            "renameat2" => self.moved((arg(0), arg(1)), (arg(2), arg(3)), arg(4))?,
            "unlink" | "rmdir" => self.removed("AT_FDCWD", arg(0))?,
            "unlinkat" => self.removed(arg(0), arg(1))?,
            _ => self.stays_outside(call)?,
        }
        Ok(())
    }

    /// Calls that this file does not model must not touch the tree.
    fn stays_outside(&mut self, call: &Call) -> Tried<()> {
        if matches!(call.name.as_str(), "fcntl") {
            return Ok(());
        }
        if call.name == "mmap" {
            let arg = |nth: usize| call.args.get(nth).map(String::as_str).unwrap_or_default();
            if !(arg(3).contains("MAP_SHARED") && arg(2).contains("PROT_WRITE")) {
                return Ok(());
            }
        }
        let mut touches = matches!(call.name.as_str(), "sync" | "io_uring_setup");
        for arg in &call.args {
            touches |= match number(arg) {
                Ok(fd) => self.fds.contains_key(&fd),
                Err(_) => {
                    bytes(arg).is_ok_and(|path| Path::new(&*String::from_utf8_lossy(&path)).starts_with(&self.root))
                }
            };
        }
        match touches {
            true => Err(format!(
                "the replay does not know `{}`, which the store has begun to use",
                call.name
            )
            .into()),
            false => Ok(()),
        }
    }

    fn file(&mut self, fd: &str) -> Tried<Option<&mut Open>> {
        let Some((file, _)) = self.fds.get(&number(fd)?).copied() else {
            return Ok(None);
        };
        Ok(self.files.get_mut(file))
    }

    fn shared(&mut self, fd: &str, new: i64, line: u64) -> Tried<()> {
        match self.fds.get(&number(fd)?).copied() {
            Some((file, _)) => self.fds.insert(new, (file, line)),
            None => self.fds.remove(&new),
        };
        Ok(())
    }

    /// Where a path lies in the tree; `None` outside.
    fn place(&self, dir: &str, path: &str) -> Tried<Option<Name>> {
        let path = PathBuf::from(String::from_utf8(bytes(path)?)?);
        let (mut at, inner) = if path.is_absolute() {
            match path.strip_prefix(&self.root) {
                Ok(inner) => (Tree::ROOT, inner.to_owned()),
                Err(_) => return Ok(None),
            }
        } else if dir.starts_with("AT_FDCWD") {
            return Ok(None);
        } else {
            match self.fds.get(&number(dir)?).and_then(|(file, _)| self.files.get(*file)) {
                Some(file) => (file.inode, path),
                None => return Ok(None),
            }
        };
        let mut names = Vec::new();
        for part in inner.components() {
            match part {
                Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
                Component::CurDir => {}
                _ => return Err(format!("a path that the replay does not follow: {}", inner.display()).into()),
            }
        }
        let Some(last) = names.pop() else {
            return Ok(Some(Name {
                dir: at,
                name: String::new(),
            }));
        };
        for name in names {
            at = self
                .live
                .find(at, &name)
                .ok_or_else(|| format!("{}: no such directory in the replay", inner.display()))?;
        }
        Ok(Some(Name { dir: at, name: last }))
    }

    fn opened(&mut self, dir: &str, path: &str, flags: &str, call: &Call, line: u64) -> Tried<()> {
        let Some(place) = self.place(dir, path)? else {
            self.fds.remove(&call.result);
            return Ok(());
        };
        let has = |flag| flags.split('|').any(|known| known == flag);
        if has("O_TMPFILE") {
            return Err("the replay knows no files without names".into());
        }
        let inode = match self.live.at(&place) {
            Some(inode) => inode,
            None if has("O_CREAT") || call.name == "creat" => {
                let inode = self.live.fresh();
                self.happened(Event::Make {
                    place,
                    inode,
                    is_dir: false,
                });
                inode
            }
            None => return Err(format!("{}: opened, but not in the replay", place.name).into()),
        };
        if has("O_TRUNC") || call.name == "creat" {
            self.happened(Event::Resize { inode, length: 0 });
        }
        self.files.push(Open {
            inode,
            at: 0,
            appends: has("O_APPEND"),
        });
        self.fds.insert(call.result, (self.files.len() - 1, line));
        Ok(())
    }

    fn wrote(&mut self, call: &Call) -> Tried<()> {
        let arg = |nth: usize| call.args.get(nth).map(String::as_str).unwrap_or_default();
        let length = usize::try_from(call.result)?;
        if arg(0) == "1" {
            let data = bytes(arg(1))?;
            self.partial.extend_from_slice(data.get(..length).unwrap_or(&data));
            while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let rest = self.partial.split_off(end + 1);
                let line = std::mem::replace(&mut self.partial, rest);
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                self.recording.said.push((call.began.event, line));
            }
            return Ok(());
        }
        let Some(file) = self.file(arg(0))?.copied() else {
            return Ok(());
        };
        let mut data = bytes(arg(1))?;
        data.truncate(length);
        let offset = match call.name.as_str() {
            "pwrite64" => number(arg(3))?.try_into()?,
            _ if file.appends => self.live.size(file.inode),
            _ => file.at,
        };
        if call.name == "write"
            && let Some(file) = self.file(arg(0))?
        {
            file.at = offset + length as u64;
        }
        self.happened(Event::Write {
            inode: file.inode,
            offset,
            data,
        });
        Ok(())
    }

    fn made_dir(&mut self, dir: &str, path: &str) -> Tried<()> {
        if let Some(place) = self.place(dir, path)? {
            let inode = self.live.fresh();
            self.happened(Event::Make {
                place,
                inode,
                is_dir: true,
            });
        }
        Ok(())
    }

    fn moved(&mut self, from: (&str, &str), to: (&str, &str), flags: &str) -> Tried<()> {
        match (self.place(from.0, from.1)?, self.place(to.0, to.1)?) {
            (None, None) => Ok(()),
            (Some(from), Some(to)) if matches!(flags, "0" | "RENAME_NOREPLACE") => {
                let inode = self.live.at(&from).ok_or("renamed, but not in the replay")?;
                self.happened(Event::Move { inode, from, to });
                Ok(())
            }
            _ => Err("the replay does not know this way to rename".into()),
        }
    }

    fn removed(&mut self, dir: &str, path: &str) -> Tried<()> {
        if let Some(place) = self.place(dir, path)? {
            self.happened(Event::Remove { place });
        }
        Ok(())
    }
}
