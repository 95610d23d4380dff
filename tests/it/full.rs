//! A disk that is really full: a small file system of its own, filled by somebody else.

use crate::world::{World, eventually, failure, reason, value};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use strongroom_client::{Client, v1};
use strongroom_tests::Lab;

const MIB: u64 = 1 << 20;

/// A file system in memory, unmounted when dropped.
struct Disk {
    path: PathBuf,
    filler: PathBuf,
}

impl Disk {
    /// `None` where nothing can be mounted, which is said, and which CI does not accept.
    fn mount(path: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mib}m,mode=0700"),
                "strongroom-test",
            ])
            .arg(path)
            .status()
            .unwrap();
        if !mounted.success() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI needs the right to mount, to fill a disk"
            );
            eprintln!("***** NOT TESTED: a full disk. Nothing can be mounted here: run it as root. *****");
            return None;
        }
        Some(Self {
            path: path.to_owned(),
            filler: path.join("somebody-else"),
        })
    }

    fn free(&self) -> u64 {
        let stat = statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Somebody else takes all but `left` bytes.
    fn fill(&self, left: u64) {
        let file = File::options().append(true).create(true).open(&self.filler).unwrap();
        // Others write at the same time: by halves, until nothing is left.
        let mut step = self.free();
        while self.free() > left && step > 0 {
            let from = file.metadata().unwrap().len();
            let more = step.min(self.free().saturating_sub(left));
            if more > 0 && fallocate(&file, FallocateFlags::empty(), from, more).is_err() {
                step /= 2;
            }
        }
    }

    /// And gives it back.
    fn clear(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

async fn put(client: &Client, path: &str) -> String {
    match client.put(path, &value("x"), None).await {
        Ok(_) => "made".to_owned(),
        refused => reason(refused),
    }
}

async fn until_made(client: &Client, path: &str) {
    for _ in 0..300 {
        if put(client, path).await == "made" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("service does not resume");
}

/// R-AUDIT-3: below the reserve changes are refused with a clear error, and stay refused when the reserve was given up for those who must get through:
/// an operator's look, making room, revocation, sealing, unsealing. Then service resumes by itself, and the reserve is filled again.
#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_for_those_who_must_get_through() {
    let lab = Lab::with_tokens(&[]);
    let Some(disk) = Disk::mount(&lab.data(), 96) else {
        return;
    };
    let world = World::opened(lab);
    let client = world.client().await;
    let reserve = world.lab.data().join("reserve");
    for n in 0..20 {
        assert_eq!(put(&client, &format!("kv/full/{n}")).await, "made");
    }
    let tokens: Vec<_> = (0..20).map(|n| world.token(&format!("leaving-{n}"), &[])).collect();
    disk.fill(4 * MIB);
    tokio::time::sleep(Duration::from_millis(200)).await; // the disk is looked at every 50 ms
    assert_eq!(put(&client, "kv/full/more").await, "STORAGE_FULL");
    assert!(reserve.exists(), "a refusal does not cost the reserve");
    let refused = failure(&world.cli().run(&["--output", "json", "kv", "get", "kv/full/1"]));
    assert!(
        refused["message"].as_str().unwrap().contains("free some space"),
        "{refused}"
    );
    let status = world.status();
    assert_eq!(status["state"], "open", "an operator sees how things stand");
    assert!(status["warnings"].to_string().contains("nearly full"), "{status}");
    assert!(!reserve.exists(), "which costs the reserve");
    for _ in 0..200 {
        assert_eq!(put(&client, "kv/full/more").await, "STORAGE_FULL", "it is not for this");
    }
    world.cli().ok(&["kv", "destroy", "kv/full/1", "--all"]);
    world.cli().ok(&["lease", "list"]);
    for token in &tokens {
        world.lab.cli().with_token(token).ok(&["token", "revoke", "--own"]);
    }
    world.cli().ok(&["operator", "seal"]);
    world.unseal("daily");
    assert_eq!(put(&client, "kv/full/more").await, "STORAGE_FULL");
    disk.clear();
    until_made(&client, "kv/full/more").await;
    eventually("the reserve is filled again", || reserve.exists());
    assert!(!world.status()["warnings"].to_string().contains("nearly full"));
    let audit = world.lab.audit_dir();
    drop(client);
    let mut world = world;
    assert!(world.take_daemon().stop().success());
    world.cli().ok(&["audit", "verify", audit.to_str().unwrap()]);
    drop(disk); // before the directory that it lies in
}

/// R-AUDIT-3, R-STORE-1: somebody takes the last byte in the middle of the work, the reserve's included. What was answered is there, the daemon lives,
/// and when there is room again it goes on without being started or unsealed anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_in_mid_flight_is_outlived() {
    let lab = Lab::with_tokens(&[]);
    let Some(disk) = Disk::mount(&lab.data(), 96) else {
        return;
    };
    let world = World::opened(lab);
    let client = world.client().await;
    let leaving: Vec<_> = (0..30).map(|n| world.token(&format!("leaving-{n}"), &[])).collect();
    let mut from = 0_u32;
    let met = || world.daemon().log_text().matches("failed at a commit").count();
    for round in 0..30 {
        if round >= 5 && met() >= 2 {
            break;
        }
        let writing = {
            let client = client.clone();
            tokio::spawn(async move {
                // What is larger than an engine's buffer fails at another step than what is not.
                let large = "x".repeat(if round % 2 == 0 { 100 << 10 } else { 100 });
                for n in from..from + 4000 {
                    if client.put(&format!("kv/race/{n}"), &value(&large), None).await.is_err() {
                        return n;
                    }
                }
                panic!("the disk never filled");
            })
        };
        tokio::time::sleep(Duration::from_millis(40 * (round % 6))).await;
        disk.fill(0);
        let made = writing.await.unwrap();
        // The reserve is there or was given up: whatever it is, now it is gone too.
        let _ = put(&client, "kv/race/refused").await;
        let _ = world.lab.cli().run(&["operator", "status"]);
        disk.fill(0);
        let leaving = &leaving[usize::try_from(round).unwrap() % leaving.len()];
        let _ = world.lab.cli().with_token(leaving).run(&["token", "revoke", "--own"]);
        let _ = put(&client, "kv/race/refused").await;
        disk.clear();
        until_made(&client, &format!("kv/race/{made}")).await;
        for n in from..made {
            client
                .get(&format!("kv/race/{n}"))
                .await
                .unwrap_or_else(|error| panic!("{n}: {error}"));
        }
        // What is kept must not fill the disk by itself.
        for n in from..=made {
            let request = v1::KvDestroyRequest {
                path: format!("kv/race/{n}"),
                all: true,
                ..Default::default()
            };
            client.stubs().kv().destroy(request).await.unwrap();
        }
        from = made + 1;
    }
    assert!(met() >= 1, "no commit met a full disk");
    assert!(!world.daemon().log_text().contains("THE STORE IS STOPPED"));
    let audit = world.lab.audit_dir();
    let mut world = world;
    assert!(world.take_daemon().stop().success());
    world.cli().ok(&["audit", "verify", audit.to_str().unwrap()]);
    drop(disk); // before the directory that it lies in
}
