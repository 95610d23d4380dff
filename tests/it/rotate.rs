//! Keys rotate online. R-SEAL-5.

use crate::{
    seal::Load,
    world::{World, value},
};
use strongroom_tests::Lab;

/// R-SEAL-5: KEK, root key and data keys rotate while requests go on and none fails; what was written before stays readable, also after a
/// seal, and after a kill in the middle of re-encryption.
#[tokio::test(flavor = "multi_thread")]
async fn all_keys_rotate_under_load() {
    let mut world = World::sealed(Lab::new(), &["daily=hsm+quorum:2/3", "glass=quorum:2/3"]);
    world.unseal("daily");
    let cli = world.cli();
    cli.ok(&["mount", "enable", "kv", "--kind", "kv"]);
    let client = world.client().await;
    for n in 0..50 {
        client
            .put(&format!("kv/old/{n}"), &value(&format!("old {n}")), None)
            .await
            .unwrap();
    }
    let load = Load::start(&world);
    let generation = |key: &str| cli.json(&["operator", "rotate", key])["generation"].as_u64().unwrap();
    for key in ["data", "root", "hsm"] {
        let first = generation(key);
        assert_eq!(generation(key), first + 1, "{key}");
    }
    load.none_failed();
    let readable = |client: strongroom_client::Client| async move {
        for n in 0..50 {
            let read = client.get(&format!("kv/old/{n}")).await.unwrap();
            assert_eq!(read.field("value").unwrap().expose(), format!("old {n}").as_bytes());
        }
    };
    readable(client.clone()).await;
    cli.ok(&["operator", "seal"]);
    world.unseal("glass");
    readable(client.clone()).await;
    generation("data");
    world.take_daemon().kill9();
    world.start();
    world.unseal("daily");
    readable(world.client().await).await;
    let verified = cli.run(&["operator", "slots", "verify", "--slot", "glass"]);
    assert_ne!(verified.code, 0, "no share, no proof");
}
