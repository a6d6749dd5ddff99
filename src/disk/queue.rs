//! Operations that wait for their turn: those on one name one after the other, in the order in which they came,
//! and all others beside them.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// What waits, and who has each name. Names are known by a hash that nobody outside can predict; two of one hash
/// would wait for each other needlessly.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Numbers of those that want a name, in the order in which they came. The first one has it.
    lanes: HashMap<u64, VecDeque<u64>>,
    /// Those that have all their names.
    ready: VecDeque<T>,
    /// Those that lack so many of their names.
    blocked: HashMap<u64, (usize, T)>,
    next: u64,
    hasher: RandomState,
}

/// Where somebody is in the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// What tells it from others.
    pub(super) number: u64,
    lacking: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let (lanes, ready, blocked) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { lanes, ready, blocked, next: 0, hasher: RandomState::new() }
    }

    /// How many wait, those included that have their names.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.blocked.len()
    }

    /// Whether nobody has a name.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Has somebody want `names`, who has them in turn and until they are [given up](Self::give_up).
    pub(super) fn enter(&mut self, names: &[impl Hash]) -> Place {
        let number = self.next;
        self.next += 1;
        let mut lacking = 0;
        for name in names {
            let lane = self.lanes.entry(self.hasher.hash_one(name)).or_default();
            if lane.back() == Some(&number) {
                continue;
            }
            lacking += usize::from(!lane.is_empty());
            lane.push_back(number);
        }
        Place { number, lacking }
    }

    /// Adds who has entered.
    pub(super) fn add(&mut self, place: Place, what: T) {
        match place.lacking {
            0 => self.ready.push_back(what),
            lacking => _ = self.blocked.insert(place.number, (lacking, what)),
        }
    }

    /// The one that has its names and came at this place among them.
    pub(super) fn ready(&mut self, index: usize) -> Option<&mut T> {
        self.ready.get_mut(index)
    }

    /// Takes out the one at this place. It keeps its names.
    pub(super) fn take(&mut self, index: usize) -> Option<T> {
        self.ready.remove(index)
    }

    /// Puts back what was taken out, before all others.
    pub(super) fn put_back(&mut self, what: T) {
        self.ready.push_front(what);
    }

    /// Takes the names from `number`, which was taken out, and gives them to who wants them next; `next` is called
    /// with each of those that have all their names now.
    pub(super) fn give_up(&mut self, number: u64, names: &[impl Hash], mut next: impl FnMut(&mut T)) {
        for name in names {
            let name = self.hasher.hash_one(name);
            // One that was wanted twice has been given up already.
            let Some(lane) = self.lanes.get_mut(&name).filter(|lane| lane.front() == Some(&number)) else { continue };
            lane.pop_front();
            let Some(first) = lane.front().copied() else {
                self.lanes.remove(&name);
                continue;
            };
            let Some((lacking, _)) = self.blocked.get_mut(&first) else { continue };
            *lacking -= 1;
            if *lacking == 0
                && let Some((_, mut what)) = self.blocked.remove(&first)
            {
                next(&mut what);
                self.ready.push_back(what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(queue: &mut Queue<u64>, names: &[u8]) {
        let place = queue.enter(names);
        let number = place.number;
        queue.add(place, number);
    }

    #[test]
    fn those_of_one_name_follow_each_other_and_all_others_do_not_wait() {
        let mut queue = Queue::new();
        for names in [&[1, 2][..], &[2], &[3, 3], &[1, 3], &[]] {
            pushed(&mut queue, names);
        }
        assert!(!queue.is_idle());
        assert_eq!((queue.take(0), queue.take(0), queue.take(0), queue.take(0)), (Some(0), Some(2), Some(4), None));
        assert_eq!(queue.len(), 2);
        queue.put_back(0);
        assert_eq!(queue.take(0), Some(0));
        let mut freed = Vec::new();
        queue.give_up(0, &[1_u8, 2], |number| freed.push(*number));
        assert_eq!(freed, [1]);
        pushed(&mut queue, &[1]);
        queue.give_up(2, &[3_u8, 3], |number| freed.push(*number));
        assert_eq!((queue.take(0), queue.take(0), queue.take(0)), (Some(1), Some(3), None));
        queue.give_up(3, &[1_u8, 3], |number| freed.push(*number));
        assert_eq!(freed, [1, 3, 5]);
        queue.give_up(1, &[2_u8], |_| panic!("nobody wants it"));
        assert_eq!(queue.take(0), Some(5));
        queue.give_up(5, &[1_u8], |_| panic!("nobody wants it"));
        assert!(queue.is_idle() && queue.len() == 0, "{queue:?}");
    }
}
