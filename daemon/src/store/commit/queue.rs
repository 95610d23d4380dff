//! The committer's queue: three lanes, each bounded, and how a group is taken from them.

use crate::store::{
    batch::{Answer, Batch, Lane},
    error::CommitError,
};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use strongroom_audit::FRAME_BODY_BYTES_MAX;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

/// Batches waiting in the urgent, normal and bulk lane; further callers wait before they enter.
const LANE_BATCHES_MAX: [usize; 3] = [1024, 4096, 32];
/// Batches of one group.
const GROUP_BATCHES_MAX: usize = 1024;
/// Bytes of one group, unless a single batch is larger.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// How often a stalled engine is asked again while only bulk waits.
const STALL_POLL: Duration = Duration::from_millis(5);

pub(super) struct Item {
    pub batch: Batch,
    pub answer: oneshot::Sender<Answer>,
    /// Gives the place in the lane back when the item is taken.
    pub place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Lanes {
    lanes: [VecDeque<Item>; 3],
    closed: bool,
    /// A [`Signal`] is on its way.
    signalled: bool,
    /// The signal has come: what is queued may be taken.
    ready: bool,
    /// So that bulk gets its turn between two groups of the other lanes.
    bulk_next: bool,
}

impl Lanes {
    /// The urgent and the normal lane go together; bulk alone, in its turn, and only when the engine would not stall.
    fn take(&mut self, bytes_max: usize, takes_bulk: impl Fn() -> bool) -> Option<Vec<Item>> {
        let Self {
            lanes: [urgent, normal, bulk],
            closed,
            bulk_next,
            ..
        } = self;
        let others = !urgent.is_empty() || !normal.is_empty();
        if !bulk.is_empty() && (!others || *bulk_next) && (*closed || takes_bulk()) {
            *bulk_next = false;
            return Some(group(&mut [bulk], bytes_max));
        }
        if !others {
            return None;
        }
        *bulk_next = urgent.is_empty();
        Some(group(&mut [urgent, normal], bytes_max))
    }

    fn any(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty())
    }
}

pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    filled: Condvar,
    /// Of the callers; known from the first batch on.
    runtime: OnceLock<Handle>,
    places: [Arc<Semaphore>; 3],
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Normal => 1,
        Lane::Bulk => 2,
    }
}

/// Tells the committer, when dropped, that it may take a group. The first batch of a group sends it behind every task that is ready now, so that
/// their batches come along: a group costs a sync and several thread switches, whatever is in it. No timer, and nothing to tune.
struct Signal(Arc<Queue>);

impl Drop for Signal {
    fn drop(&mut self) {
        let mut lanes = self.0.lanes.lock();
        (lanes.signalled, lanes.ready) = (false, lanes.any());
        drop(lanes);
        self.0.filled.notify_one();
    }
}

impl Queue {
    pub fn new() -> Self {
        let places = LANE_BATCHES_MAX.map(|max| Arc::new(Semaphore::new(max)));
        Self {
            lanes: Mutex::default(),
            filled: Condvar::new(),
            runtime: OnceLock::new(),
            places,
        }
    }

    /// Waits for a place, then for the answer. Dropping the caller after it has entered does not stop the batch.
    pub async fn submit(self: &Arc<Self>, batch: Batch) -> Answer {
        let lane = index(batch.lane);
        let Ok(place) = self.places[lane].clone().acquire_owned().await else {
            return Err(CommitError::Closed);
        };
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut lanes = self.lanes.lock();
            if lanes.closed {
                return Err(CommitError::Closed);
            }
            lanes.lanes[lane].push_back(Item { batch, answer, place });
            !std::mem::replace(&mut lanes.signalled, true)
        };
        if first {
            self.signal(self.runtime.get_or_init(Handle::current));
        }
        answered.await.unwrap_or(Err(CommitError::Closed))
    }

    /// No new batches; those that wait are still made.
    pub fn close(&self) {
        self.lanes.lock().closed = true;
        self.places.iter().for_each(|places| places.close());
        self.filled.notify_all();
    }

    /// Batches waiting now.
    pub fn depth(&self) -> usize {
        self.lanes.lock().lanes.iter().map(VecDeque::len).sum()
    }

    /// Sends a [`Signal`] behind the tasks that are ready now.
    fn signal(self: &Arc<Self>, runtime: &Handle) {
        let signal = Signal(Arc::clone(self));
        runtime.spawn(async move {
            tokio::task::yield_now().await;
            drop(signal);
        });
    }

    /// The next group, or an empty one at `due`; waits for one, and lets those whom the last group answered go first. `None` when the queue is closed and empty.
    pub fn take(
        self: &Arc<Self>,
        bytes_max: usize,
        due: Option<Instant>,
        takes_bulk: impl Fn() -> bool,
    ) -> Option<Vec<Item>> {
        let bytes_max = bytes_max.min(GROUP_BYTES_MAX);
        let mut lanes = self.lanes.lock();
        if lanes.any()
            && let Some(runtime) = self.runtime.get()
        {
            lanes.ready = false;
            if !std::mem::replace(&mut lanes.signalled, true) {
                // Unlocked: a runtime that has shut down drops the signal at once.
                MutexGuard::unlocked(&mut lanes, || self.signal(runtime));
            }
        }
        loop {
            if !lanes.ready && !lanes.closed {
                match due {
                    None => self.filled.wait(&mut lanes),
                    Some(due) if self.filled.wait_until(&mut lanes, due).timed_out() => return Some(Vec::new()),
                    Some(_) => {}
                }
                continue;
            }
            if let Some(group) = lanes.take(bytes_max, &takes_bulk) {
                return Some(group);
            }
            match (lanes.any(), lanes.closed) {
                (false, true) => return None,
                (false, false) => lanes.ready = false,
                (true, _) if due.is_some_and(|due| due <= Instant::now()) => return Some(Vec::new()),
                (true, _) => drop(self.filled.wait_for(&mut lanes, STALL_POLL)),
            }
        }
    }
}

