//! The virtual disk: one file in a FUSE mount, to be attached as a loop device. It knows which writes a FLUSH has made durable and which have
//! only been written, and can say at any instant what a power cut would leave. Runs in a process of its own (`campaign disk`), because a
//! process that waits for its own disk never wakes up.

use crate::campaign::{Dice, Tried, doing, power::Variant};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

/// The file's name in the mount.
pub const FILE: &str = "disk";
/// Bytes of the disk. It is sparse: only what was written takes memory.
pub const DISK_BYTES: u64 = 1 << 30;
const BLOCK: usize = 4096;
/// A freeze waits so long for unflushed writes, then it is made without.
const FREEZE_PATIENCE: Duration = Duration::from_millis(300);
const TTL: Duration = Duration::from_secs(3600);
const FILE_INODE: INodeNo = INodeNo(2);

type Blocks = HashMap<u64, Arc<[u8; BLOCK]>>;

fn put(blocks: &mut Blocks, offset: u64, mut data: &[u8]) {
    let mut at = offset;
    while !data.is_empty() {
        let (block, within) = (
            at / BLOCK as u64,
            usize::try_from(at % BLOCK as u64).unwrap_or_default(),
        );
        let (now, rest) = data.split_at(data.len().min(BLOCK - within));
        let into = blocks.entry(block).or_insert_with(|| Arc::new([0; BLOCK]));
        if let Some(into) = Arc::make_mut(into).get_mut(within..within + now.len()) {
            into.copy_from_slice(now);
        }
        (at, data) = (at + now.len() as u64, rest);
    }
}

/// What is on the medium, and what is only in its cache.
#[derive(Clone, Default)]
struct Content {
    durable: Blocks,
    pending: Vec<(u64, Arc<Vec<u8>>)>,
}

impl Content {
    /// What a cut now would leave.
    fn cut(&self, variant: Variant, dice: &mut Dice) -> Blocks {
        let mut blocks = self.durable.clone();
        let Some(piece) = variant.piece() else {
            if variant == Variant::All {
                self.pending
                    .iter()
                    .for_each(|(offset, data)| put(&mut blocks, *offset, data));
            }
            return blocks;
        };
        // Some cuts lose nearly all of the cache, some nearly nothing.
        let kept = [10, 50, 90]
            .get(usize::try_from(dice.below(3)).unwrap_or_default())
            .copied()
            .unwrap_or(50);
        for (offset, data) in &self.pending {
            for (index, part) in data.chunks(piece).enumerate() {
                if dice.chance(kept) {
                    put(&mut blocks, offset + (index * piece) as u64, part);
                }
            }
        }
        blocks
    }
}

#[derive(Default)]
struct Inner {
    content: Content,
    /// The file as its readers see it.
    current: Blocks,
    flushes: u64,
    /// Cut as soon as so many writes are unflushed.
    armed: Option<usize>,
    frozen: Option<Content>,
}

struct Disk {
    inner: Arc<Mutex<Inner>>,
    cut: Arc<Condvar>,
    /// The sabotage: a disk that says "flushed" and flushes nothing.
    ignore_flush: bool,
}

fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attributes(inode: INodeNo) -> FileAttr {
    let is_root = inode == INodeNo::ROOT;
    let (kind, perm, size) = if is_root {
        (FileType::Directory, 0o700, 0)
    } else {
        (FileType::RegularFile, 0o600, DISK_BYTES)
    };
    let at = UNIX_EPOCH;
    FileAttr {
        ino: inode,
        size,
        blocks: size / 512,
        atime: at,
        mtime: at,
        ctime: at,
        crtime: at,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE {
            reply.entry(&TTL, &attributes(FILE_INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }
    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(inode));
    }
    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, reply: ReplyDirectory) {
        reply.ok();
    }
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }
    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = (offset + u64::from(size)).min(DISK_BYTES);
        let mut out = Vec::with_capacity(size as usize);
        let inner = locked(&self.inner);
        let mut at = offset;
        while at < end {
            let within = usize::try_from(at % BLOCK as u64).unwrap_or_default();
            let take = (BLOCK - within).min(usize::try_from(end - at).unwrap_or(BLOCK));
            let block = inner
                .current
                .get(&(at / BLOCK as u64))
                .and_then(|block| block.get(within..within + take));
            match block {
                Some(bytes) => out.extend_from_slice(bytes),
                None => out.resize(out.len() + take, 0),
            }
            at += take as u64;
        }
        drop(inner);
        reply.data(&out);
    }
    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Ok(length) = u32::try_from(data.len()) else {
            return reply.error(Errno::EINVAL);
        };
        let mut inner = locked(&self.inner);
        put(&mut inner.current, offset, data);
        inner.content.pending.push((offset, Arc::new(data.to_vec())));
        if inner
            .armed
            .is_some_and(|unflushed| inner.content.pending.len() >= unflushed)
        {
            inner.armed = None;
            inner.frozen = Some(inner.content.clone());
            self.cut.notify_all();
        }
        drop(inner);
        reply.written(length);
    }
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // close(2), not a device flush
    }
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut inner = locked(&self.inner);
        inner.flushes += 1;
        if !self.ignore_flush {
            let Content { durable, pending } = &mut inner.content;
            pending.drain(..).for_each(|(offset, data)| put(durable, offset, &data));
        }
        drop(inner);
        reply.ok();
    }
}

