//! R-SEAL-7: what memory holds while the vault is open, and after it was sealed. This process looks at itself through /proc/self/mem;
//! the same look at the real daemon is in the `tests` crate. The test binary uses the daemon's wiping allocator for this.
//!
//! What is looked for is kept inverted here, or the search would find itself.

use super::{tests::*, *};
use crate::seal::{ShareText, hsm::softhsm::Two, offline::share_value};
use std::{fs::File, io::BufRead, os::unix::fs::FileExt};

/// 32 bytes to look for, inverted.
struct Needle {
    name: String,
    inverted: [u8; 32],
}

impl Needle {
    fn of(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            inverted: std::array::from_fn(|at| !bytes[at]),
        }
    }

    /// memchr (in the standard library, optimised) finds candidates.
    fn within(&self, haystack: &[u8]) -> bool {
        let mut rest = haystack;
        while let Ok(skipped) = rest.skip_until(!self.inverted[0]) {
            if skipped == 0 || rest.len() < 31 {
                return false;
            }
            if rest
                .iter()
                .zip(&self.inverted[1..])
                .all(|(byte, inverted)| *byte == !*inverted)
            {
                return true;
            }
        }
        false
    }
}

/// Names of the needles that stand in this process's readable, writable memory.
fn found(needles: &[Needle]) -> Vec<&str> {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut found = Vec::new();
    let (mut buffer, zeros) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let own = buffer.as_ptr() as u64;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (
            u64::from_str_radix(from, 16).unwrap(),
            u64::from_str_radix(to, 16).unwrap(),
        );
        if !rights.starts_with("rw") {
            continue;
        }
        let mut at = from;
        while at < to {
            // Pieces overlap, so that nothing hides on a border. The buffer is not looked at: it holds the piece before.
            let part = buffer.len().min((to - at) as usize);
            let over_buffer = at < own + buffer.len() as u64 && own < at + part as u64;
            let step = if over_buffer { 4096.min(part) } else { part };
            let in_buffer = at < own + buffer.len() as u64 && own < at + step as u64;
            let piece = &mut buffer[..step];
            // Locked pages of memfd_secret answer EIO, to us as to everybody.
            // Most of what an allocator reserves was never touched.
            if !in_buffer && memory.read_exact_at(piece, at).is_ok() && *piece != zeros[..step] {
                for needle in needles.iter().filter(|needle| needle.within(piece)) {
                    found.push(needle.name.as_str());
                }
            }
            at += if step > 64 && at + (step as u64) < to {
                step as u64 - 31
            } else {
                step as u64
            };
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn clean(needles: &[Needle], when: &str) {
    assert_eq!(found(needles), [""; 0], "{when}")
}

/// R-SEAL-7: with a real HSM and real shares: no half, slot key or root key stands in ordinary memory of the open vault, nor of the sealed one.
#[tokio::test]
async fn no_key_stands_in_ordinary_memory() {
    let canary = Box::new(std::array::from_fn::<u8, 32, _>(|at| at as u8 ^ 0xc7));
    assert_eq!(
        found(&[Needle::of("canary", &canary[..])]),
        ["canary"],
        "the search finds what is there"
    );

    let two = tokio::task::spawn_blocking(Two::new).await.unwrap();
    let rig = crate::store::testing::Rig::default();
    let clock = Arc::new(crate::base::time::ManualClock::default());
    let vault = Vault::new(parts(rig.open(), two.tokens.clone(), clock)).await.unwrap();
    let specs = vec![spec("daily", "hsm+quorum:2/3"), spec("glass", "quorum:3/4")];
    let made = vault
        .init(specs, evidence("init"), |rooms: Arc<Kept>| async move {
            Ok(rooms.put("x").await?)
        })
        .await
        .unwrap();
    let shares: Vec<Vec<ShareText>> = made.shares.into_iter().map(|(_, shares)| shares).collect();

    let texts = |slot: &[ShareText]| slot.iter().map(|share| share.expose().to_owned()).collect::<Vec<_>>();
    let mut needles = Vec::new();
    for (slot, shares) in ["daily", "glass"].into_iter().zip(&shares) {
        let keys = offline::derive(vault.disk(), &slot.parse().unwrap(), texts(shares), &two.tokens)
            .await
            .unwrap();
        let mut note = |name: &str, key: Option<&[u8]>| {
            needles.extend(key.map(|key| Needle::of(&format!("{name} ({slot})"), key)))
        };
        note("K_q", keys.slot.operators.as_ref().map(|key| &key.expose()[..]));
        note("K_hsm", keys.slot.hsm.as_ref().map(|key| &key.expose()[..]));
        note("slot key", Some(keys.slot.slot.expose()));
        note("root key", Some(keys.slot.root.key.expose()));
        keys.slots
            .iter()
            .for_each(|(name, key)| note(&format!("slot key of {name}"), Some(key.expose())));
        keys.store
            .keyring()
            .unwrap()
            .each_key(|name, key| note(name, Some(key)));
        shares
            .iter()
            .for_each(|share| note("a share's value", Some(share_value(share).unwrap().expose())));
        keys.store.lock();
    }
    assert!(needles.len() > 20);
    two.tokens.stop();
    clean(&needles, "after init");

    let bring = |share: &ShareText, session| {
        let share = share.expose().to_owned();
        let vault = &vault;
        async move {
            let input = PresentInput {
                slot: "daily".parse().unwrap(),
                session,
                share: Some(&share),
                operation: Some(crate::seal::Operation::Unseal),
                local_root: false,
            };
            vault.present(input, evidence("unseal")).await.unwrap()
        }
    };
    let Answer::Waiting(progress) = bring(&shares[0][0], None).await else {
        panic!()
    };
    let Answer::Done { .. } = bring(&shares[0][2], Some(progress.session)).await else {
        panic!()
    };
    assert_eq!(vault.rotate_root(evidence("rotate")).await.unwrap(), 2);
    clean(&needles, "open");
    vault.seal(evidence("seal")).await;
    clean(&needles, "sealed");
    drop(canary);
}
