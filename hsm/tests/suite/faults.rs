//! PINs, lost tokens, dead and stuck workers.

use std::fs;
use std::time::{Duration, Instant};

use strongroom_hsm::{ErrorKind, Hsm, KeyKind, Launcher, Pin, PinSource, QUEUE_MAX, State};
use zeroize::Zeroizing;

use super::{Subject, alive, ring, running, seed, signal, until_ok, wait};

/// R-SEAL-6: a refused log-in is never repeated: not by calls, not by probes, not after a restart, not when the file
/// changes; only when an operator says so.
pub fn wrong_pin(mut subject: Subject) {
    subject.config.deadlines.probe = Duration::from_millis(50);
    let right = subject.pin_file();
    let wrong = subject.wrong_pin();
    let hsm = subject.start();
    let health = wait(&hsm, State::Held);
    assert_eq!(health.last_error.unwrap().kind, ErrorKind::AuthFailed);
    for _ in 0..5 {
        assert_eq!(hsm.list(&ring("root")).unwrap_err().kind, ErrorKind::AuthHeld);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(hsm.health().spawns, 1, "no worker is started while the gate is closed");
    drop(hsm);

    fs::copy(right, wrong).unwrap();
    let hsm = subject.start();
    assert_eq!(wait(&hsm, State::Held).last_error.unwrap().kind, ErrorKind::AuthHeld);
    assert_eq!(hsm.list(&ring("root")).unwrap_err().kind, ErrorKind::AuthHeld);
    hsm.forgive_pin();
    wait(&hsm, State::Up);
    assert_eq!(hsm.list(&ring("root")).unwrap(), []);
    drop(hsm);

    let hsm = subject.start();
    wait(&hsm, State::Up);
}

/// A prompted PIN: nothing is tried before it is there, and giving another one after a refusal is an act of an
/// operator.
pub fn prompted_pin(mut subject: Subject) {
    let pin = fs::read(subject.pin_file()).unwrap();
    subject.config.pin = PinSource::Prompted;
    let hsm = subject.start();
    assert_eq!(wait(&hsm, State::Held).last_error.unwrap().kind, ErrorKind::PinNeeded);
    assert_eq!(hsm.list(&ring("root")).unwrap_err().kind, ErrorKind::PinNeeded);
    assert_eq!(hsm.health().spawns, 0);
    hsm.give_pin(Pin::new(Zeroizing::new(b"wrong-but-long-enough".to_vec())).unwrap())
        .unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while hsm.health().last_error.is_none_or(|e| e.kind != ErrorKind::AuthFailed) {
        assert!(Instant::now() < end, "{:?}", hsm.health());
        std::thread::sleep(Duration::from_millis(10));
    }
    hsm.give_pin(Pin::new(Zeroizing::new(pin)).unwrap()).unwrap();
    wait(&hsm, State::Up);
    // Kept for the next worker.
    let worker = hsm.health().worker.unwrap();
    signal(worker, "KILL");
    assert_eq!(hsm.list(&ring("root")).unwrap(), []);
}

/// R-SEAL-6: pulled out, it is reported; put back, the same handle works again by itself.
pub fn token_gone_and_back(mut subject: Subject) {
    subject.config.deadlines.probe = Duration::from_millis(100);
    let (hsm, ring) = subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(3)).unwrap();
    let away = subject.dir.path().join("away");
    fs::rename(&subject.storage, &away).unwrap();
    if let Some(worker) = hsm.health().worker {
        signal(worker, "KILL"); // kryoptic goes on from memory until its process ends
    }
    let health = wait(&hsm, State::Down);
    assert!(health.last_error.is_some());
    let begun = Instant::now();
    let error = hsm.open(&blob, b"c").unwrap_err();
    assert!(
        matches!(
            error.kind,
            ErrorKind::Device | ErrorKind::Unavailable | ErrorKind::KeyMissing
        ),
        "{error:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(8), "bounded by the deadline");
    let _ = fs::remove_dir_all(&subject.storage); // what the module made in its place
    let _ = fs::remove_file(&subject.storage);
    fs::rename(&away, &subject.storage).unwrap();
    assert_eq!(*until_ok(|| hsm.open(&blob, b"c")), *seed(3));
    wait(&hsm, State::Up);
}

/// R-SEAL-6: a killed worker costs a call nothing but time.
pub fn worker_killed(subject: Subject) {
    let (hsm, ring) = subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(4)).unwrap();
    let spawns = hsm.health().spawns;
    for round in 1..4 {
        signal(hsm.health().worker.unwrap(), "KILL");
        assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(4));
        assert_eq!(hsm.health().spawns, spawns + round);
    }
    // What cannot be repeated is not tried on a dead worker.
    signal(hsm.health().worker.unwrap(), "KILL");
    hsm.create(&ring, 2, KeyKind::Kek).unwrap();
}

