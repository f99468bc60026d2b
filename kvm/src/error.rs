//! What can go wrong, and what would fix it.

use crate::event::IoAddress;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A capability that this crate can't work without, and that the host doesn't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Its name in the KVM documentation.
    pub name: &'static str,
    /// What it is needed for.
    pub why: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.why)
    }
}

/// A failure of KVM, or a request that KVM could not grant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The descriptor does not answer KVM's first question.
    #[error("{what} is not a KVM device: it does not answer KVM_GET_API_VERSION")]
    NotKvm {
        /// The file's name, or what the descriptor was said to be.
        what: String,
        /// What it answered.
        source: io::Error,
    },
    /// KVM speaks another version of its interface.
    #[error("KVM's API version is {found}, and must be {expected}")]
    ApiVersion {
        /// What KVM said.
        found: i32,
        /// The only version there ever was since Linux 2.6.22.
        expected: i32,
    },
    /// The host's KVM lacks what a VM needs: all of it, not just the first.
    #[error("this KVM lacks {}", list(.0))]
    MissingCapabilities(Vec<Missing>),
    /// A call to KVM failed.
    #[error("{call} failed")]
    Call {
        /// The ioctl or system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// More memory regions than KVM has slots.
    #[error("{regions} memory regions, and KVM has {limit} slots")]
    Slots {
        /// How many regions the memory has.
        regions: usize,
        /// `KVM_CAP_NR_MEMSLOTS`.
        limit: usize,
    },
    /// A memory region does not begin or end on a page.
    #[error(
        "memory region at {start:#x} of {len:#x} bytes, at {host:#x} in the host, is not made of whole 4 KiB pages"
    )]
    SlotAlignment {
        /// Guest physical address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// Host virtual address.
        host: u64,
    },
    /// A memory region covers addresses that the platform needs for itself.
    #[error("memory region at {start:#x} of {len:#x} bytes covers {what} at {address:#x}")]
    SlotReserved {
        /// Guest physical address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// What lives there.
        what: &'static str,
        /// Where.
        address: u64,
    },
    /// A memory region has no address in this process that KVM could use.
    #[error("memory region at {start:#x} of {len:#x} bytes is not mapped in this process")]
    SlotUnmapped {
        /// Guest physical address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// What the region said.
        source: vm_memory::GuestMemoryError,
    },
    /// KVM refused a memory slot.
    #[error("KVM_SET_USER_MEMORY_REGION failed for {len:#x} bytes at {start:#x}")]
    Slot {
        /// Guest physical address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// Why.
        source: io::Error,
    },
    /// A vCPU could not be made.
    #[error("cannot create vCPU {id}")]
    CreateVcpu {
        /// Its number, which is its local APIC's ID.
        id: u32,
        /// Why not.
        source: io::Error,
    },
    /// KVM shares fewer bytes with us than the interface says.
    #[error("KVM's run page is {found} bytes, less than the {expected} that are used")]
    RunPage {
        /// `KVM_GET_VCPU_MMAP_SIZE`.
        found: usize,
        /// What is needed.
        expected: usize,
    },
    /// An interrupt line that leads nowhere.
    #[error("GSI {gsi} does not exist: the interrupt controllers have {limit} inputs")]
    Gsi {
        /// The global system interrupt.
        gsi: u32,
        /// How many there are.
        limit: u32,
    },
    /// More vectors than KVM has routes.
    #[error("no further vector for message-signalled interrupts: KVM has routes for {limit}")]
    MsiVectors {
        /// `KVM_CAP_IRQ_ROUTING`, less those of the interrupt lines.
        limit: u32,
    },
    /// A message that is no interrupt.
    #[error(
        "a message to {address:#x} is no interrupt: local APICs are at 0xfee00000 to 0xfeefffff"
    )]
    MsiAddress {
        /// Where it was to go.
        address: u64,
    },
    /// An irqfd could not be bound.
    #[error("cannot bind an irqfd to GSI {gsi}")]
    IrqFd {
        /// The global system interrupt.
        gsi: u32,
        /// Why not.
        source: io::Error,
    },
    /// An ioeventfd could not be bound.
    #[error("cannot bind an ioeventfd at {at}")]
    IoEventFd {
        /// The guest's address.
        at: IoAddress,
        /// Why not: `EEXIST` if it is taken, `ENOSPC` if KVM's bus is full.
        source: io::Error,
    },
    /// A range of ports or addresses could not be coalesced.
    #[error("cannot coalesce writes to {len} bytes from {at}")]
    Coalesce {
        /// The first of them.
        at: IoAddress,
        /// How many.
        len: u32,
        /// Why not.
        source: io::Error,
    },
    /// The ring of coalesced writes holds an index that is none.
    #[error("the coalesced ring says first {first}, last {last}, and has {limit} entries")]
    CoalescedRing {
        /// Where the next entry to take is.
        first: u32,
        /// Where the kernel writes next.
        last: u32,
        /// Entries in the ring.
        limit: u32,
    },
    /// A vCPU could not run.
    #[error("KVM_RUN failed")]
    Run {
        /// Why: `EFAULT` if the memory behind a guest address is gone.
        source: io::Error,
    },
    /// What KVM wrote into the run page makes no sense.
    #[error("KVM reports {what} of {value}, and the limit is {limit}")]
    BadExit {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The most it can be.
        limit: u64,
    },
    /// A model-specific register was refused.
    #[error("KVM refuses {value:#x} for MSR {index:#x}")]
    Msr {
        /// The register.
        index: u32,
        /// What was to be written.
        value: u64,
    },
    /// The thread or the vCPU is bound already.
    #[error("{0} is bound already: drop its binding first")]
    AlreadyBound(&'static str),
    /// Someone else in this process handles the kick's signal.
    #[error(
        "signal {signal} (SIGRTMIN) already has a handler in this process, and vCPUs are kicked with it"
    )]
    SignalTaken {
        /// Its number.
        signal: i32,
    },
}

impl Error {
    /// What would fix it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open { source, .. } => match source.raw_os_error() {
                Some(libc::ENOENT) => Some(
                    "modprobe kvm_intel or kvm_amd; if that fails, enable virtualization in the firmware, or nested \
                     virtualization if this is a virtual machine",
                ),
                Some(libc::EACCES | libc::EPERM) => {
                    Some("add yourself to group kvm (usermod -aG kvm \"$USER\") and log in again")
                }
                Some(libc::ENODEV | libc::ENXIO) => {
                    Some("the KVM module is not loaded: modprobe kvm_intel or kvm_amd")
                }
                _ => None,
            },
            Self::NotKvm { .. } => Some(
                "KVM's device is usually /dev/kvm, a character device with major 10, minor 232",
            ),
            Self::ApiVersion { .. } => Some("a host kernel of Linux 4.11 or newer is needed"),
            Self::MissingCapabilities(_) => Some(
                "a host kernel of Linux 4.11 or newer, with its own KVM modules, has all of them",
            ),
            Self::Slot { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => {
                Some("memory regions must not overlap")
            }
            Self::CreateVcpu { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => {
                Some("each vCPU of a VM needs its own number")
            }
            Self::Run { source } if source.raw_os_error() == Some(libc::EAGAIN) => Some(
                "the host may not start a thread that KVM needs: raise the limit on processes (ulimit -u)",
            ),
            _ => None,
        }
    }

    /// Shapes an ioctl's failure: `.map_err(Error::call("KVM_SET_REGS"))`.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |errno| Self::Call {
            call,
            source: errno.into(),
        }
    }
}

fn list(missing: &[Missing]) -> String {
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    names.join(", ")
}
