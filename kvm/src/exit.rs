//! Why a vCPU left the guest, as data.
//!
//! The exit borrows from the run page instead of copying: what a device writes into `data` of an
//! [`Exit::IoIn`] is what the guest reads when the vCPU runs again. The borrow is of the whole
//! [`Vcpu`](crate::Vcpu), so that it can't run while a device looks at the page.

use crate::error::Error;
use crate::run_page::RunPage;
use kvm_bindings::*;
use std::ptr;
use std::slice;

/// Why a vCPU left the guest.
#[derive(Debug)]
#[non_exhaustive]
pub enum Exit<'a> {
    /// The guest reads from a port: fill `data`, one item of `size` bytes after another (`rep ins`
    /// makes several).
    IoIn {
        /// The port; the same for every item.
        port: u16,
        /// Bytes of an item: 1, 2 or 4.
        size: u8,
        /// Where the answer goes: `size` times the number of items.
        data: &'a mut [u8],
    },
    /// The guest writes to a port.
    IoOut {
        /// The port; the same for every item.
        port: u16,
        /// Bytes of an item: 1, 2 or 4.
        size: u8,
        /// What it wrote: `size` times the number of items.
        data: &'a [u8],
    },
    /// The guest reads where there is no memory: fill `data`.
    MmioRead {
        /// The guest physical address.
        addr: u64,
        /// Where the answer goes: at most 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes where there is no memory, or only memory that it must not write.
    MmioWrite {
        /// The guest physical address.
        addr: u64,
        /// What it wrote: at most 8 bytes.
        data: &'a [u8],
    },
    /// The vCPU halted. Only without interrupt controllers in the kernel; with them, KVM waits for
    /// the interrupt itself.
    Hlt,
    /// A triple fault, or an INIT that means the same.
    Shutdown,
    /// KVM itself noticed that the guest wants to end or restart (`KVM_SYSTEM_EVENT_*`).
    SystemEvent {
        /// Which event.
        kind: u32,
        /// What belongs to it.
        data: &'a [u64],
    },
    /// The vCPU was kicked, or has nothing to run yet: look what is wanted of it, then run it
    /// again.
    Interrupted,
    /// KVM can't go on. Often an instruction that it would have to emulate and can't.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`; [`Exit::suberror_name`] says it in words.
        suberror: u32,
        /// What KVM adds: for debugging only.
        data: &'a [u64],
        /// The bytes of the instruction that it could not emulate, if it gives them.
        instruction: &'a [u8],
    },
    /// The processor refused to enter the guest: a register has a value that it must not have.
    FailEntry {
        /// The hardware's reason.
        reason: u64,
        /// On which host processor.
        cpu: u32,
    },
    /// The hardware left the guest for a reason that KVM does not know.
    Unknown {
        /// The hardware's reason.
        reason: u64,
    },
    /// A guest address has memory, but the host can't provide it.
    MemoryFault {
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
        /// The guest physical address.
        addr: u64,
        /// How many bytes.
        size: u64,
    },
    /// Any other exit: nothing that this crate sets up causes one.
    Other {
        /// `kvm_run.exit_reason`.
        reason: u32,
        /// Its name in the KVM documentation.
        name: &'static str,
    },
}

impl Exit<'_> {
    /// The name that the KVM documentation has for this exit, for counters and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::IoIn { .. } | Self::IoOut { .. } => "KVM_EXIT_IO",
            Self::MmioRead { .. } | Self::MmioWrite { .. } => "KVM_EXIT_MMIO",
            Self::Hlt => "KVM_EXIT_HLT",
            Self::Shutdown => "KVM_EXIT_SHUTDOWN",
            Self::SystemEvent { .. } => "KVM_EXIT_SYSTEM_EVENT",
            Self::Interrupted => "KVM_EXIT_INTR",
            Self::InternalError { .. } => "KVM_EXIT_INTERNAL_ERROR",
            Self::FailEntry { .. } => "KVM_EXIT_FAIL_ENTRY",
            Self::Unknown { .. } => "KVM_EXIT_UNKNOWN",
            Self::MemoryFault { .. } => "KVM_EXIT_MEMORY_FAULT",
            Self::Other { name, .. } => name,
        }
    }

    /// What an [`Exit::InternalError`] says about itself.
    #[must_use]
    pub fn suberror_name(suberror: u32) -> &'static str {
        match suberror {
            KVM_INTERNAL_ERROR_EMULATION => "an instruction that KVM cannot emulate",
            KVM_INTERNAL_ERROR_SIMUL_EX => "an exception while another was delivered",
            KVM_INTERNAL_ERROR_DELIVERY_EV => "an event that could not be delivered",
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
                "an exit that the hardware should not make"
            }
            _ => "a reason that is not documented",
        }
    }
}

