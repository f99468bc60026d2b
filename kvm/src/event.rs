//! irqfd and ioeventfd: interrupts and doorbells that don't leave the kernel.
//!
//! The problem: both are registrations of a descriptor with a VM, and closing the descriptor is not
//! how they end; one that is left behind keeps its place on KVM's bus and swallows what a later
//! device should see. The design: the registration is a value. It ends when that is dropped, and it
//! keeps the VM and the event alive until then.

use crate::error::Error;
use crate::vm::{Inner, PIC_AND_IOAPIC_GSIS};
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where a guest reaches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IoAddress {
    /// A guest physical address.
    Mmio(u64),
    /// A port.
    Pio(u16),
}

impl fmt::Display for IoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmio(address) => write!(f, "address {address:#x}"),
            Self::Pio(port) => write!(f, "port {port:#x}"),
        }
    }
}

impl From<IoAddress> for IoEventAddress {
    fn from(at: IoAddress) -> Self {
        match at {
            IoAddress::Mmio(address) => Self::Mmio(address),
            IoAddress::Pio(port) => Self::Pio(port.into()),
        }
    }
}

/// The write that rings a doorbell: of this width, and of this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataMatch {
    /// One byte.
    U8(u8),
    /// Two bytes.
    U16(u16),
    /// Four bytes.
    U32(u32),
    /// Eight bytes.
    U64(u64),
}

/// A doorbell: a write of the guest that becomes a signal of an event.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct IoEventFd {
    vm: Arc<Inner>,
    at: IoAddress,
    value: Option<DataMatch>,
    event: Arc<EventFd>,
}

impl IoEventFd {
    pub(crate) fn new(
        vm: Arc<Inner>,
        at: IoAddress,
        value: Option<DataMatch>,
        event: Arc<EventFd>,
    ) -> Result<Self, Error> {
        let (fd, address) = (&vm.fd, at.into());
        let bound = match value {
            None => fd.register_ioevent(&event, &address, NoDatamatch),
            Some(DataMatch::U8(value)) => fd.register_ioevent(&event, &address, value),
            Some(DataMatch::U16(value)) => fd.register_ioevent(&event, &address, value),
            Some(DataMatch::U32(value)) => fd.register_ioevent(&event, &address, value),
            Some(DataMatch::U64(value)) => fd.register_ioevent(&event, &address, value),
        };
        match bound {
            Ok(()) => Ok(Self {
                vm,
                at,
                value,
                event,
            }),
            Err(errno) => Err(Error::IoEventFd {
                at,
                source: errno.into(),
            }),
        }
    }

    /// What the doorbell signals.
    #[must_use]
    pub fn event(&self) -> &Arc<EventFd> {
        &self.event
    }
}

impl Drop for IoEventFd {
    fn drop(&mut self) {
        let (fd, address, event) = (&self.vm.fd, self.at.into(), &self.event);
        // It was bound with these values, so this can't fail; and nobody could be told.
        let _ = match self.value {
            None => fd.unregister_ioevent(event, &address, NoDatamatch),
            Some(DataMatch::U8(value)) => fd.unregister_ioevent(event, &address, value),
            Some(DataMatch::U16(value)) => fd.unregister_ioevent(event, &address, value),
            Some(DataMatch::U32(value)) => fd.unregister_ioevent(event, &address, value),
            Some(DataMatch::U64(value)) => fd.unregister_ioevent(event, &address, value),
        };
    }
}

/// An edge-triggered interrupt line: triggering it is a write to a descriptor.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct IrqFd {
    vm: Arc<Inner>,
    gsi: u32,
    event: EventFd,
}

impl IrqFd {
    pub(crate) fn new(vm: Arc<Inner>, gsi: u32) -> Result<Self, Error> {
        // KVM takes any number, and an interrupt without a route is lost silently.
        if gsi >= PIC_AND_IOAPIC_GSIS {
            return Err(Error::Gsi {
                gsi,
                limit: PIC_AND_IOAPIC_GSIS,
            });
        }
        // vmm-sys-util adds no EFD_CLOEXEC by itself.
        let event =
            EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(|source| Error::Call {
                call: "eventfd",
                source,
            })?;
        match vm.fd.register_irqfd(&event, gsi) {
            Ok(()) => Ok(Self { vm, gsi, event }),
            Err(errno) => Err(Error::IrqFd {
                gsi,
                source: errno.into(),
            }),
        }
    }

    /// Interrupts the guest. Never blocks.
    pub fn trigger(&self) {
        // The only failure is a counter that is full: then the interrupt is pending anyway.
        let _ = self.event.write(1);
    }

    /// The line's number.
    #[must_use]
    pub fn gsi(&self) -> u32 {
        self.gsi
    }
}

impl AsRawFd for IrqFd {
    /// The event, for someone else to trigger the line with (a vhost device, say).
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl Drop for IrqFd {
    fn drop(&mut self) {
        // It was bound with these values, so this can't fail; and nobody could be told.
        let _ = self.vm.fd.unregister_irqfd(&self.event, self.gsi);
    }
}
