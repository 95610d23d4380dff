//! More than the daemon takes at once.

use crate::world::{World, value};
use std::time::Duration;
use strongroom_client::v1;
use strongroom_tests::Lab;
use tonic::Code;
use tonic_types::StatusExt;

/// Past the limit of requests in flight callers hear RESOURCE_EXHAUSTED with a time to try again; what frees things has a lane of its own;
/// service goes on afterwards, and the library waits by itself.
#[tokio::test(flavor = "multi_thread")]
async fn overload_is_told_and_passes() {
    let mut lab = Lab::with_tokens(&[]);
    lab.extra = "[limits]\nrequests_max = 2\n".to_owned();
    let world = World::opened(lab);
    let client = world.client().await;
    let fields = || [("value".to_owned(), bytes::Bytes::from(vec![b'x'; 200 << 10]))].into();
    let flood: Vec<_> = (0..64)
        .map(|n| {
            let client = client.clone();
            let request = v1::KvPutRequest {
                path: format!("kv/flood/{n}"),
                fields: fields(),
                ..Default::default()
            };
            tokio::spawn(async move { client.stubs().kv().put(request).await.map(drop) })
        })
        .collect();
    let renewed = client.renew_token(None).await;
    let (mut done, mut refused) = (0, 0);
    for put in flood {
        match put.await.unwrap() {
            Ok(()) => done += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                assert_eq!(status.get_details_error_info().unwrap().reason, "OVERLOADED");
                let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
                assert!(after.is_some_and(|after| after > Duration::ZERO), "{status:?}");
                refused += 1;
            }
        }
    }
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    renewed.expect("renewing has its own lane");
    client.put("kv/after", &value("x"), None).await.unwrap();
    assert!(world.daemon().metrics().contains("overload"), "it is counted");
}
