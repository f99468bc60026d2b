//! A virtual machine: its memory, its interrupt controllers, its timer.
//!
//! The order of these steps matters, so it is written down once, in [`Vm::new`]. The invariant that
//! the rest of the crate rests on: guest memory lives as long as any vCPU can run, because every
//! handle of the VM holds it.

use crate::coalesced::{self, CoalescedPio};
use crate::error::Error;
use crate::event::{DataMatch, IoAddress, IoEventFd, IrqFd};
use crate::msi::{MsiVector, Routes};
use crate::rom::Rom;
use crate::run_page::PAGE_SIZE;
use crate::system::System;
use crate::vcpu::Vcpu;
use kvm_bindings::{
    KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

/// How many interrupt lines (global system interrupts) the in-kernel controllers have: KVM routes
/// 0..16 to both PICs and the I/O APIC, 16..24 to the I/O APIC alone.
pub const PIC_AND_IOAPIC_GSIS: u32 = 24;

/// Where Intel hosts keep three pages for a task state segment, for guests in real mode. The page
/// below, 0xfffb_c000, holds an identity map, and is KVM's own choice for it: with the two side by
/// side, one range of guest addresses is lost to both.
const TSS_ADDRESS: u64 = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// What must not be memory: KVM or its interrupt controllers answer there.
const RESERVED: [(u64, u64, &str); 3] = [
    (0xfec0_0000, 0x1000, "the I/O APIC"),
    (0xfee0_0000, 0x10_0000, "the local APIC"),
    (
        IDENTITY_MAP_ADDRESS,
        0x4000,
        "KVM's identity map and task state segment",
    ),
];

/// The fewest memory slots that any KVM has. Only more than this is worth a question.
const SLOTS_ANYWHERE: usize = 32;

/// A virtual machine. Clones are handles of the same one; it ends with the last handle, vCPU or
/// registration.
#[derive(Debug, Clone)]
pub struct Vm {
    pub(crate) inner: Arc<Inner>,
}

/// What the handles share. The descriptor comes first, so that it is closed before the memory goes.
pub(crate) struct Inner {
    pub(crate) fd: VmFd,
    /// Held while the ring of coalesced writes is drained.
    pub(crate) draining: Mutex<()>,
    /// Where interrupts lead that are messages.
    pub(crate) routes: Mutex<Routes>,
    /// Keeps the slots' memory mapped.
    _memory: Vec<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

impl Vm {
    /// Makes a VM with this memory, the PC's interrupt controllers and its timer, and holds the
    /// memory as long as it can be used.
    ///
    /// Memory slots come before the interrupt controllers: with those, each change of slots waits
    /// 7 to 8 ms for a grace period of the kernel; without, it takes less than half a millisecond.
    pub fn new<M>(system: &System, memory: Arc<M>) -> Result<Self, Error>
    where
        M: GuestMemoryBackend + Send + Sync + 'static,
    {
        let vm = Self::without_irqchip(system, memory)?;
        vm.add_irqchip()?;
        Ok(vm)
    }

    /// The same, with other memory that the guest can read and not write: a write to it is an exit,
    /// as if nothing were there. Wants `KVM_CAP_READONLY_MEM`, which is optional; see
    /// [`System::has_rom`].
    pub fn with_rom<M>(system: &System, memory: Arc<M>, rom: Arc<M>) -> Result<(Self, Rom), Error>
    where
        M: GuestMemoryBackend + Send + Sync + 'static,
    {
        let (vm, slots) = Self::with_slots(system, memory, Some(rom))?;
        vm.add_irqchip()?;
        let rom = Rom::new(Arc::clone(&vm.inner), slots);
        Ok((vm, rom))
    }

    /// The same without controllers and timer: there, HLT is an exit.
    pub(crate) fn without_irqchip<M>(system: &System, memory: Arc<M>) -> Result<Self, Error>
    where
        M: GuestMemoryBackend + Send + Sync + 'static,
    {
        Ok(Self::with_slots(system, memory, None)?.0)
    }

    fn add_irqchip(&self) -> Result<(), Error> {
        let fd = &self.inner.fd;
        fd.create_irq_chip()
            .map_err(Error::call("KVM_CREATE_IRQCHIP"))?;
        // The speaker's port 0x61 also gates the timer that kernels calibrate the TSC with.
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        fd.create_pit2(pit).map_err(Error::call("KVM_CREATE_PIT2"))
    }

    /// A VM with its memory. Returns the slots of what is read-only as well.
    fn with_slots<M>(
        system: &System,
        memory: Arc<M>,
        rom: Option<Arc<M>>,
    ) -> Result<(Self, Vec<kvm_userspace_memory_region>), Error>
    where
        M: GuestMemoryBackend + Send + Sync + 'static,
    {
        let writable = slots(&*memory, 0, 0)?;
        let readable = match &rom {
            Some(rom) => slots(&**rom, writable.len(), KVM_MEM_READONLY)?,
            None => Vec::new(),
        };
        check_count(writable.len() + readable.len(), || {
            system.kvm().get_nr_memslots()
        })?;
        let fd = create(system).map_err(Error::call("KVM_CREATE_VM"))?;
        fd.set_tss_address(TSS_ADDRESS as usize)
            .map_err(Error::call("KVM_SET_TSS_ADDR"))?;
        for &slot in writable.iter().chain(&readable) {
            // SAFETY: the guest may access this range for as long as a vCPU runs. `slots` got it
            // from a `VolatileSlice` of the region, whose maker vouched that it is mapped, and
            // accessed as volatile only, while the region is borrowed; the region lives in
            // `memory` or `rom`, which `Inner` holds, and with it every vCPU.
            unsafe { fd.set_user_memory_region(slot) }.map_err(|errno| Error::Slot {
                start: slot.guest_phys_addr,
                len: slot.memory_size,
                source: errno.into(),
            })?;
        }
        let mut kept = vec![memory as Arc<dyn Any + Send + Sync>];
        kept.extend(rom.map(|rom| rom as _));
        let inner = Inner {
            fd,
            draining: Mutex::new(()),
            routes: Mutex::new(Routes::default()),
            _memory: kept,
        };
        let inner = Arc::new(inner);
        Ok((Self { inner }, readable))
    }

    /// Adds a vCPU. Its number is also its local APIC's ID.
    pub fn create_vcpu(&self, id: u32) -> Result<Vcpu, Error> {
        Vcpu::new(Arc::clone(&self.inner), id)
    }

    /// An interrupt line that a device triggers, until it is dropped.
    pub fn irqfd(&self, gsi: u32) -> Result<IrqFd, Error> {
        IrqFd::new(Arc::clone(&self.inner), gsi)
    }

    /// A vector of a device that interrupts by messages, until it is dropped. Wants
    /// `KVM_CAP_IRQ_ROUTING`, which is optional.
    pub fn msi_vector(&self) -> Result<MsiVector, Error> {
        MsiVector::new(Arc::clone(&self.inner))
    }

    /// A doorbell, until it is dropped: a write to `at` (of any width and value, or only of those
    /// in `value`) signals `event`, and makes no exit.
    pub fn ioeventfd(
        &self,
        at: IoAddress,
        value: Option<DataMatch>,
        event: Arc<EventFd>,
    ) -> Result<IoEventFd, Error> {
        IoEventFd::new(Arc::clone(&self.inner), at, value, event)
    }

    /// Lets the kernel gather writes to `len` ports from `port`, until the result is dropped. They
    /// come out of [`Vcpu::coalesced_ring`]. Wants `KVM_CAP_COALESCED_PIO`, which is optional.
    pub fn coalesce_pio(&self, port: u16, len: u16) -> Result<CoalescedPio, Error> {
        CoalescedPio::new(Arc::clone(&self.inner), port, len)
    }

    /// The same for ports or addresses, for as long as the VM exists.
    pub fn coalesce(&self, at: IoAddress, len: u32) -> Result<(), Error> {
        coalesced::register(&self.inner, at, len)
    }
}

/// `KVM_CREATE_VM` waits for other users of this process's memory map, and gives up with `EINTR` if
/// a signal comes meanwhile (a profiler's, or the kick of another VM).
fn create(system: &System) -> Result<VmFd, kvm_ioctls::Error> {
    loop {
        match system.kvm().create_vm() {
            Err(errno) if errno.errno() == libc::EINTR => {}
            made => return made,
        }
    }
}

/// One slot for each region, checked; their numbers count from `first`.
///
/// KVM accepts an address that is not mapped and fails only when the guest touches it. That can't
/// happen here, and needs no system call to find out: the address comes from the region's
/// `VolatileSlice` of its whole length, and making one of memory that is not mapped is `unsafe`.
fn slots<M: GuestMemoryBackend>(
    memory: &M,
    first: usize,
    flags: u32,
) -> Result<Vec<kvm_userspace_memory_region>, Error> {
    let page = PAGE_SIZE as u64;
    let mut slots = Vec::with_capacity(memory.num_regions());
    for region in memory.iter() {
        let (start, len) = (region.start_addr().raw_value(), region.len());
        let slice = region
            .as_volatile_slice()
            .map_err(|source| Error::SlotUnmapped { start, len, source })?;
        let host = slice.ptr_guard_mut().as_ptr() as u64;
        if !(start | len | host).is_multiple_of(page) || len == 0 || slice.len() as u64 != len {
            return Err(Error::SlotAlignment { start, len, host });
        }
        if let Some(&(address, _, what)) = RESERVED
            .iter()
            .find(|&&(at, size, _)| overlap(start, len, at, size))
        {
            return Err(Error::SlotReserved {
                start,
                len,
                what,
                address,
            });
        }
        slots.push(kvm_userspace_memory_region {
            slot: u32::try_from(first + slots.len()).unwrap_or(u32::MAX),
            flags,
            guest_phys_addr: start,
            memory_size: len,
            userspace_addr: host,
        });
    }
    Ok(slots)
}

/// Asks for KVM's limit only if it can matter.
fn check_count(regions: usize, limit: impl FnOnce() -> usize) -> Result<(), Error> {
    if regions <= SLOTS_ANYWHERE {
        return Ok(());
    }
    let limit = limit();
    if regions <= limit {
        Ok(())
    } else {
        Err(Error::Slots { regions, limit })
    }
}

fn overlap(start: u64, len: u64, other: u64, size: u64) -> bool {
    start < other.saturating_add(size) && other < start.saturating_add(len)
}

#[cfg(test)]
mod tests;
