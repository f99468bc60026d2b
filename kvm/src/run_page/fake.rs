//! A run page without a vCPU: a file of the same size, to put into it what no KVM would.

use super::{PAGE_SIZE, RunPage};

impl RunPage {
    pub(crate) fn fake() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE_SIZE as u64).unwrap();
        Self::map(&file, 3 * PAGE_SIZE).unwrap()
    }
}