/// Reads what KVM wrote when `KVM_RUN` returned.
///
/// # Safety
///
/// For `'a`, the vCPU must not run, and nobody else may use the page's parts that are the vCPU's
/// (the caller has it exclusively), but for `immediate_exit`, which no exit lends out.
pub(crate) unsafe fn decode<'a>(page: &'a RunPage) -> Result<Exit<'a>, Error> {
    let run = page.run();
    // SAFETY: `run` is valid for 'a and, by the contract, nobody writes to it. KVM fills the member
    // of the union that `exit_reason` names; all members are plain integers, so that any bytes are
    // a valid value of any of them.
    unsafe {
        let u = &raw mut (*run).__bindgen_anon_1;
        Ok(match (*run).exit_reason {
            KVM_EXIT_IO => return io(page, ptr::read(&raw const (*u).io)),
            KVM_EXIT_MMIO => {
                let len = bounded("an MMIO length", (*u).mmio.len, 8)?;
                let data = (&raw mut (*u).mmio.data).cast::<u8>();
                let addr = (*u).mmio.phys_addr;
                match (*u).mmio.is_write {
                    0 => Exit::MmioRead {
                        addr,
                        data: slice::from_raw_parts_mut(data, len),
                    },
                    _ => Exit::MmioWrite {
                        addr,
                        data: slice::from_raw_parts(data, len),
                    },
                }
            }
            KVM_EXIT_HLT => Exit::Hlt,
            KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            KVM_EXIT_INTR => Exit::Interrupted,
            KVM_EXIT_SYSTEM_EVENT => {
                let len = bounded("a system event's data", (*u).system_event.ndata, 16)?;
                let data = (&raw const (*u).system_event.__bindgen_anon_1.data).cast::<u64>();
                Exit::SystemEvent {
                    kind: (*u).system_event.type_,
                    data: slice::from_raw_parts(data, len),
                }
            }
            KVM_EXIT_INTERNAL_ERROR => {
                let len = bounded("an internal error's data", (*u).internal.ndata, 16)?;
                let data = (&raw const (*u).internal.data).cast::<u64>();
                let data = slice::from_raw_parts(data, len);
                let suberror = (*u).internal.suberror;
                Exit::InternalError {
                    suberror,
                    data,
                    instruction: instruction(&*u, suberror, data),
                }
            }
            KVM_EXIT_FAIL_ENTRY => Exit::FailEntry {
                reason: (*u).fail_entry.hardware_entry_failure_reason,
                cpu: (*u).fail_entry.cpu,
            },
            KVM_EXIT_UNKNOWN => Exit::Unknown {
                reason: (*u).hw.hardware_exit_reason,
            },
            KVM_EXIT_MEMORY_FAULT => Exit::MemoryFault {
                flags: (*u).memory_fault.flags,
                addr: (*u).memory_fault.gpa,
                size: (*u).memory_fault.size,
            },
            reason => Exit::Other {
                reason,
                name: reason_name(reason),
            },
        })
    }
}

