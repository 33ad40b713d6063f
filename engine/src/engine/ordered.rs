//! A map for those who walk through it in the order of its keys.

use std::cell::Cell;
use std::fmt::Debug;
use std::ops::Range;

/// Where a share of the entries has gone, the others move together: each that goes costs the moves of so many.
const GONE_SHARE: usize = 4;

/// Entries in the order of their keys.
///
/// A step looks up every sequence several times, and nearly always from the first to the last. So a
/// lookup tries the entry after the one before first, which costs a few nanoseconds; any other is a
/// binary search. New keys are mostly the largest: they are appended.
#[derive(Debug)]
pub(super) struct OrderedMap<K, V> {
    keys: Vec<K>,
    /// One beside the other: a step walks through all of them, and memory that is read in its order comes by itself.
    /// None where one has gone, until a quarter has.
    values: Vec<Option<V>>,
    /// How many have gone so.
    gone: usize,
    /// Behind what was found last.
    next: Cell<usize>,
}

// === impl OrderedMap ===

impl<K: Copy + Ord, V> OrderedMap<K, V> {
    pub(super) fn new() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), gone: 0, next: Cell::new(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.len() == self.gone
    }

    /// All keys, ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.keys_at(0..self.keys.len())
    }

    /// The keys from `first` to `last`, both included.
    pub(super) fn keys_within(&self, first: K, last: K) -> impl Iterator<Item = K> {
        let start = self.keys.partition_point(|key| *key < first);
        let end = self.keys.partition_point(|key| *key <= last);
        self.keys_at(start..end.max(start))
    }

    /// All values, in the order of their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter().flatten()
    }

    /// All entries, in the order of their keys.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        let entries = self.keys.iter().zip(&mut self.values);
        entries.filter_map(|(key, value)| Some((*key, value.as_mut()?)))
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.values[self.find(key)?].as_ref()
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.find(key)?;
        self.values[at].as_mut()
    }

    /// Adds an entry, or replaces the value of one.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.keys.binary_search(&key) {
            Ok(at) => self.gone -= usize::from(self.values[at].replace(value).is_none()),
            Err(at) => {
                self.keys.insert(at, key);
                self.values.insert(at, Some(value));
            }
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.find(key)?;
        let value = self.values[at].take()?;
        self.gone += 1;
        if self.gone > self.values.len() / GONE_SHARE {
            self.close_gaps();
        }
        Some(value)
    }

    fn close_gaps(&mut self) {
        let mut values = self.values.iter();
        self.keys.retain(|_| values.next().is_some_and(Option::is_some));
        self.values.retain(Option::is_some);
        self.gone = 0;
    }

    fn keys_at(&self, places: Range<usize>) -> impl Iterator<Item = K> {
        let entries = self.keys[places.clone()].iter().zip(&self.values[places]);
        entries.filter_map(|(key, value)| value.is_some().then_some(*key))
    }

    fn find(&self, key: K) -> Option<usize> {
        let next = self.next.get();
        let is_next = self.keys.get(next) == Some(&key);
        let at = if is_next { next } else { self.keys.binary_search(&key).ok()? };
        self.next.set(at + 1);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Insert(u8, u32),
        Remove(u8),
        Get(u8),
        Walk,
        Within(u8, u8),
    }

    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let key = || 0..40u8;
        let call = prop_oneof![
            3 => (key(), any::<u32>()).prop_map(|(key, value)| Call::Insert(key, value)),
            2 => key().prop_map(Call::Remove),
            3 => key().prop_map(Call::Get),
            1 => Just(Call::Walk),
            1 => (key(), key()).prop_map(|(first, last)| Call::Within(first, last)),
        ];
        proptest::collection::vec(call, 1..120)
    }

    proptest! {
        #[test]
        fn does_what_a_tree_does(calls in calls()) {
            let (mut map, mut tree) = (OrderedMap::new(), BTreeMap::new());
            for call in calls {
                match call {
                    Call::Insert(key, value) => {
                        map.insert(key, value);
                        tree.insert(key, value);
                    }
                    Call::Remove(key) => prop_assert_eq!(map.remove(key), tree.remove(&key)),
                    Call::Get(key) => {
                        prop_assert_eq!(map.get(key), tree.get(&key));
                        prop_assert_eq!(map.get_mut(key), tree.get_mut(&key));
                        prop_assert_eq!(map.contains(key), tree.contains_key(&key));
                    }
                    Call::Walk => {
                        for (&key, value) in &tree {
                            prop_assert_eq!(map.get(key), Some(value));
                        }
                    }
                    Call::Within(first, last) if first <= last => {
                        let want: Vec<u8> = tree.range(first..=last).map(|(key, _)| *key).collect();
                        prop_assert!(map.keys_within(first, last).eq(want));
                    }
                    Call::Within(first, last) => {
                        prop_assert_eq!(map.keys_within(first, last).next(), None);
                    }
                }
                prop_assert_eq!(map.is_empty(), tree.is_empty());
                prop_assert!(map.keys().eq(tree.keys().copied()));
                prop_assert!(map.values().eq(tree.values()));
                prop_assert!(map.iter_mut().map(|(key, value)| (key, *value)).eq(
                    tree.iter().map(|(key, value)| (*key, *value))
                ));
            }
        }
    }
}