/// Reads the blocks of a (sparse) image that are not zero.
fn load(image: &Path) -> Tried<Blocks> {
    let (mut file, mut blocks, mut block, mut index) = (File::open(image)?, Blocks::new(), [0; BLOCK], 0);
    loop {
        match file.read_exact(&mut block) {
            Ok(()) if block == [0; BLOCK] => {}
            Ok(()) => drop(blocks.insert(index, Arc::new(block))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(blocks),
            Err(error) => return Err(error.into()),
        }
        index += 1;
    }
}

fn store(blocks: &Blocks, image: &Path) -> Tried<()> {
    let file = File::create(image)?;
    file.set_len(DISK_BYTES)?;
    for (index, block) in blocks {
        file.write_all_at(&block[..], index * BLOCK as u64)?;
    }
    Ok(())
}

/// Waits, a little, until so many writes are unflushed (0: not at all); what is on the disk then, and the flushes so far.
fn freeze(inner: &Mutex<Inner>, cut: &Condvar, unflushed: usize) -> (Content, u64) {
    let mut inner = locked(inner);
    inner.frozen = None;
    inner.armed = (unflushed > inner.content.pending.len()).then_some(unflushed);
    let until = Instant::now() + FREEZE_PATIENCE;
    while inner.armed.is_some() && Instant::now() < until {
        inner = cut
            .wait_timeout(inner, FREEZE_PATIENCE)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    inner.armed = None;
    let frozen = inner.frozen.take().unwrap_or_else(|| inner.content.clone());
    (frozen, inner.flushes)
}

/// The process: mounts, then answers `freeze UNFLUSHED`, `image VARIANT SEED PATH` (of the last freeze) and `quit` on standard input, a line each.
pub fn serve(mount: &Path, template: &Path, ignore_flush: bool) -> Tried<()> {
    let durable = load(template).map_err(doing("reading the template"))?;
    let content = Content {
        durable: durable.clone(),
        pending: Vec::new(),
    };
    let inner = Arc::new(Mutex::new(Inner {
        content,
        current: durable,
        ..Inner::default()
    }));
    let cut = Arc::new(Condvar::new());
    let disk = Disk {
        inner: inner.clone(),
        cut: cut.clone(),
        ignore_flush,
    };
    let session = fuser::spawn_mount(disk, mount, &Config::default()).map_err(doing("mounting the virtual disk"))?;
    let mut out = io::stdout();
    writeln!(out, "mounted")?;
    let mut frozen = Content::default();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("freeze"), Some(unflushed), ..) => {
                let flushes;
                (frozen, flushes) = freeze(&inner, &cut, unflushed.parse()?);
                writeln!(out, "{} {flushes}", frozen.pending.len())?;
            }
            (Some("image"), Some(variant), Some(seed), Some(path)) => {
                let variant = Variant::named(variant).ok_or("no such variant")?;
                store(&frozen.cut(variant, &mut Dice::new(seed.parse()?)), Path::new(path))?;
                writeln!(out, "stored")?;
            }
            _ => break,
        }
        out.flush()?;
    }
    session.umount_and_join().map_err(doing("unmounting the virtual disk"))
}
