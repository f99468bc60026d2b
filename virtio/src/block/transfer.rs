//! Data between a chain and a storage: slices of guest memory go to the storage as they are.

use super::BlockStorage;
use super::storage::retrying;
use crate::Chain;
use crate::slices::Slices;
use std::io::{self, ErrorKind};

impl Slices {
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
}
