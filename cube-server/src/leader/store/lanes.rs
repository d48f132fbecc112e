//! Who waits for the writer, in lanes that take turns, so that masses of one kind don't hold up another.
//!
//! Of 5,000 nodes each may have a report waiting; in one queue the scheduler's next thousand pods, and a person's apply of one, would stand behind
//! them all. Each commit is of one lane. What people ask for one by one goes before each commit of the others, which then take turns. Nodes have fewer
//! of them: what waits to be placed runs nowhere, and a node whose report waits tells more in the next one.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::StoreError;
use super::writer::Work;

/// What comes in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Single requests of people.
    People,
    /// What the leader's loops decided.
    Loops,
    /// Applies of many resources.
    Bulk,
    /// Joins and reports.
    Nodes,
}

/// An apply of more resources than this is one of many.
pub(super) const FEW: usize = 16;

const LANES: [Lane; 4] = [Lane::People, Lane::Loops, Lane::Bulk, Lane::Nodes];

/// The turns of the lanes but people's, for ever. A lane in which nothing waits is passed over.
const TURNS: [Lane; 6] = [Lane::Loops, Lane::Bulk, Lane::Loops, Lane::Bulk, Lane::Loops, Lane::Nodes];

impl Lane {
    /// How many may wait: each is small, but for the bulk, of which the API lets 32 in at a time. Of nodes one for each and some more: 5,000 come
    /// back at once to a leader that was restarted.
    fn places(self) -> usize {
        match self {
            Self::People | Self::Loops => 1_024,
            Self::Bulk => 64,
            Self::Nodes => 8_192,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::People => 0,
            Self::Loops => 1,
            Self::Bulk => 2,
            Self::Nodes => 3,
        }
    }
}

/// The entrance.
pub(super) struct Entrance {
    queue: mpsc::UnboundedSender<Queued>,
    places: [Arc<Semaphore>; 4],
}

/// Work in its lane, with its place there until it is taken.
pub(super) struct Queued {
    lane: Lane,
    work: Work,
    _place: OwnedSemaphorePermit,
}

/// The entrance, and where the writer finds what came through it.
pub(super) fn open() -> (Entrance, mpsc::UnboundedReceiver<Queued>) {
    let (queue, waiting) = mpsc::unbounded_channel();
    (Entrance { queue, places: LANES.map(|lane| Arc::new(Semaphore::new(lane.places()))) }, waiting)
}

impl Entrance {
    /// Lets work in; refused where its lane is full, or nobody takes any more.
    pub(super) fn enter(&self, lane: Lane, work: Work) -> Result<(), StoreError> {
        let place = self.places[lane.index()].clone().try_acquire_owned().map_err(|_| StoreError::Busy)?;
        self.queue.send(Queued { lane, work, _place: place }).map_err(|_| StoreError::Closed)
    }

    /// How much waits, and how much may.
    pub(super) fn figures(&self) -> (usize, usize) {
        let most = LANES.into_iter().map(Lane::places).sum::<usize>();
        (most - self.places.iter().map(|places| places.available_permits()).sum::<usize>(), most)
    }
}

/// What waits for the writer.
pub(super) struct Lanes {
    waiting: [VecDeque<Queued>; 4],
    /// Whether the last turn was people's.
    people_were_last: bool,
    /// Which of the [`TURNS`] was the last.
    last: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { waiting: Default::default(), people_were_last: false, last: TURNS.len() - 1 }
    }
}

impl Lanes {
    pub(super) fn push(&mut self, queued: Queued) {
        self.waiting[queued.lane.index()].push_back(queued);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// The lane whose turn it is; none where nothing waits.
    pub(super) fn next(&mut self) -> Option<Turn<'_>> {
        let people = Lane::People.index();
        let mut in_turn = (1..=TURNS.len()).map(|step| (self.last + step) % TURNS.len());
        let other = in_turn.find(|turn| !self.waiting[TURNS[*turn].index()].is_empty());
        let lane = match other {
            Some(turn) if self.people_were_last || self.waiting[people].is_empty() => {
                self.last = turn;
                TURNS[turn].index()
            }
            Some(_) | None => people,
        };
        self.people_were_last = lane == people;
        let turn = Turn { waiting: &mut self.waiting[lane] };
        (!turn.waiting.is_empty()).then_some(turn)
    }
}

/// What waits in the lane whose turn it is.
pub(super) struct Turn<'a> {
    waiting: &'a mut VecDeque<Queued>,
}

impl Iterator for Turn<'_> {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        self.waiting.pop_front().map(|queued| queued.work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(lanes: &mut Lanes, lane: Lane, number: i64) {
        let oldest = jiff::Timestamp::from_second(number).expect("a time");
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let work = Work::CollectGarbage { oldest, answer: tokio::sync::oneshot::channel().0 };
        lanes.push(Queued { lane, work, _place: place });
    }

    /// Two of the lane whose turn it is.
    fn turn(lanes: &mut Lanes) -> Vec<i64> {
        let number = |work| match work {
            Work::CollectGarbage { oldest, .. } => oldest.as_second(),
            Work::Decide(_) => panic!("not of this test"),
        };
        lanes.next().into_iter().flat_map(|turn| turn.take(2)).map(number).collect()
    }

    #[test]
    fn masses_of_one_kind_hold_up_no_other() {
        let mut lanes = Lanes::default();
        for number in 0..6 {
            enter(&mut lanes, Lane::Nodes, 300 + number);
            enter(&mut lanes, Lane::Bulk, 200 + number);
        }
        (0..4).for_each(|number| enter(&mut lanes, Lane::Loops, 100 + number));
        assert_eq!(turn(&mut lanes), [100, 101]);
        (0..3).for_each(|number| enter(&mut lanes, Lane::People, number));
        // People before each turn of others, nobody is left waiting for ever, and nodes have a turn after the loops' third and the bulk's second.
        let turns: Vec<_> = std::iter::from_fn(|| Some(turn(&mut lanes)).filter(|turn| !turn.is_empty())).collect();
        let expected: [&[i64]; 9] =
            [&[0, 1], &[200, 201], &[2], &[102, 103], &[202, 203], &[300, 301], &[204, 205], &[302, 303], &[304, 305]];
        assert_eq!(turns, expected);
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_full_lane_refuses_and_leaves_the_others_open() {
        let (entrance, mut waiting) = open();
        let work = || Work::CollectGarbage { oldest: jiff::Timestamp::MIN, answer: tokio::sync::oneshot::channel().0 };
        for _ in 0..Lane::Bulk.places() {
            assert!(entrance.enter(Lane::Bulk, work()).is_ok());
        }
        assert!(matches!(entrance.enter(Lane::Bulk, work()), Err(StoreError::Busy)));
        assert!(entrance.enter(Lane::People, work()).is_ok());
        assert_eq!(entrance.figures().0, Lane::Bulk.places() + 1);
        drop(waiting.try_recv());
        assert!(entrance.enter(Lane::Bulk, work()).is_ok(), "one was taken");
        drop(waiting);
        assert!(matches!(entrance.enter(Lane::People, work()), Err(StoreError::Closed)));
    }
}
