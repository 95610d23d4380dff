//! What fjall does not check of its own files before it believes them: counts that make it ask for more memory than there is, which ends the
//! process instead of giving an error; and the sequence numbers of its journals, which say which of two values is the newer. Found by the flip
//! campaign. Formats: fjall 3.1, lsm-tree 3.1, sfa 1.0.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_128;

/// `SFA! | version u8 | checksum type u8 | checksum u128 | position of the list of sections u64 | its length u64`, at the end of a file.
const TRAILER_BYTES: u64 = 38;

/// A journal is read in pieces of this size.
const JOURNAL_READ_BYTES: usize = 256 << 10;

pub fn damaged(words: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words.into())
}

/// Checks the store in `path`; one that is not there yet is sound.
pub fn check(path: &Path) -> io::Result<()> {
    journals(path)?;
    let keyspaces = match fs::read_dir(path.join("keyspaces")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        keyspaces => keyspaces?,
    };
    for keyspace in keyspaces {
        let dir = keyspace?.path();
        list_of_tables(&dir)?;
        match fs::read_dir(dir.join("tables")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            tables => tables?.try_for_each(|table| table_sections(&table?.path()))?,
        }
    }
    Ok(())
}

/// The sequence numbers of batches lie outside the journal's checksums: they must grow from batch to batch and file to file, or an old value
/// would pass for the newer. What does not read ends the look: fjall finds that itself.
fn journals(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let number = file
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|number| (number, file)));
    }
    journals.sort();
    let mut last = None;
    for (_, journal) in journals {
        let mut from = BufReader::with_capacity(JOURNAL_READ_BYTES, File::open(&journal)?);
        let mut begun = None;
        while let Ok(entry) = entry(&mut from) {
            match (entry, begun) {
                (Entry::Start(sequence), None) => begun = Some(sequence),
                (Entry::Item, Some(_)) => {}
                (Entry::End, Some(sequence)) if last.is_none_or(|last| last < sequence) => {
                    (last, begun) = (begun, None)
                }
                (Entry::End, Some(_)) => {
                    return Err(damaged(format!("{}: a sequence number is damaged", journal.display())));
                }
                _ => break,
            }
        }
    }
    Ok(())
}

enum Entry {
    Start(u64),
    Item,
    End,
}

/// Start `1 | items u32 | sequence u64`; item `2 | type u8 | compression u8 | keyspace u64 | key length u16 | value length u32 | stored length
/// u32 | key | value`; end `3 | checksum u64 | magic u32`; clear `4 | keyspace u64`. All LE.
fn entry(from: &mut BufReader<File>) -> io::Result<Entry> {
    let skip = BufReader::<File>::seek_relative;
    match u8::from_le_bytes(take(from)?) {
        1 => {
            skip(from, 4)?;
            Ok(Entry::Start(u64::from_le_bytes(take(from)?)))
        }
        2 => {
            skip(from, 10)?;
            let key = u16::from_le_bytes(take(from)?);
            skip(from, 4)?;
            let value = u32::from_le_bytes(take(from)?);
            skip(from, i64::from(key) + i64::from(value))?;
            Ok(Entry::Item)
        }
        3 => {
            skip(from, 8)?;
            take::<4>(from).map(|_| Entry::End)
        }
        4 => take::<8>(from).map(|_| Entry::Item),
        _ => Err(damaged("no entry")),
    }
}

