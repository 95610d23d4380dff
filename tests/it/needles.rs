//! Many secrets looked for at once, in bytes or in the memory of a process.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
};

/// Memory is read in pieces of this size.
const PIECE: usize = 1 << 20;

/// What is looked for, by its first four bytes.
#[derive(Default)]
pub struct Needles(HashMap<[u8; 4], Vec<(String, Vec<u8>)>>);

impl Needles {
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0
            .entry(bytes[..4].try_into().unwrap())
            .or_default()
            .push((name.to_owned(), bytes.to_vec()));
    }

    pub fn count(&self) -> usize {
        self.0.values().flatten().count()
    }

    /// Names of those that stand in the readable, writable memory of a process.
    pub fn found_in(&self, pid: u32) -> Vec<String> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).expect("memory of another process is for root");
        let longest = self.0.values().flatten().map(|(_, bytes)| bytes.len()).max().unwrap();
        let (mut found, mut buffer) = (Vec::new(), vec![0; PIECE + longest]);
        for line in maps.lines() {
            let (range, rights) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let (mut at, to) = (
                u64::from_str_radix(from, 16).unwrap(),
                u64::from_str_radix(to, 16).unwrap(),
            );
            while rights.starts_with("rw") && at < to {
                let part = buffer.len().min((to - at) as usize);
                // Locked pages of memfd_secret answer EIO, to root as to everybody.
                if memory.read_exact_at(&mut buffer[..part], at).is_ok() {
                    self.search(&buffer[..part], |name, _| found.push(name.to_owned()));
                }
                at += PIECE as u64;
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// Names of those that stand in these bytes, with where.
    pub fn found_at(&self, bytes: &[u8]) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        self.search(bytes, |name, at| found.push((name.to_owned(), at)));
        found
    }

    fn search(&self, piece: &[u8], mut found: impl FnMut(&str, usize)) {
        for page in 0..piece.len().div_ceil(4096) {
            let start = page * 4096;
            let end = (start + 4096).min(piece.len());
            if piece[start..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            for at in start..end {
                let Some(first) = piece[at..].first_chunk::<4>() else {
                    break;
                };
                for (name, bytes) in self.0.get(first).into_iter().flatten() {
                    if piece[at..].starts_with(bytes) {
                        found(name, at);
                    }
                }
            }
        }
    }
}
