//! `strongroomd repair --accept-loss`: goes on after store and log were found to disagree. Asks for a slot's fresh factors first: whoever can
//! merely write to the disk must not be able to make a log's loss look settled.
#![allow(clippy::print_stdout)] // it speaks to the operator who runs it

use super::{Fatal, parts};
use crate::{
    audit::{Paths, Recorder, repair as mend},
    base::{
        id::BootId,
        random::{OsRandom, Random},
        time::SystemClock,
    },
    config::Config,
    seal::{SlotName, Token, Tokens},
    store::Disk,
    vault::offline,
};
use std::{io::BufRead, sync::Arc};
use strongroom_hsm::Launcher;

/// Shares read at most; a slot has at most 32.
const SHARES_MAX: usize = 32;
/// A share's line.
const LINE_BYTES_MAX: usize = 512;

/// Proves the slot, mends the log, makes the store follow it.
/// # Errors
/// The daemon runs, the factors do not open the slot, or the log is another vault's.
pub fn repair(config: &Config, slot: &str) -> Result<(), Fatal> {
    let slot: SlotName = slot.parse()?;
    let settings = parts::disk_config(config);
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let (disk, store_head) = Disk::open_without_log(&settings, Arc::clone(&random))?;
    let configs = parts::hsm_configs(config);
    let pins = parts::ask_pins(&configs)?;
    let launcher = Launcher::exec(std::env::current_exe()?, &["hsm-worker"]);
    let hsms = parts::start_hsms(configs, &launcher, pins)?;
    let tokens = Tokens::new(hsms.iter().map(|hsm| Arc::new(hsm.clone()) as Arc<dyn Token>).collect());
    let shares = read_shares()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keys = runtime.block_on(offline::derive(&disk, &slot, shares, &tokens))?;
    keys.store.lock();
    drop(keys);
    hsms.iter().for_each(strongroom_hsm::Hsm::stop);
    let cluster = disk.ids().cluster;
    disk.close();
    drop(disk);
    let recorder = Recorder::new(BootId::random(&*random), Arc::new(SystemClock::default()), Paths::Clear);
    let repaired = mend(&settings.audit, &recorder, cluster, store_head)?;
    Disk::follow_log(&settings, repaired.head)?;
    println!(
        "The log goes on at record {}; the gap is recorded, and `strongroom audit verify` will name it for ever.\n\
         Segments set aside (renamed to NAME.lost): {}. Keep them. Start the daemon now.",
        repaired.head.seq, repaired.set_aside,
    );
    Ok(())
}

fn read_shares() -> Result<Vec<String>, Fatal> {
    let mut shares = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.len() > LINE_BYTES_MAX || shares.len() == SHARES_MAX {
            return Err("standard input holds more than shares, one a line".into());
        }
        if !line.trim().is_empty() {
            shares.push(line.trim().to_owned());
        }
    }
    Ok(shares)
}
