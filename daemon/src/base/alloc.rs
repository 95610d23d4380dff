//! The global allocator: mimalloc that wipes every block it takes back.
//! Buffers that nobody of ours owns (HTTP/2 frames, protobuf messages, serde strings) hold shares, tokens and values for a moment;
//! wiping at free keeps them from lingering (R-SEAL-7). Growing copies by hand, so that no old block stays behind unwiped.
#![allow(unsafe_code)] // GlobalAlloc is an unsafe trait

use mimalloc::MiMalloc;
use std::{
    alloc::{GlobalAlloc, Layout},
    ptr,
};

/// Wipes on free.
#[derive(Debug, Default)]
pub struct Wiping;

// SAFETY: every call goes to MiMalloc with the layout it was made with; only the block's own bytes are written before it is freed.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is MiMalloc's.
        unsafe { MiMalloc.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` has `layout.size()` bytes that nobody else may touch any more.
        unsafe {
            wipe(block, layout.size());
            MiMalloc.dealloc(block, layout);
        }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` with this alignment is a valid layout; both blocks are live and apart during the copy.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// # Safety
/// `block` must be valid for writes of `size` bytes.
unsafe fn wipe(block: *mut u8, size: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        ptr::write_bytes(block, 0, size);
        // The compiler must take the zeros for read, or it may drop the stores before a free.
        std::arch::asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
    }
}
