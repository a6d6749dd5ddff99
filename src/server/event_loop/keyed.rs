//! A table whose entries have keys that come back only when nobody remembers them: the place of the entry, and a
//! generation.

use slab::Slab;

#[derive(Debug)]
pub(crate) struct Keyed<T> {
    entries: Slab<(u64, T)>,
    generation: u32,
}

impl<T> Keyed<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Slab::new(), generation: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place and the key of the entry that [`Self::insert`] makes next.
    pub(crate) fn vacancy(&self) -> (usize, u64) {
        let place = self.entries.vacant_key();
        (place, u64::from(self.generation) << 32 | u64::from(u32::try_from(place).unwrap_or(u32::MAX)))
    }

    /// Makes an entry. Returns its key.
    pub(crate) fn insert(&mut self, entry: T) -> u64 {
        let (_, key) = self.vacancy();
        self.generation = self.generation.wrapping_add(1);
        self.entries.insert((key, entry));
        key
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.entries.get_mut(place(key)).filter(|(other, _)| *other == key).map(|(_, entry)| entry)
    }

    /// The entry in this place.
    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        self.entries.get_mut(place).map(|(_, entry)| entry)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        self.get_mut(key)?;
        self.entries.try_remove(place(key)).map(|(_, entry)| entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().map(|(_, (key, entry))| (*key, entry))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, (_, entry))| entry)
    }
}

fn place(key: u64) -> usize {
    usize::try_from(key & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_taken_again_has_another_key() {
        let mut table = Keyed::new();
        let (place, expected) = table.vacancy();
        let first = table.insert('a');
        assert_eq!(first, expected);
        assert_eq!(table.at_mut(place), Some(&mut 'a'));
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b');
        assert!(table.get_mut(first).is_none() && table.remove(first).is_none());
        assert_eq!(table.at_mut(place), Some(&mut 'b'));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(second, &'b')]);
    }
}
