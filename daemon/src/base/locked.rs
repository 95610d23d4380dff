//! Memory for keys: `memfd_secret(2)` pages (the kernel itself cannot read them; /proc/PID/mem answers EIO), else mlocked pages kept
//! out of dumps. Slots are fixed, wiped when given back, and never swapped. R-SEAL-7.
#![allow(unsafe_code)] // raw pages and in-place values; each block says why it is sound

use super::random::Random;
use parking_lot::Mutex;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

/// One value at most: a key schedule with its subkeys.
pub const SLOT_BYTES: usize = 2048;
const REGION_SLOTS: usize = 64;
/// 64 regions of 128 KiB: 8 MiB, the usual RLIMIT_MEMLOCK of an ordinary user.
const REGIONS_MAX: usize = 64;
const ALIGN_MAX: usize = 64;

/// No locked memory to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Every slot is taken.
    #[error("no locked memory left ({REGIONS_MAX} regions in use)")]
    Full,
    /// The kernel refused.
    #[error("the kernel gives no locked memory: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity)")]
    Refused(#[source] std::io::Error),
}

/// A value in locked memory: wiped on drop, never copied out by this type.
pub struct Locked<T> {
    slot: NonNull<u8>,
    value: PhantomData<T>,
}

// SAFETY: `Locked` owns its slot alone, like a Box.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: shared access gives only `&T`.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Makes a value and moves it in; the stack it was made on is wiped.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn new(make: impl FnOnce() -> T) -> Result<Self, LockError> {
        const { assert!(size_of::<T>() <= SLOT_BYTES && align_of::<T>() <= ALIGN_MAX) };
        let slot = take_slot()?;
        scrubbed(|| {
            // SAFETY: the slot is ours alone, large and aligned enough (asserted above).
            unsafe { slot.cast::<T>().write(make()) }
        });
        Ok(Self {
            slot,
            value: PhantomData,
        })
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: `new` wrote a T there, and only `drop` ends it.
        unsafe { self.slot.cast::<T>().as_ref() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is live and dropped once; then its bytes are ours to wipe.
        unsafe { self.slot.cast::<T>().drop_in_place() };
        give_slot(self.slot);
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(redacted)")
    }
}

/// A 256-bit key in locked memory.
pub struct LockedKey(Locked<[u8; 32]>);

impl LockedKey {
    /// Fills the key in place; nothing else ever holds it.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn fill_with(fill: impl FnOnce(&mut [u8; 32])) -> Result<Self, LockError> {
        let key = Locked::new(|| [0; 32])?;
        // SAFETY: the slot is not shared yet.
        scrubbed(|| fill(unsafe { key.slot.cast::<[u8; 32]>().as_mut() }));
        Ok(Self(key))
    }
    /// A fresh random key.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn random(random: &dyn Random) -> Result<Self, LockError> {
        Self::fill_with(|key| random.fill(key))
    }
    /// Copies `bytes` in; the caller wipes its own.
    /// # Errors
    /// [`LockError`] when there is no locked memory.
    pub fn copy_of(bytes: &[u8; 32]) -> Result<Self, LockError> {
        Self::fill_with(|key| key.copy_from_slice(bytes))
    }
    /// The key's bytes, in place. Whoever expands them does so inside [`scrubbed`].
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for LockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedKey(redacted)")
    }
}

/// How deep the stack is wiped. Without optimisation a key schedule passes through many frames.
const SCRUB_BYTES: usize = if cfg!(debug_assertions) { 64 << 10 } else { 8 << 10 };

/// Runs `work` and wipes the stack it used: expanded keys and moved copies do not stay behind.
#[inline(never)]
pub fn scrubbed<R>(work: impl FnOnce() -> R) -> R {
    let result = apart(work);
    if !plain() {
        wipe_stack();
    }
    result
}

#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[inline(never)]
fn wipe_stack() {
    let mut below = std::mem::MaybeUninit::<[u8; SCRUB_BYTES]>::uninit();
    wipe(below.as_mut_ptr().cast(), size_of_val(&below));
}

