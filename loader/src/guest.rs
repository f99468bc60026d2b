//! Writes to guest memory that name what was being written.

use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend};

use crate::error::Error;

pub(crate) fn write<M: GuestMemoryBackend>(
    memory: &M,
    what: &'static str,
    address: u64,
    bytes: &[u8],
) -> Result<(), Error> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|source| Error::Write {
            what,
            address,
            source,
        })
}

pub(crate) fn write_object<M: GuestMemoryBackend>(
    memory: &M,
    what: &'static str,
    address: u64,
    object: &impl ByteValued,
) -> Result<(), Error> {
    write(memory, what, address, object.as_slice())
}
