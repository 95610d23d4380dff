//! Values in memory that is not swapped and stays out of core dumps: pages of their own, one or more for each value, so that what is unlocked again is
//! never a neighbour's. Where the system gives none (`RLIMIT_MEMLOCK`), ordinary memory that is wiped.
#![allow(unsafe_code)] // raw pages; each block says why it is sound

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};
use zeroize::{Zeroize, Zeroizing};

/// Where locked memory ran out once, said once.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Bytes that do not change. Wiped when dropped.
pub enum Kept {
    Plain(Zeroizing<Vec<u8>>),
    Locked(Pages),
}

impl Kept {
    /// Moves them into pages of their own; as they are where that is not to be had.
    pub fn lock(self) -> Self {
        match self {
            Self::Plain(bytes) if !bytes.is_empty() => match Pages::holding(&bytes) {
                Ok(pages) => Self::Locked(pages),
                Err(error) => {
                    if !REFUSED.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "values are held in ordinary memory: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK)");
                    }
                    Self::Plain(bytes)
                }
            },
            other => other,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Locked(pages) => pages.bytes(),
        }
    }
}

/// Whole pages, mapped for one value.
pub struct Pages {
    start: NonNull<u8>,
    used: usize,
    mapped: usize,
}

// SAFETY: the mapping is this value's alone, like a Box's.
unsafe impl Send for Pages {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pages {}

impl Pages {
    fn holding(bytes: &[u8]) -> rustix::io::Result<Self> {
        let mapped = bytes.len().next_multiple_of(rustix::param::page_size());
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM)?;
        let mut pages = Self { start, used: 0, mapped };
        // SAFETY: the range is the mapping just made.
        unsafe { mlock(start.as_ptr().cast(), mapped)? };
        #[cfg(target_os = "linux")]
        // SAFETY: the same range; this advice keeps it out of dumps and changes no contents.
        unsafe {
            madvise(start.as_ptr().cast(), mapped, Advice::LinuxDontDump)?;
        };
        // SAFETY: the mapping is at least so long, writable, not shared yet, and does not overlap `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
        pages.used = bytes.len();
        Ok(pages)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `used` bytes were written there, and nobody writes while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.used) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is writable, ours alone, and not borrowed any more.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.used) }.zeroize();
        // SAFETY: mapped by `holding`, given back once. It cannot fail for a whole mapping; the bytes are wiped already.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-OPS-6: locked values are the same bytes, and their pages count as locked.
    #[test]
    fn what_is_locked_is_the_same() {
        let status = || std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = || {
            let status = status();
            let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        for size in [0, 1, 4096, 5000] {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let before = locked();
            let kept = Kept::Plain(Zeroizing::new(bytes.clone())).lock();
            assert_eq!(kept.bytes(), bytes);
            match &kept {
                Kept::Locked(_) => assert!(locked() > before, "{size}"),
                Kept::Plain(_) => assert!(size == 0 || REFUSED.load(Ordering::Relaxed), "{size}"),
            }
        }
    }
}
