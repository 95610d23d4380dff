//! What the memory of the real daemon holds. R-SEAL-7. A canary in ordinary memory, and the same daemon with its keys on the plain heap
//! (`strongroomd-plain-heap`), prove that the search sees.

use crate::{
    needles::Needles,
    world::{World, value},
};
use std::{fs, path::Path, sync::Arc};
use strongroom_hsm::{Hsm, Launcher};
use strongroom_tests::{Lab, lab::binary};
use strongroomd::{
    audit::Settings,
    base::random::OsRandom,
    seal::{Token, Tokens, offline::share_value},
    store::{Disk, DiskConfig, EngineKind},
    vault::offline,
};

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Every key of the vault, from a copy of its store and the shares, as disaster recovery would.
async fn keys(world: &World, data: &Path) -> Needles {
    let launcher = Launcher::exec(binary("strongroomd"), &["hsm-worker"]);
    let hsm = Hsm::start(world.lab.hsms[0].clone(), launcher).unwrap();
    let tokens = Tokens::new(vec![Arc::new(hsm) as Arc<dyn Token>]);
    let config = DiskConfig {
        caches: strongroomd::store::Caches::default(),
        evidence: strongroomd::store::Evidence::default(),
        dir: data.to_owned(),
        engine: EngineKind::Fjall,
        reserve_bytes: 0,
        audit: Settings {
            dir: data.join("audit"),
            segment_bytes: 4 << 20,
        },
    };
    let (disk, _) = tokio::task::spawn_blocking(move || Disk::open(&config, Arc::new(OsRandom)))
        .await
        .unwrap()
        .unwrap();
    let mut needles = Needles::default();
    for slot in ["daily", "glass"] {
        let found = offline::derive(&disk, &slot.parse().unwrap(), world.shares[slot].clone(), &tokens)
            .await
            .unwrap();
        for (name, key) in [("K_q", &found.slot.operators), ("K_hsm", &found.slot.hsm)] {
            if let Some(key) = key {
                needles.add(&format!("{name} of {slot}"), key.expose());
            }
        }
        needles.add(&format!("slot key of {slot}"), found.slot.slot.expose());
        needles.add("root key", found.slot.root.key.expose());
        found
            .store
            .keyring()
            .unwrap()
            .each_key(|name, key| needles.add(name, key));
        found.store.lock();
        for share in &world.shares[slot] {
            needles.add(
                &format!("a share's value of {slot}"),
                share_value(share).unwrap().expose(),
            );
        }
    }
    tokens.stop();
    tokio::task::spawn_blocking(move || disk.close()).await.unwrap();
    needles
}

/// R-SEAL-7: neither the open daemon nor the sealed one, its HSM supervisors and workers included, has a key in memory that another process,
/// be it root's, can read. The search is not blind: it finds a canary in ordinary memory, and the keys of a daemon that keeps them on the
/// plain heap, open and sealed.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_stands_in_the_daemons_memory() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "reading another process's memory needs root"
        );
        eprintln!("NOT TESTED: the daemon's memory (needs root)");
        return;
    }
    let mut world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3", "glass=quorum:2/3"]);
    world.unseal("daily");
    let canary = "canary-in-ordinary-memory-8d1f0c2b";
    world
        .cli()
        .ok(&["mount", "enable", "kv", "--kind", "kv", "--description", canary]);
    let client = world.client().await;
    client.put("kv/a", &value("x"), None).await.unwrap();
    assert!(world.take_daemon().stop().success());
    let copied = world.lab.dir().join("copy");
    copy_all(&world.lab.data(), &copied);
    let mut needles = keys(&world, &copied).await;
    assert!(needles.count() > 15, "the keys are known");
    needles.add("canary", canary.as_bytes());
    world.start();
    world.unseal("daily");
    let client = world.client().await;
    for _ in 0..20 {
        client.put("kv/a", &value("y"), None).await.unwrap();
        client.get("kv/a").await.unwrap();
    }
    let pid = world.daemon().pid();
    assert_eq!(needles.found_in(pid), ["canary"], "open");
    the_plain_heap_is_found(&mut world, &needles);
    let pid = world.daemon().pid();
    world.cli().ok(&["operator", "seal"]);
    assert_eq!(
        needles
            .found_in(pid)
            .into_iter()
            .filter(|name| name != "canary")
            .collect::<Vec<_>>(),
        [""; 0],
        "sealed"
    );
    for pid in crate::hsm::below(pid, "hsm-") {
        let pid = pid.as_raw_nonzero().get().try_into().unwrap();
        assert_eq!(needles.found_in(pid), [""; 0], "a process of the HSM's, sealed");
    }
}

/// The positive control: the same vault in a daemon that keeps its keys on the plain heap. Then the real one again, open.
fn the_plain_heap_is_found(world: &mut World, needles: &Needles) {
    assert!(world.take_daemon().stop().success());
    world.lab.program = "strongroomd-plain-heap";
    world.start();
    world.unseal("daily");
    let found = |needles: &Needles, world: &World| needles.found_in(world.daemon().pid());
    let open = found(needles, world);
    assert!(
        open.len() > 4 && open.iter().any(|name| name == "root key"),
        "root key and data keys stand on the plain heap: {open:?}"
    );
    world.cli().ok(&["operator", "seal"]);
    let sealed = found(needles, world);
    assert!(
        sealed.iter().any(|name| name == "root key"),
        "nothing was wiped: {sealed:?}"
    );
    assert!(world.take_daemon().stop().success());
    world.lab.program = "strongroomd";
    world.start();
    world.unseal("daily");
}