fn take<const N: usize>(from: &mut BufReader<File>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A keyspace's list of tables, by the checksum in its `current` file (`version u64 LE | XXH3-128 u128 LE | 0`), which fjall does not look at.
fn list_of_tables(dir: &Path) -> io::Result<()> {
    let current = match fs::read(dir.join("current")) {
        // Made, and not yet filled when the power went.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        current => current?,
    };
    let told = || damaged(format!("{}: the list of tables is damaged", dir.display()));
    let (version, rest) = current.split_first_chunk().ok_or_else(told)?;
    let (sum, _) = rest.split_first_chunk().ok_or_else(told)?;
    let list = fs::read(dir.join(format!("v{}", u64::from_le_bytes(*version))))?;
    if xxh3_128(&list) == u128::from_le_bytes(*sum) {
        Ok(())
    } else {
        Err(told())
    }
}

/// A table's list of sections (`TOC! | count u32 LE | ..`) must not claim more of them than it has bytes. Everything else fjall finds by its
/// checksum; and a table that a power cut left half-written, in no list, is none of our business.
fn table_sections(table: &Path) -> io::Result<()> {
    let file = File::open(table)?;
    let Some(at) = file.metadata()?.len().checked_sub(TRAILER_BYTES) else {
        return Ok(());
    };
    let (mut trailer, mut head) = ([0; TRAILER_BYTES as usize], [0; 8]);
    file.read_exact_at(&mut trailer, at)?;
    let position = trailer
        .get(22..30)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if !trailer.starts_with(b"SFA!") || position.checked_add(8).is_none_or(|end| end > at) {
        return Ok(());
    }
    file.read_exact_at(&mut head, position)?;
    let count = head.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if head.starts_with(b"TOC!") && u64::from(count) > at - position {
        return Err(damaged(format!("{}: the list of sections is damaged", table.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::physical::fjall::FjallEngine;

    /// R-STORE-2: whatever one byte of the engine's small files becomes, opening answers; no panic leaves it and no allocation ends the process.
    #[test]
    fn a_damaged_list_of_tables_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        drop(FjallEngine::open(dir.path()).unwrap());
        let list = dir.path().join("keyspaces/1/v0");
        let whole = fs::read(&list).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&list, bytes).unwrap();
            assert!(FjallEngine::open(dir.path()).is_err(), "byte {at}");
        }
        fs::write(&list, whole).unwrap();
        assert!(FjallEngine::open(dir.path()).is_ok());
    }

    #[test]
    fn a_table_does_not_have_a_milliard_sections() {
        let dir = tempfile::tempdir().unwrap();
        let tables = dir.path().join("keyspaces/1/tables");
        fs::create_dir_all(&tables).unwrap();
        let table = |count: u32| {
            let trailer = [&b"SFA!\x01\x00"[..], &[0; 16], &5u64.to_le_bytes(), &8u64.to_le_bytes()].concat();
            [&b"block"[..], b"TOC!", &count.to_le_bytes(), &trailer].concat()
        };
        for (bytes, sound) in [
            (table(8), true),
            (table(1 << 30), false),
            (table(1 << 30)[1..].to_vec(), true),
            (b"torn".to_vec(), true),
        ] {
            fs::write(tables.join("1"), bytes).unwrap();
            assert_eq!(check(dir.path()).is_ok(), sound);
        }
    }

    /// R-STORE-2, R-STORE-6: an old value does not pass for a newer one because a bit of a sequence number changed.
    #[test]
    fn sequence_numbers_of_a_journal_must_grow() {
        let dir = tempfile::tempdir().unwrap();
        let batch = |sequence: u64| {
            let item = [&[2, 0, 0][..], &[0; 8], &[1, 0], &[2, 0, 0, 0], &[2, 0, 0, 0], b"kvv"].concat();
            [
                &[1][..],
                &[1, 0, 0, 0],
                &sequence.to_le_bytes(),
                &item,
                &[3],
                &[0; 8],
                b"FJL\x03",
            ]
            .concat()
        };
        for (numbers, sound) in [
            ([5, 6, 9], true),
            ([5, 7, 6], false),
            ([5, 6, 5], false),
            ([5, 5, 6], false),
        ] {
            let [first, second, third] = numbers.map(batch);
            fs::write(dir.path().join("9.jnl"), [&first[..], &second].concat()).unwrap();
            fs::write(dir.path().join("10.jnl"), [&third[..], &[0; 64]].concat()).unwrap();
            assert_eq!(check(dir.path()).is_ok(), sound, "{numbers:?}");
        }
    }
}