/// Port I/O has its data on a page of its own.
fn io<'a>(page: &'a RunPage, io: kvm_run__bindgen_ty_1__bindgen_ty_4) -> Result<Exit<'a>, Error> {
    let len = u64::from(io.size) * u64::from(io.count);
    let bad = Error::BadExit {
        what: "port data",
        value: io.data_offset.saturating_add(len),
        limit: 8192,
    };
    let Some(data) = usize::try_from(len)
        .ok()
        .and_then(|len| page.data(io.data_offset, len))
    else {
        return Err(bad);
    };
    // It fits into the page, so into a usize.
    let len = len as usize;
    Ok(match u32::from(io.direction) {
        // SAFETY: `data` gave `len` bytes of the mapping, valid for 'a, which by the contract of
        // `decode` nobody else uses for 'a. They are apart from `kvm_run` and from the ring.
        KVM_EXIT_IO_IN => unsafe {
            Exit::IoIn {
                port: io.port,
                size: io.size,
                data: slice::from_raw_parts_mut(data.as_ptr(), len),
            }
        },
        // SAFETY: as above.
        _ => unsafe {
            Exit::IoOut {
                port: io.port,
                size: io.size,
                data: slice::from_raw_parts(data.as_ptr(), len),
            }
        },
    })
}

/// The instruction's bytes, if the error is one of emulation and KVM says that it gives them.
fn instruction<'a>(u: &'a kvm_run__bindgen_ty_1, suberror: u32, data: &[u64]) -> &'a [u8] {
    // The words of `data` are, seen as `emulation_failure`: flags, then size and bytes in the next
    // two.
    let given = data.first().is_some_and(|flags| {
        flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0
            && data.len() >= 3
    });
    if suberror != KVM_INTERNAL_ERROR_EMULATION || !given {
        return &[];
    }
    // SAFETY: the member is made of integers, and KVM says that it filled it.
    let failure = unsafe { &u.emulation_failure.__bindgen_anon_1.__bindgen_anon_1 };
    failure
        .insn_bytes
        .get(..usize::from(failure.insn_size))
        .unwrap_or(&failure.insn_bytes)
}

fn bounded(what: &'static str, value: u32, limit: u32) -> Result<usize, Error> {
    if value <= limit {
        Ok(value as usize)
    } else {
        Err(Error::BadExit {
            what,
            value: value.into(),
            limit: limit.into(),
        })
    }
}

fn reason_name(reason: u32) -> &'static str {
    match reason {
        KVM_EXIT_EXCEPTION => "KVM_EXIT_EXCEPTION",
        KVM_EXIT_HYPERCALL => "KVM_EXIT_HYPERCALL",
        KVM_EXIT_DEBUG => "KVM_EXIT_DEBUG",
        KVM_EXIT_IRQ_WINDOW_OPEN => "KVM_EXIT_IRQ_WINDOW_OPEN",
        KVM_EXIT_SET_TPR => "KVM_EXIT_SET_TPR",
        KVM_EXIT_TPR_ACCESS => "KVM_EXIT_TPR_ACCESS",
        KVM_EXIT_NMI => "KVM_EXIT_NMI",
        KVM_EXIT_WATCHDOG => "KVM_EXIT_WATCHDOG",
        KVM_EXIT_IOAPIC_EOI => "KVM_EXIT_IOAPIC_EOI",
        KVM_EXIT_HYPERV => "KVM_EXIT_HYPERV",
        KVM_EXIT_X86_RDMSR => "KVM_EXIT_X86_RDMSR",
        KVM_EXIT_X86_WRMSR => "KVM_EXIT_X86_WRMSR",
        KVM_EXIT_DIRTY_RING_FULL => "KVM_EXIT_DIRTY_RING_FULL",
        KVM_EXIT_AP_RESET_HOLD => "KVM_EXIT_AP_RESET_HOLD",
        KVM_EXIT_X86_BUS_LOCK => "KVM_EXIT_X86_BUS_LOCK",
        KVM_EXIT_XEN => "KVM_EXIT_XEN",
        KVM_EXIT_NOTIFY => "KVM_EXIT_NOTIFY",
        _ => "an exit without a name",
    }
}

#[cfg(test)]
mod tests;
