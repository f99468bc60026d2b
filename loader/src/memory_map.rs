//! Which addresses are RAM, which of it the guest may use (e820), and which of it is still free for
//! a payload.

use std::ops::Range;

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::error::{Error, ImageError};
use crate::layout::{FIRMWARE, MIB};

/// Room for e820 in the zero page. PVH has no limit of its own, but Linux copies its map into a
/// zero page.
pub(crate) const MAX_ENTRIES: usize = linux_loader::bootparam::E820_MAX_ENTRIES_ZEROPAGE;

/// The guest's physical memory as the loader sees it.
#[derive(Debug)]
pub(crate) struct MemoryMap {
    entries: Vec<Entry>,
    /// Usable RAM above 1 MiB that nothing has been put into yet; sorted, disjoint.
    free: Vec<Range<u64>>,
}

/// A line of the map that the guest gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) range: Range<u64>,
    pub(crate) usable: bool,
}

impl MemoryMap {
    /// RAM is what `memory` has regions for; `reserved` (where it meets RAM) and the firmware area
    /// are not usable.
    pub(crate) fn new<M: GuestMemoryBackend>(
        memory: &M,
        reserved: &[Range<u64>],
    ) -> Result<Self, Error> {
        let region = |r: &M::R| {
            r.start_addr().raw_value()..r.start_addr().raw_value().saturating_add(r.len())
        };
        let ram = merge(memory.iter().map(region).collect());
        let low_end = ram
            .first()
            .filter(|first| first.start == 0)
            .map_or(0, |first| first.end);
        if low_end < MIB {
            return Err(Error::NoLowMemory { address: low_end });
        }
        if let Some(low) = reserved
            .iter()
            .find(|range| !range.is_empty() && range.start < FIRMWARE.start)
        {
            return Err(Error::ReservedLow {
                start: low.start,
                end: low.end,
                limit: FIRMWARE.start,
            });
        }
        let mut reserved = reserved.to_vec();
        reserved.push(FIRMWARE);
        let entries = cut(&ram, &merge(reserved));
        if entries.len() > MAX_ENTRIES {
            return Err(Error::MemoryMapLength {
                count: entries.len(),
                limit: MAX_ENTRIES,
            });
        }
        let usable = entries
            .iter()
            .filter(|entry| entry.usable && entry.range.start >= FIRMWARE.end);
        let free = usable.map(|entry| entry.range.clone()).collect();
        Ok(MemoryMap { entries, free })
    }

    /// What e820 says: every byte of RAM is in exactly one entry; sorted.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes exactly this range.
    pub(crate) fn take(
        &mut self,
        what: &'static str,
        range: &Range<u64>,
    ) -> Result<(), ImageError> {
        let holder = self
            .free
            .iter()
            .position(|free| free.start <= range.start && range.end <= free.end);
        match holder.filter(|_| !range.is_empty()) {
            Some(index) => self.carve(index, range),
            None => {
                return Err(ImageError::NotFree {
                    what,
                    start: range.start,
                    end: range.end,
                });
            }
        }
        Ok(())
    }

    /// Takes the lowest aligned place within `bounds`. `align` is a power of two, `size` not 0.
    pub(crate) fn take_lowest(
        &mut self,
        size: u64,
        align: u64,
        bounds: &Range<u64>,
    ) -> Result<Range<u64>, ImageError> {
        let place = |free: &Range<u64>| {
            let start = free
                .start
                .max(bounds.start)
                .checked_next_multiple_of(align)?;
            let end = start.checked_add(size)?;
            (end <= free.end.min(bounds.end)).then_some(start..end)
        };
        let found = self
            .free
            .iter()
            .enumerate()
            .find_map(|(index, free)| Some((index, place(free)?)));
        self.take_found(found, size, bounds)
    }

    /// Takes the highest aligned place within `bounds`. `align` is a power of two, `size` not 0.
    pub(crate) fn take_highest(
        &mut self,
        size: u64,
        align: u64,
        bounds: &Range<u64>,
    ) -> Result<Range<u64>, ImageError> {
        let place = |free: &Range<u64>| {
            let start = free.end.min(bounds.end).checked_sub(size)? & !(align - 1);
            (start >= free.start.max(bounds.start)).then(|| start..start + size)
        };
        let found = self
            .free
            .iter()
            .enumerate()
            .rev()
            .find_map(|(index, free)| Some((index, place(free)?)));
        self.take_found(found, size, bounds)
    }

    fn take_found(
        &mut self,
        found: Option<(usize, Range<u64>)>,
        size: u64,
        bounds: &Range<u64>,
    ) -> Result<Range<u64>, ImageError> {
        let Some((index, range)) = found else {
            let within = |free: &Range<u64>| {
                free.end
                    .min(bounds.end)
                    .saturating_sub(free.start.max(bounds.start))
            };
            let free = self.free.iter().map(within).max().unwrap_or(0);
            return Err(ImageError::NoRoom {
                size,
                from: bounds.start,
                limit: bounds.end,
                free,
            });
        };
        self.carve(index, &range);
        Ok(range)
    }

    fn carve(&mut self, index: usize, range: &Range<u64>) {
        let Some(free) = self.free.get(index).cloned() else {
            return;
        };
        let rest = [free.start..range.start, range.end..free.end];
        self.free.splice(
            index..=index,
            rest.into_iter().filter(|piece| !piece.is_empty()),
        );
    }
}

/// Sorts, drops what is empty, joins what touches.
fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Divides RAM into what is usable and what is reserved. Both lists are merged.
fn cut(ram: &[Range<u64>], reserved: &[Range<u64>]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for ram in ram {
        let mut at = ram.start;
        for hole in reserved
            .iter()
            .filter(|hole| hole.start < ram.end && ram.start < hole.end)
        {
            let hole = hole.start.max(ram.start)..hole.end.min(ram.end);
            entries.push(Entry {
                range: at..hole.start,
                usable: true,
            });
            at = hole.end;
            entries.push(Entry {
                range: hole,
                usable: false,
            });
        }
        entries.push(Entry {
            range: at..ram.end,
            usable: true,
        });
    }
    entries.retain(|entry| !entry.range.is_empty());
    entries
}

#[cfg(test)]
mod tests;
