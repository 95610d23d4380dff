//! The committer's queue: three lanes, each bounded, and how a group is taken from them.

use crate::store::{
    batch::{Answer, Batch, Lane},
    error::CommitError,
};
use parking_lot::{Condvar, Mutex};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use strongroom_audit::FRAME_BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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
    /// So that bulk gets its turn between two groups of the other lanes.
    bulk_next: bool,
}

pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    filled: Condvar,
    places: [Arc<Semaphore>; 3],
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Normal => 1,
        Lane::Bulk => 2,
    }
}

impl Queue {
    pub fn new() -> Self {
        let places = LANE_BATCHES_MAX.map(|max| Arc::new(Semaphore::new(max)));
        Self {
            lanes: Mutex::default(),
            filled: Condvar::new(),
            places,
        }
    }

    /// Waits for a place, then for the answer. Dropping the caller after it has entered does not stop the batch.
    pub async fn submit(&self, batch: Batch) -> Answer {
        let lane = index(batch.lane);
        let Ok(place) = self.places[lane].clone().acquire_owned().await else {
            return Err(CommitError::Closed);
        };
        let (answer, answered) = oneshot::channel();
        {
            let mut lanes = self.lanes.lock();
            if lanes.closed {
                return Err(CommitError::Closed);
            }
            lanes.lanes[lane].push_back(Item { batch, answer, place });
        }
        self.filled.notify_one();
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

    /// The next group; waits for one. `None` when the queue is closed and empty.
    pub fn take(&self, bytes_max: usize, takes_bulk: impl Fn() -> bool) -> Option<Vec<Item>> {
        let bytes_max = bytes_max.min(GROUP_BYTES_MAX);
        let mut lanes = self.lanes.lock();
        loop {
            let Lanes {
                lanes: [urgent, normal, bulk],
                closed,
                bulk_next,
            } = &mut *lanes;
            let others = !urgent.is_empty() || !normal.is_empty();
            if !bulk.is_empty() && (!others || *bulk_next) && (*closed || takes_bulk()) {
                *bulk_next = false;
                return Some(group(&mut [bulk], bytes_max));
            }
            if others {
                *bulk_next = urgent.is_empty();
                return Some(group(&mut [urgent, normal], bytes_max));
            }
            match (bulk.is_empty(), *closed) {
                (true, true) => return None,
                (true, false) => self.filled.wait(&mut lanes),
                (false, _) => drop(self.filled.wait_for(&mut lanes, STALL_POLL)),
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
        }
    }

    async fn fill(queue: &Arc<Queue>, batches: Vec<Batch>) {
        for batch in batches {
            let queue = queue.clone();
            drop(tokio::spawn(async move { drop(queue.submit(batch).await) }));
            tokio::task::yield_now().await;
        }
    }

    fn tags(group: &[Item]) -> Vec<u8> {
        group.iter().map(|item| item.batch.op.as_bytes()[0]).collect()
    }

    /// Urgent goes first; bulk goes alone, in its turn, and only when the engine would not stall.
    #[tokio::test]
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
        assert_eq!(tags(&queue.take(1000, || true).unwrap()), [3, 2, 5]);
        fill(&queue, vec![batch(Lane::Normal, 6, 10), batch(Lane::Normal, 7, 10)]).await;
        assert_eq!(
            tags(&queue.take(1000, || false).unwrap()),
            [6, 7],
            "bulk waits while the engine would stall"
        );
        assert_eq!(tags(&queue.take(1000, || true).unwrap()), [1, 4]);
        fill(&queue, vec![batch(Lane::Normal, 8, 10), batch(Lane::Bulk, 9, 10)]).await;
        assert_eq!(tags(&queue.take(1000, || true).unwrap()), [8]);
        fill(&queue, vec![batch(Lane::Normal, 10, 10)]).await;
        assert_eq!(tags(&queue.take(1000, || true).unwrap()), [9], "bulk has its turn");
        assert_eq!(tags(&queue.take(1000, || true).unwrap()), [10]);
        queue.close();
        assert!(queue.take(1000, || true).is_none());
    }

    /// A group ends at its bytes; one batch that is larger goes alone.
    #[tokio::test]
    async fn groups_are_bounded() {
        let queue = Arc::new(Queue::new());
        fill(&queue, (1..=4).map(|tag| batch(Lane::Normal, tag, 400)).collect()).await;
        fill(&queue, vec![batch(Lane::Normal, 5, 4000), batch(Lane::Normal, 6, 10)]).await;
        let groups: Vec<_> = (0..4).map(|_| tags(&queue.take(1000, || true).unwrap())).collect();
        assert_eq!(groups, [vec![1, 2], vec![3, 4], vec![5], vec![6]]);
    }

    /// A full lane makes its callers wait, and no other lane's.
    #[tokio::test]
    async fn a_full_lane_waits() {
        let queue = Arc::new(Queue::new());
        fill(&queue, (0..40).map(|tag| batch(Lane::Bulk, tag, 10)).collect()).await;
        assert_eq!(queue.depth(), LANE_BATCHES_MAX[2]);
        fill(&queue, vec![batch(Lane::Urgent, 99, 10)]).await;
        assert_eq!(tags(&queue.take(1000, || true).unwrap()), [99]);
    }
}
