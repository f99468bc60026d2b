//! Data between a chain and a storage: slices of guest memory go to the storage as they are.

use super::BlockStorage;
use super::storage::retrying;
use crate::Chain;
use std::io::{self, ErrorKind};
use vm_memory::VolatileSlice;

/// A vector of slices that is used over and over, so that a request allocates nothing.
///
/// Between requests it is empty, and of a type that may be sent to other threads, as slices may
/// not.
pub(super) struct Slices(Vec<Place>);

/// Room for a slice.
type Place = [usize; size_of::<VolatileSlice<'static>>() / size_of::<usize>()];

impl Slices {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Slices(Vec::with_capacity(capacity))
    }

    /// Reads `len` bytes at `offset` into the writable part of a chain.
    pub(super) fn read(
        &mut self,
        storage: &dyn BlockStorage,
        chain: &mut Chain<'_>,
        offset: u64,
        len: u32,
    ) -> io::Result<()> {
        let mut done: u32 = 0;
        while done < len {
            let mut writer = chain.writer();
            let count = self.lend(writer.slices(), len - done, |slices| {
                retrying(|| storage.read_vectored_at(slices, offset + u64::from(done)))
            })?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            writer.advance(count);
            done = done.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Writes what is left of the readable part of a chain at `offset`.
    pub(super) fn write(
        &mut self,
        storage: &dyn BlockStorage,
        chain: &mut Chain<'_>,
        offset: u64,
    ) -> io::Result<()> {
        let mut reader = chain.reader();
        let mut offset = offset;
        while reader.remaining() > 0 {
            let count = self.lend(reader.slices(), u32::MAX, |slices| {
                retrying(|| storage.write_vectored_at(slices, offset))
            })?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            reader.advance(count);
            offset = offset.saturating_add(count as u64);
        }
        Ok(())
    }

    /// Gathers slices of `limit` bytes in all for the time of a call.
    fn lend<'m, R>(
        &mut self,
        slices: impl Iterator<Item = VolatileSlice<'m>>,
        limit: u32,
        call: impl FnOnce(&[VolatileSlice<'m>]) -> R,
    ) -> R {
        let mut gathered = recycle(std::mem::take(&mut self.0));
        let mut left = limit as usize;
        for slice in slices {
            let Ok(slice) = slice.subslice(0, slice.len().min(left)) else {
                break;
            };
            if slice.is_empty() {
                break;
            }
            left -= slice.len();
            gathered.push(slice);
        }
        let result = call(&gathered);
        self.0 = recycle(gathered);
        result
    }
}

/// The same vector, emptied, for something else of the same size. Collecting a vector's own
/// iterator keeps its allocation; were that not so any more, it would be slower and nothing else.
fn recycle<A, B>(mut vector: Vec<A>) -> Vec<B> {
    vector.clear();
    vector.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_vector_keeps_its_allocation() {
        let mut bytes = [0; 8];
        let places: Vec<Place> = Vec::with_capacity(37);
        let place = places.as_ptr() as usize;

        let mut slices: Vec<VolatileSlice<'_>> = recycle(places);
        slices.push(VolatileSlice::from(bytes.as_mut_slice()));
        let places: Vec<Place> = recycle(slices);

        assert!(places.is_empty());
        assert_eq!((places.as_ptr() as usize, places.capacity()), (place, 37));
    }
}
