//! Guest memory that is used again in each run.

use virtio::GuestMemory;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// Zeroes all of it: what a run has left would make the next one impossible to repeat.
pub fn clear(memory: &GuestMemory) {
    const ZEROES: [u8; 0x1000] = [0; 0x1000];
    for region in memory.iter() {
        let len = region.len() as usize;
        let all = region.get_slice(MemoryRegionAddress(0), len);
        let all = all.expect("a whole region");
        // Regions are whole pages.
        for page in (0..len).step_by(ZEROES.len()) {
            let page = all.subslice(page, ZEROES.len()).expect("a page of it");
            page.copy_from(&ZEROES);
        }
    }
}
