//! A vector of slices of guest memory that is used over and over, so that vectored host I/O
//! allocates nothing.

use vm_memory::VolatileSlice;

/// A vector of slices that is used over and over, so that a request allocates nothing.
///
/// Between requests it is empty, and of a type that may be sent to other threads, as slices may
/// not.
pub(crate) struct Slices(Vec<Place>);

/// Room for a slice.
type Place = [usize; size_of::<VolatileSlice<'static>>() / size_of::<usize>()];

impl Slices {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Slices(Vec::with_capacity(capacity))
    }

    /// Gathers slices of `limit` bytes in all for the time of a call.
    pub(crate) fn lend<'m, R>(
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
