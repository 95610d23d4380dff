//! The test binary runs itself again, hardens that process, and tries what must and must not work in it.

use super::*;
use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

const INSIDE: &str = "STRONGROOM_TEST_INSIDE";

/// R-SEAL-7: no dumps, no ptrace, no foreign files, no programs; its own files, threads and connections still work.
#[test]
fn a_hardened_process_keeps_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::tests::inside", "--ignored", "--nocapture"])
        .env(INSIDE, format!("{}:{}", dir.path().display(), outside.path().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && text.contains("all as it must be"), "{text}");
}

fn denied(what: std::io::Result<impl Sized>) -> bool {
    what.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Runs in the process that `a_hardened_process_keeps_to_itself` starts.
#[test]
#[ignore = "run by a_hardened_process_keeps_to_itself in a process of its own"]
fn inside() {
    let Ok(paths) = std::env::var(INSIDE) else { return };
    let (own, other) = paths.split_once(':').unwrap();
    let (own, other) = (Path::new(own), Path::new(other));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    limits().unwrap();
    let reach = Reach {
        read: Vec::new(),
        write: vec![own.to_owned()],
        listen: vec![1],
    };
    let missing = landlock(&reach).unwrap();
    // Its own thread: landlock holds for this one and what it makes; seccomp for all.
    assert_eq!(seccomp().unwrap(), None);

    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    assert_eq!(
        rustix::process::dumpable_behavior().unwrap(),
        DumpableBehavior::NotDumpable
    );

    std::fs::write(own.join("file"), "ours").unwrap();
    assert_eq!(std::fs::read_to_string(own.join("file")).unwrap(), "ours");
    if missing.is_none() {
        assert!(denied(std::fs::read(other.join("secret"))) && denied(std::fs::write(other.join("new"), "x")));
        assert!(denied(TcpListener::bind("127.0.0.1:0")), "only listed ports");
    }
    assert!(denied(Command::new("/bin/true").spawn()), "no programs, no forks");
    let there = listener.local_addr().unwrap();
    assert!(TcpStream::connect(there).is_ok());
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::fs::read(own.join("file")).await })
        .unwrap();
    println!("all as it must be");
}
