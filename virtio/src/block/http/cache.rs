//! The blocks of a file that were used last. Their number is fixed, and so is the memory.

/// A block that is there.
#[derive(Debug)]
struct Entry {
    number: u64,
    /// When it was last used, by [`Cache::clock`].
    used: u64,
    bytes: Vec<u8>,
}

/// A few blocks: looked up one after the other, which costs nothing beside a copy of a page.
#[derive(Debug)]
pub(super) struct Cache {
    entries: Vec<Entry>,
    limit: usize,
    clock: u64,
}

impl Cache {
    /// A cache of so many blocks, empty.
    pub fn new(limit: usize) -> Self {
        Cache {
            entries: Vec::with_capacity(limit),
            limit,
            clock: 0,
        }
    }

    /// Whether a block is there.
    pub fn has(&self, number: u64) -> bool {
        self.entries.iter().any(|entry| entry.number == number)
    }

    /// A block, which counts as used.
    pub fn get(&mut self, number: u64) -> Option<&[u8]> {
        self.clock += 1;
        let entry = self.entries.iter_mut().find(|e| e.number == number)?;
        entry.used = self.clock;
        Some(&entry.bytes)
    }

    /// Memory for another block: that of the one that has not been used for the longest time, if
    /// there is no room left.
    pub fn vacate(&mut self) -> Vec<u8> {
        let full = self.entries.len() >= self.limit;
        let entries = self.entries.iter().enumerate();
        let oldest = entries.min_by_key(|(_, entry)| entry.used);
        match oldest.map(|(at, _)| at) {
            Some(at) if full => self.entries.swap_remove(at).bytes,
            _ => Vec::new(),
        }
    }

    /// Adds a block, if it is not there, in memory from [`vacate`](Cache::vacate). Others may have
    /// taken the room meanwhile, and have to make it again.
    pub fn put(&mut self, number: u64, bytes: Vec<u8>) {
        if self.limit == 0 || self.has(number) {
            return;
        }
        drop(self.vacate());
        self.clock += 1;
        self.entries.push(Entry {
            number,
            used: self.clock,
            bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_was_not_used_for_longest_makes_room() {
        let mut cache = Cache::new(3);
        for number in 0..3 {
            let mut bytes = cache.vacate();
            bytes.push(number as u8);
            cache.put(number, bytes);
        }
        assert_eq!(cache.get(0), Some([0].as_slice()));

        let taken = cache.vacate();
        cache.put(7, vec![7]);

        assert_eq!(taken, [1]);
        assert!(cache.has(0) && cache.has(2) && cache.has(7));
        assert_eq!(cache.get(1), None);
    }

    #[test]
    fn blocks_that_were_fetched_at_the_same_time_find_room() {
        let mut cache = Cache::new(2);
        cache.put(0, vec![0]);
        cache.put(1, vec![1]);
        let (first, second) = (cache.vacate(), cache.vacate());

        cache.put(2, first);
        cache.put(3, second);
        cache.put(3, vec![9]);

        assert!(cache.has(2) && cache.has(3));
        assert_eq!(cache.entries.len(), 2);
        assert_ne!(cache.get(3), Some([9].as_slice()), "the first one stays");
    }

    #[test]
    fn a_cache_of_nothing_stays_empty() {
        let mut cache = Cache::new(0);
        cache.put(0, vec![1]);
        assert!(!cache.has(0));
    }
}