/// One `memset`: byte-wise volatile stores cost a record's opening more than its cipher does.
fn wipe(block: *mut u8, bytes: usize) {
    // SAFETY: both callers own `bytes` writable bytes there. The compiler must take the zeros for read, or it may drop the stores.
    unsafe {
        std::ptr::write_bytes(block, 0, bytes);
        std::arch::asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
    }
}

struct Pool {
    free: Vec<NonNull<u8>>,
    regions: usize,
}
// SAFETY: the pointers name pages that live as long as the process; the mutex orders their use.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    regions: 0,
});

fn take_slot() -> Result<NonNull<u8>, LockError> {
    let mut pool = POOL.lock();
    if let Some(slot) = pool.free.pop() {
        return Ok(slot);
    }
    if pool.regions == REGIONS_MAX {
        return Err(LockError::Full);
    }
    let region = pages(REGION_SLOTS * SLOT_BYTES).map_err(LockError::Refused)?;
    pool.regions += 1;
    for index in 1..REGION_SLOTS {
        // SAFETY: stays inside the region just mapped.
        pool.free.push(unsafe { region.add(index * SLOT_BYTES) });
    }
    Ok(region)
}

fn give_slot(slot: NonNull<u8>) {
    if !plain() {
        wipe(slot.as_ptr(), SLOT_BYTES); // its value is gone
    }
    POOL.lock().free.push(slot);
}

#[cfg(debug_assertions)]
static PLAIN: AtomicBool = AtomicBool::new(false);

/// From now on keys lie on the ordinary heap, where anybody who reads this process finds them, and nothing is wiped. The positive control of
/// the memory scan: a search that finds no key in the daemon must find them here. Only one program of the tests calls it; a release build
/// has no such function.
#[cfg(debug_assertions)]
pub fn keep_on_plain_heap() {
    PLAIN.store(true, Ordering::Relaxed);
}

fn plain() -> bool {
    #[cfg(debug_assertions)]
    return PLAIN.load(Ordering::Relaxed);
    #[cfg(not(debug_assertions))]
    return false;
}

fn pages(bytes: usize) -> std::io::Result<NonNull<u8>> {
    if plain() {
        let block = Vec::<[u64; 8]>::with_capacity(bytes / 64 + 1).leak();
        return NonNull::new(block.as_mut_ptr().cast()).ok_or_else(|| std::io::ErrorKind::OutOfMemory.into());
    }
    secret_pages(bytes).or_else(|_| mlocked_pages(bytes))
}

fn secret_pages(bytes: usize) -> std::io::Result<NonNull<u8>> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: a plain system call; its result is checked. 1 = FD_CLOEXEC in the flags of memfd_secret(2) (O_CLOEXEC).
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(std::io::Error::last_os_error)?;
    // SAFETY: the kernel just gave us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::ftruncate(&fd, bytes as u64)?;
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    // SAFETY: a fresh mapping at an address of the kernel's choice; it outlives the descriptor.
    let at = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &fd,
            0,
        )?
    };
    NonNull::new(at.cast()).ok_or_else(|| std::io::ErrorKind::OutOfMemory.into())
}

fn mlocked_pages(bytes: usize) -> std::io::Result<NonNull<u8>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};
    // SAFETY: a fresh anonymous mapping, then advice and a lock on exactly that range.
    let at = unsafe {
        let at = mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        mlock(at, bytes)?;
        madvise(at, bytes, Advice::LinuxDontDump)?;
        madvise(at, bytes, Advice::LinuxDontFork)?;
        at
    };
    NonNull::new(at.cast()).ok_or_else(|| std::io::ErrorKind::OutOfMemory.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::OsRandom;

    #[test]
    fn a_key_holds_what_it_was_given_and_slots_are_reused() {
        let first = LockedKey::copy_of(&[7; 32]).unwrap();
        assert_eq!(first.expose(), &[7; 32]);
        let keys: Vec<_> = (0..REGION_SLOTS * 2)
            .map(|_| LockedKey::random(&OsRandom).unwrap())
            .collect();
        assert!(keys.windows(2).all(|pair| pair[0].expose() != pair[1].expose()));
        assert_eq!(first.expose(), &[7; 32]);
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(
            format!("{:?}", LockedKey::copy_of(&[7; 32]).unwrap()),
            "LockedKey(redacted)"
        );
    }
}