fn group(lanes: &mut [&mut VecDeque<Item>], bytes_max: usize) -> Vec<Item> {
    let (mut taken, mut bytes, mut audit) = (Vec::new(), 0, 0);
    for lane in lanes {
        while let Some(item) = lane.front() {
            (bytes, audit) = (bytes + item.batch.weight(), audit + item.batch.audit_weight());
            let fits = bytes <= bytes_max && audit <= FRAME_BODY_BYTES_MAX && taken.len() < GROUP_BATCHES_MAX;
            if !taken.is_empty() && !fits {
                return taken;
            }
            taken.extend(lane.pop_front());
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::OpId;
    use bytes::Bytes;

    fn batch(lane: Lane, tag: u8, key_bytes: usize) -> Batch {
        let writes = vec![(Bytes::from(vec![tag; key_bytes]), None)];
        Batch {
            op: OpId::from_bytes([tag; 16]),
            lane,
            conditions: Vec::new(),
            writes,
            audit: Vec::new(),
            then: Vec::new(),
            relaxed: false,
            tending: false,
        }
    }

    /// Queues them in order; those beyond a full lane wait.
    async fn fill(queue: &Arc<Queue>, batches: Vec<Batch>) {
        for batch in batches {
            let (lane, before) = (index(batch.lane), queue.depth());
            let full = queue.places[lane].available_permits() == 0;
            let entering = queue.clone();
            drop(tokio::spawn(async move { drop(entering.submit(batch).await) }));
            while !full && queue.depth() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn tags(group: &[Item]) -> Vec<u8> {
        group.iter().map(|item| item.batch.op.as_bytes()[0]).collect()
    }

    /// Urgent goes first; bulk goes alone, in its turn, and only when the engine would not stall.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn lanes() {
        let queue = Arc::new(Queue::new());
        let queued = [
            (Lane::Bulk, 1),
            (Lane::Normal, 2),
            (Lane::Urgent, 3),
            (Lane::Bulk, 4),
            (Lane::Normal, 5),
        ];
        fill(&queue, queued.map(|(lane, tag)| batch(lane, tag, 10)).into()).await;
        assert_eq!(tags(&queue.take(1000, None, || true).unwrap()), [3, 2, 5]);
        fill(&queue, vec![batch(Lane::Normal, 6, 10), batch(Lane::Normal, 7, 10)]).await;
        assert_eq!(
            tags(&queue.take(1000, None, || false).unwrap()),
            [6, 7],
            "bulk waits while the engine would stall"
        );
        assert_eq!(tags(&queue.take(1000, None, || true).unwrap()), [1, 4]);
        fill(&queue, vec![batch(Lane::Normal, 8, 10), batch(Lane::Bulk, 9, 10)]).await;
        assert_eq!(tags(&queue.take(1000, None, || true).unwrap()), [8]);
        fill(&queue, vec![batch(Lane::Normal, 10, 10)]).await;
        assert_eq!(
            tags(&queue.take(1000, None, || true).unwrap()),
            [9],
            "bulk has its turn"
        );
        assert_eq!(tags(&queue.take(1000, None, || true).unwrap()), [10]);
        queue.close();
        assert!(queue.take(1000, None, || true).is_none());
    }

    /// A group ends at its bytes; one batch that is larger goes alone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn groups_are_bounded() {
        let queue = Arc::new(Queue::new());
        fill(&queue, (1..=4).map(|tag| batch(Lane::Normal, tag, 400)).collect()).await;
        fill(&queue, vec![batch(Lane::Normal, 5, 4000), batch(Lane::Normal, 6, 10)]).await;
        let groups: Vec<_> = (0..4)
            .map(|_| tags(&queue.take(1000, None, || true).unwrap()))
            .collect();
        assert_eq!(groups, [vec![1, 2], vec![3, 4], vec![5], vec![6]]);
    }

    /// A full lane makes its callers wait, and no other lane's.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_full_lane_waits() {
        let queue = Arc::new(Queue::new());
        fill(&queue, (0..40).map(|tag| batch(Lane::Bulk, tag, 10)).collect()).await;
        assert_eq!(queue.depth(), LANE_BATCHES_MAX[2]);
        fill(&queue, vec![batch(Lane::Urgent, 99, 10)]).await;
        assert_eq!(tags(&queue.take(1000, None, || true).unwrap()), [99]);
    }
}
