//! The configuration mechanism of PCI 3.0, 3.2.2.3.2: an address at port 0xcf8, and what is there
//! at 0xcfc.
//!
//! Two accesses for one, on which the vCPUs have to agree by a lock of their own: that there is
//! only one address register is how PCs are.
//!
//! Linux prefers this mechanism to ECAM wherever the address reads back as it was written, and
//! then each access is two user exits instead of one. So the address is write-only where the
//! guest is told of ECAM: whoever just uses the ports does not notice.

use super::{Address, Root};
use crate::bus::{Action, BusDevice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Configuration accesses are on.
const ENABLE: u32 = 1 << 31;
/// The bits that there are: enable, bus, device, function, and the number of a double word.
const BITS: u32 = ENABLE | 0x00ff_fffc;

/// `CONFIG_ADDRESS`. Only whole double words: the bytes behind the first are ports of others.
pub(super) struct AddressPort {
    register: AtomicU32,
    reads_back: bool,
}

impl AddressPort {
    pub(super) fn new(reads_back: bool) -> Self {
        AddressPort {
            register: AtomicU32::new(0),
            reads_back,
        }
    }

    /// What the data ports are about; only bus 0 is there.
    fn address(&self) -> Option<Address> {
        let register = self.register.load(Ordering::Acquire);
        let [offset, slot, bus, _] = register.to_le_bytes();
        (register & ENABLE != 0 && bus == 0).then_some(Address {
            slot,
            offset: offset.into(),
        })
    }
}

impl BusDevice for AddressPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(data) if self.reads_back => {
                *data = self.register.load(Ordering::Acquire).to_le_bytes();
            }
            _ => data.fill(0xff),
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Action {
        if let Ok(data) = <[u8; 4]>::try_from(data) {
            self.register
                .store(u32::from_le_bytes(data) & BITS, Ordering::Release);
        }
        Action::None
    }
}

/// `CONFIG_DATA`: the four bytes of a double word, or some of them.
pub(super) struct DataPorts {
    pub root: Arc<Root>,
    pub address: Arc<AddressPort>,
}

impl DataPorts {
    /// An access within the double word.
    fn address(&self, offset: u64, len: usize) -> Option<Address> {
        let byte = u16::try_from(offset).ok()?;
        let at = self.address.address()?;
        (usize::from(byte) + len <= 4).then_some(Address {
            offset: at.offset + byte,
            ..at
        })
    }
}

impl BusDevice for DataPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.address(offset, data.len()) {
            Some(at) => self.root.read(at, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        if let Some(at) = self.address(offset, data.len()) {
            self.root.write(at, data);
        }
        Action::None
    }
}
