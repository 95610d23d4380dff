//! A prompted PIN, in memory that is locked, kept out of dumps and wiped.
#![allow(unsafe_code)] // mmap, mlock and madvise on a page of our own; nothing else does this without a copy

use std::fmt;
use std::ptr::NonNull;

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use zeroize::{Zeroize, Zeroizing};

use crate::error::HsmError;

/// Longest PIN (bytes). Tokens take 255 (SoftHSM) or less.
pub const PIN_BYTES_MAX: usize = 256;

/// A PIN given by a person. Not `Clone`, not printable.
pub struct Pin {
    page: NonNull<u8>,
    len: usize,
}

// SAFETY: the page belongs to this value alone and is only read after construction.
unsafe impl Send for Pin {}
// SAFETY: as above: shared access only reads.
unsafe impl Sync for Pin {}

impl Pin {
    const PAGE: usize = 4096;

    /// Takes a PIN of 1 to 256 bytes; the input is wiped. Locking is best effort (`RLIMIT_MEMLOCK`).
    /// # Errors
    /// `Invalid` for an empty or longer PIN, `Device` when there is no memory.
    pub fn new(text: Zeroizing<Vec<u8>>) -> Result<Self, HsmError> {
        if text.is_empty() || text.len() > PIN_BYTES_MAX {
            return Err(HsmError::invalid("a PIN has 1 to 256 bytes"));
        }
        // SAFETY: a fresh private anonymous mapping; no existing memory is touched.
        let page = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                Self::PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let page = page.ok().and_then(|p| NonNull::new(p.cast::<u8>()));
        let page = page.ok_or_else(|| HsmError::new(crate::ErrorKind::Device, "no memory for a PIN"))?;
        // SAFETY: the mapping above, PAGE bytes, ours; neither call changes its content. Failures only mean
        // that the page may be swapped or dumped, which the process-wide limits forbid as well.
        unsafe {
            let _ = mm::mlock(page.as_ptr().cast(), Self::PAGE);
            let _ = mm::madvise(page.as_ptr().cast(), Self::PAGE, Advice::LinuxDontDump);
        }
        // SAFETY: len <= 256 < PAGE; source and page do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), page.as_ptr(), text.len()) };
        Ok(Self { page, len: text.len() })
    }

    /// The PIN, for the one message that carries it.
    pub(crate) fn expose(&self) -> &[u8] {
        // SAFETY: len bytes of the page were written in `new`; the borrow keeps self, and so the page, alive.
        unsafe { std::slice::from_raw_parts(self.page.as_ptr(), self.len) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // SAFETY: the page is ours and still mapped; it is not used after this.
        unsafe {
            std::slice::from_raw_parts_mut(self.page.as_ptr(), Self::PAGE).zeroize();
            let _ = mm::munmap(self.page.as_ptr().cast(), Self::PAGE);
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_and_hides() {
        let pin = Pin::new(Zeroizing::new(b"1234-abcd".to_vec())).unwrap();
        assert_eq!(pin.expose(), b"1234-abcd");
        assert_eq!(format!("{pin:?}"), "Pin(redacted)");
        for len in [0, PIN_BYTES_MAX + 1] {
            assert!(Pin::new(Zeroizing::new(vec![b'x'; len])).is_err());
        }
    }
}