/// R-SEAL-6: a hung worker is killed at the deadline and replaced; the queue behind it is bounded.
pub fn worker_hung(mut subject: Subject) {
    subject.config.deadlines.call = Duration::from_secs(1);
    let (hsm, ring) = subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(5)).unwrap();
    let worker = hsm.health().worker.unwrap();
    signal(worker, "STOP");
    let begun = Instant::now();
    let crowd: Vec<_> = (0..QUEUE_MAX + 8)
        .map(|_| {
            let (hsm, blob) = (hsm.clone(), blob.clone());
            std::thread::spawn(move || hsm.open(&blob, b"c").map(|_| ()).map_err(|e| e.kind))
        })
        .collect();
    let answers: Vec<_> = crowd.into_iter().map(|t| t.join().unwrap()).collect();
    assert!(begun.elapsed() < Duration::from_secs(6));
    assert!(answers.contains(&Err(ErrorKind::Timeout)), "{answers:?}");
    assert!(answers.contains(&Err(ErrorKind::Busy)), "{answers:?}");
    assert!(!alive(worker));
    assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(5));
}

/// R-SEAL-6, THREAT: the PIN is in no process's arguments or environment, and the worker is closed to its own user.
pub fn pin_is_in_no_process(subject: Subject) {
    let (hsm, _) = subject.start_with_kek();
    let worker = hsm.health().worker.unwrap();
    let pin = fs::read_to_string(subject.pin_file()).unwrap();
    let pin = pin.trim().as_bytes();
    let holds = |bytes: &[u8]| bytes.windows(pin.len()).any(|w| w == pin);
    let mut seen = false;
    for process in fs::read_dir("/proc").unwrap() {
        let process = process.unwrap();
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        for file in ["cmdline", "environ"] {
            // Gone meanwhile, or not ours to read: then it cannot be a process of this test.
            let Ok(bytes) = fs::read(process.path().join(file)) else {
                continue;
            };
            assert!(!holds(&bytes), "{pid} {file}");
            seen |= pid == worker && file == "cmdline" && !bytes.is_empty();
        }
    }
    assert!(seen, "the worker was looked at");
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"));
    assert!(status.contains("Threads:\t1\n"), "one thread");
    let limits = fs::read_to_string(format!("/proc/{worker}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

/// R-SEAL-4: sealing ends the worker and what it held; the next use starts another.
pub fn stop_and_start(subject: Subject) {
    let (hsm, ring) = subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(6)).unwrap();
    let worker = hsm.health().worker.unwrap();
    hsm.stop();
    assert!(!alive(worker));
    let health = hsm.health();
    assert_eq!((health.state, health.worker), (State::Stopped, None));
    hsm.stop();
    assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(6));
    let worker = wait(&hsm, State::Up).worker.unwrap();
    drop(hsm);
    let end = Instant::now() + Duration::from_secs(5);
    while alive(worker) {
        assert!(Instant::now() < end, "the last handle ends the worker");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The product's way: the supervisor starts workers, and ends with the daemon's end of its socket.
pub fn supervised(mut subject: Subject) {
    let tokens = [subject.config.clone()];
    subject.launcher = Launcher::supervised(&subject.program, &["hsm-supervisor"], &tokens).unwrap();
    let pids = subject.launcher.supervisor_pids();
    let [supervisor, spare] = pids[..] else {
        panic!("two of them: {pids:?}")
    };
    let (hsm, ring) = subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(7)).unwrap();
    let first = hsm.health().worker.unwrap();
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(status.contains(&format!("PPid:\t{supervisor}\n")), "{status}");
    signal(first, "KILL");
    assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(7));
    let second = hsm.health().worker.unwrap();
    assert_ne!(first, second);
    hsm.stop();
    assert!(!alive(second));
    assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(7));

    let mut stranger = subject.config.clone();
    stranger.name = "stranger".into();
    let other = Hsm::start(stranger, subject.launcher.clone()).unwrap();
    assert_eq!(
        wait(&other, State::Down).last_error.unwrap().kind,
        ErrorKind::Invalid,
        "not in the table"
    );

    let last = hsm.health().worker.unwrap();
    let begun = Instant::now();
    drop((hsm, other, subject.launcher));
    let end = begun + Duration::from_secs(3); // before anybody kills it
    while alive(supervisor) || running(spare) || running(last) {
        assert!(Instant::now() < end, "supervisor and worker end with the daemon");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// R-SEAL-6: a killed supervisor takes its workers along, and the one that waited takes its place, as often as it happens; if both are killed
/// at once, the daemon's calls fail in time and say what to do.
pub fn supervisor_killed(mut subject: Subject) {
    let tokens = [subject.config.clone()];
    subject.launcher = Launcher::supervised(&subject.program, &["hsm-supervisor"], &tokens).unwrap();
    let (hsm, ring) = subject.start_with_kek();
    let killed = |which: &[usize]| {
        let (pids, worker) = (subject.launcher.supervisor_pids(), hsm.health().worker.unwrap());
        which.iter().for_each(|at| signal(pids[*at], "KILL"));
        let end = Instant::now() + Duration::from_secs(5);
        while which.contains(&0) && running(worker) {
            assert!(Instant::now() < end, "the worker ends with its supervisor");
            std::thread::sleep(Duration::from_millis(10));
        }
        pids
    };
    for _ in 0..3 {
        let before = killed(&[0]);
        until_ok(|| hsm.list(&ring));
        let after = subject.launcher.supervisor_pids();
        assert_eq!((after.len(), after[0]), (2, before[1]));
        assert!(!running(before[0]), "it is reaped");
    }
    let before = killed(&[1]);
    signal(hsm.health().worker.unwrap(), "KILL");
    until_ok(|| hsm.list(&ring));
    let after = subject.launcher.supervisor_pids();
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1], "one that waited and was killed is replaced");
    killed(&[0, 1]);
    let begun = Instant::now();
    let error = hsm.list(&ring).unwrap_err();
    assert!(error.detail.contains("supervisor"), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(hsm.health().state, State::Down);
}

/// Landlock, when asked for: the token works inside it, and outside it does not.
pub fn landlocked(mut subject: Subject) {
    let Some(dir) = subject.storage.parent() else {
        panic!("storage")
    };
    subject.config.landlock_paths = vec![dir.to_owned()];
    let (hsm, ring) = subject.start_with_kek();
    let blob = hsm.seal(&ring, 1, b"c", &seed(8)).unwrap();
    assert_eq!(*hsm.open(&blob, b"c").unwrap(), *seed(8));
    drop(hsm);
    let elsewhere = tempfile::tempdir().unwrap();
    subject.config.landlock_paths = vec![elsewhere.path().to_owned()];
    let shut_out = subject.start();
    assert!(
        shut_out.open(&blob, b"c").is_err(),
        "the token's directory is not among the paths"
    );
}

/// A token that locks: the last tries are not spent by us, and a locked PIN is told apart. Tokens that never lock
/// have nothing to show here (their flags and return values are tried with the faulty module).
pub fn locked_pin(mut subject: Subject) {
    let Some(tries) = subject.locks_after else { return };
    let right = subject.config.pin.clone();
    subject.wrong_pin();
    let hsm = subject.start();
    let mut kinds = Vec::new();
    for _ in 0..=tries {
        kinds.push(wait(&hsm, State::Held).last_error.unwrap().kind);
        let spawns = hsm.health().spawns;
        hsm.forgive_pin();
        let end = Instant::now() + Duration::from_secs(10);
        while hsm.health().spawns == spawns || hsm.health().worker.is_some() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(kinds[0], ErrorKind::AuthFailed);
    let health = wait(&hsm, State::Held);
    assert_eq!(health.last_error.unwrap().kind, ErrorKind::AuthLocked, "{kinds:?}");
    drop(hsm);
    // The right PIN is not even tried: the record, and the token's own flag, hold it back.
    subject.config.pin = right;
    let hsm = subject.start();
    let health = wait(&hsm, State::Held);
    assert_eq!(health.last_error.unwrap().kind, ErrorKind::AuthHeld);
    assert!(health.pin.locked);
    hsm.forgive_pin();
    let end = Instant::now() + Duration::from_secs(10);
    while hsm.health().last_error.is_none_or(|e| e.kind != ErrorKind::AuthLocked) {
        assert!(Instant::now() < end, "{:?}", hsm.health());
        std::thread::sleep(Duration::from_millis(10));
    }
}
