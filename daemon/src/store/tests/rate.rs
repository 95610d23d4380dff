//! A measurement, not a judgement: durable commits a second with one record of evidence each. Shown by `--nocapture`.

use super::*;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_a_second() {
    for (kind, clients, rounds) in [
        (EngineKind::Fjall, 1, 200u32),
        (EngineKind::Fjall, 64, 40),
        (EngineKind::Sled, 1, 50),
        (EngineKind::Sled, 64, 10),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(kind, dir.path());
        let store = init(&disk, Algorithm::default()).await;
        let view = store.view(Namespace::ROOT, Table::KvValue);
        let start = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client: u32| {
                let (store, view) = (store.clone(), view.clone());
                tokio::spawn(async move {
                    for round in 0..rounds {
                        let mut change = Change::new();
                        change.put(
                            &view,
                            &[
                                Part::Raw(&client.to_be_bytes()),
                                Part::Name("name"),
                                Part::Raw(&round.to_be_bytes()),
                            ],
                            value(&[7; 1024]),
                        );
                        store.commit(change, vec![evidence("put")]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let rate = f64::from(clients * rounds) / start.elapsed().as_secs_f64();
        println!("{} x{clients}: {rate:.0} commits/s", kind.name());
        let (start, reads) = (Instant::now(), 2_000);
        for _ in 0..reads {
            view.get(&[Part::Raw(&[0; 4]), Part::Name("name"), Part::Raw(&[0; 4])])
                .await
                .unwrap()
                .unwrap();
        }
        println!(
            "{}: {:.2} us a hot read",
            kind.name(),
            start.elapsed().as_secs_f64() * 1e6 / f64::from(reads)
        );
        disk.close();
    }
}
