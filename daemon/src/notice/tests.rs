use super::*;
use futures::FutureExt;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn path(text: &str) -> Topic {
    Topic::Path(Path::parse(text).unwrap())
}

fn owner(number: u8) -> IdentityId {
    IdentityId::from_bytes([number; 16])
}

fn always() -> Welcome {
    Box::new(|| true)
}

/// All that a watcher has to hear now.
fn heard(watcher: &mut Watcher) -> Vec<Call> {
    std::iter::from_fn(|| watcher.next().now_or_never()).collect()
}

/// R-KV-4: only who asked hears of it, once, however often it was posted; a slow watcher costs a bit an item.
#[tokio::test]
async fn the_concerned_hear_once() {
    let notices = Arc::new(Notices::default());
    let mut both = notices
        .watch(owner(1), vec![path("kv/a"), path("kv/b")], always())
        .unwrap();
    let mut one = notices.watch(owner(2), vec![path("kv/b")], always()).unwrap();
    for _ in 0..1000 {
        notices.post([path("kv/a"), path("kv/nobody")]);
        notices.tell().await;
    }
    assert_eq!(heard(&mut both), [Call::Item(0)]);
    assert_eq!(heard(&mut one), []);
    notices.post([path("kv/b")]);
    notices.tell().await;
    assert_eq!(heard(&mut both), [Call::Item(1)]);
    assert_eq!(heard(&mut one), [Call::Item(0)]);
    assert_eq!(notices.table.lock().posted.len(), 0);
    drop((both, one));
    let table = notices.table.lock();
    assert!(table.topics.is_empty() && table.watchers.is_empty() && table.owners.is_empty() && table.alarms.is_empty());
}

/// R-KV-4: thousands are told in turns, all of them.
#[tokio::test]
async fn a_crowd_is_told() {
    let notices = Arc::new(Notices::default());
    let mut crowd: Vec<_> = (0..3000)
        .map(|_| notices.watch(owner(1), vec![path("kv/a")], always()).unwrap())
        .collect();
    notices.post([path("kv/a")]);
    notices.tell().await;
    assert!(crowd.iter_mut().all(|watcher| heard(watcher) == [Call::Item(0)]));
}

#[tokio::test]
async fn alarms_ring_in_time_and_can_be_moved() {
    let notices = Arc::new(Notices::default());
    let task = tokio::spawn(Arc::clone(&notices).run());
    let began = Instant::now();
    let mut watcher = notices
        .watch(owner(1), vec![path("kv/a"), path("kv/b")], always())
        .unwrap();
    let millis = |millis| Some(began + Duration::from_millis(millis));
    watcher.alarm(0, millis(60_000));
    watcher.alarm(1, millis(200));
    watcher.alarm(0, millis(100));
    assert_eq!(watcher.next().await, Call::Item(0));
    assert!(began.elapsed() >= Duration::from_millis(100));
    watcher.alarm(1, None);
    watcher.alarm(0, millis(400));
    assert_eq!(watcher.next().await, Call::Item(0));
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "the other alarm was taken back"
    );
    assert!(notices.table.lock().alarms.is_empty());
    task.abort();
}

/// R-KV-4: who may not watch any more is told within seconds; at the end everybody is.
#[tokio::test]
async fn the_unwelcome_are_told_and_all_at_the_end() {
    let notices = Arc::new(Notices::default());
    let task = tokio::spawn(Arc::clone(&notices).run());
    let mut welcome = notices.watch(owner(1), vec![path("kv/a")], always()).unwrap();
    let mut unwelcome = notices.watch(owner(1), vec![path("kv/a")], Box::new(|| false)).unwrap();
    assert_eq!(unwelcome.next().await, Call::Doubt);
    assert_eq!(heard(&mut welcome), []);
    notices.close();
    assert_eq!(welcome.next().await, Call::Closed);
    assert_eq!(notices.watch(owner(1), Vec::new(), always()).err(), Some(Full::Closed));
    task.abort();
}

/// R-KV-4: bounded, and one identity cannot take every place.
#[test]
fn places_are_bounded() {
    let notices = Arc::new(Notices::default());
    let watch = |who| notices.watch(owner(who), Vec::new(), always());
    let mut seats: Vec<_> = (0..WATCHERS_OF_ONE_MAX).map(|_| watch(1).unwrap()).collect();
    assert_eq!(watch(1).err(), Some(Full::Identity));
    seats.extend((0..WATCHERS_MAX - WATCHERS_OF_ONE_MAX).map(|_| watch(2).unwrap()));
    assert_eq!(watch(3).err(), Some(Full::Everywhere));
    seats.pop();
    assert!(watch(3).is_ok());
}

proptest! {
    /// R-KV-4: whatever is marked is heard of, each item once, and none is passed over for another.
    #[test]
    fn items_take_turns(marks in prop::collection::vec(0_usize..ITEMS_MAX, 0..200)) {
        let notices = Arc::new(Notices::default());
        let topics = (0..ITEMS_MAX).map(|item| path(&format!("kv/{item}"))).collect();
        let mut watcher = notices.watch(owner(1), topics, always()).unwrap();
        let mut waiting = BTreeSet::new();
        for item in marks {
            watcher.mark(item);
            waiting.insert(item);
            if waiting.len() > 3 {
                let Some(Call::Item(heard)) = watcher.next().now_or_never() else {
                    return Err(TestCaseError::fail("something was marked"));
                };
                prop_assert!(waiting.remove(&heard));
            }
        }
        let rest: BTreeSet<_> = heard(&mut watcher).into_iter().collect::<Vec<_>>().iter().filter_map(|call| match call {
            Call::Item(item) => Some(*item),
            Call::Doubt | Call::Closed => None,
        }).collect();
        prop_assert_eq!(rest, waiting);
    }
}
