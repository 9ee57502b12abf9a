// SPDX-License-Identifier: Apache-2.0
//! Memory that two processes share, as words that each may load and store at any time.
//!
//! The memory has no name (`memfd`): who has the descriptor has it, and it is gone with the last of them, however that
//! one ends. Its size is sealed, so neither end can take a page from under the other. Everything in it is an atomic
//! word: whatever the other process does there, this one reads numbers, and judges them.
//!
//! An `unsafe` room: mapping memory, and looking at it as words.
#![allow(unsafe_code)] // See above.

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

const WORD_BYTES: usize = size_of::<AtomicU64>();

/// Shared words, all zero at first.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: what is behind `base` are atomics, which any thread may use; the mapping itself is changed by nobody until it
// is dropped, which needs the only owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New memory of `words` words, and the descriptor by which another process maps it too.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(words: usize) -> io::Result<(Mapping, OwnedFd)> {
        let fd = memfd_create("tendon", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let bytes = words
            .checked_mul(WORD_BYTES)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        ftruncate(&fd, bytes as u64)?;
        fcntl_add_seals(&fd, SEALS)?;
        Ok((Mapping::map(&fd, words)?, fd))
    }

    /// Maps memory that another process made.
    ///
    /// # Errors
    /// Where it is not what [`Mapping::create`] makes of `words` words, or the operating system refuses.
    pub fn open(fd: &OwnedFd, words: usize) -> io::Result<Mapping> {
        let bytes = fstat(fd)?.st_size;
        if usize::try_from(bytes).ok() != words.checked_mul(WORD_BYTES) {
            return Err(io::Error::other(format!(
                "shared memory of {bytes} bytes; expected {words} words of {WORD_BYTES} bytes"
            )));
        }
        // Without the seals it could shrink under this process, and reading it would be the end.
        if !fcntl_get_seals(fd)?.contains(SEALS) {
            return Err(io::Error::other("shared memory whose size is not sealed"));
        }
        Mapping::map(fd, words)
    }

    fn map(fd: impl AsFd, words: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory that this process has.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                words * WORD_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, words })
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `base` is the start of a mapping of `words` words, aligned to a page, that lives as long as `self`; its
        // size is sealed. Any bytes are valid atomics, and all that is ever made of them are shared references.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the very mapping that `map` made; nothing borrows from it any more. A refusal would leave it mapped.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.words * WORD_BYTES) };
    }
}

const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_of_one_memory_are_the_same_words() {
        let (ours, fd) = Mapping::create(1_000).expect("memory");
        let theirs = Mapping::open(&fd, 1_000).expect("the same");
        assert!(
            theirs
                .words()
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0)
        );
        ours.words()[999].store(7, Ordering::Release);
        assert_eq!(theirs.words()[999].load(Ordering::Acquire), 7);
        drop(ours);
        assert_eq!(theirs.words()[999].load(Ordering::Acquire), 7);
    }

    #[test]
    fn memory_of_another_size_or_that_could_shrink_is_refused() {
        let (_ours, fd) = Mapping::create(1_000).expect("memory");
        let error = Mapping::open(&fd, 1_001)
            .expect_err("another size")
            .to_string();
        assert!(error.contains("8000 bytes; expected 1001 words"), "{error}");
        assert!(ftruncate(&fd, 0).is_err(), "sealed");
        let loose = memfd_create("loose", MemfdFlags::ALLOW_SEALING).expect("memory");
        ftruncate(&loose, 8_000).expect("a size");
        let error = Mapping::open(&loose, 1_000)
            .expect_err("not sealed")
            .to_string();
        assert!(error.contains("not sealed"), "{error}");
    }
}
