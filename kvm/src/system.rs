//! The host's KVM: is it there, may we use it, has it what we need?
//!
//! A VMM that finds out about a missing capability from the errno of some later ioctl sends its
//! user searching. So everything required is asked for at [`System::open`], and what is missing is
//! named, all of it, in one error. Each question is a system call on the way to the first
//! instruction of the guest: only the required ones are asked there; [`System::capabilities`] asks
//! the others, for reports.

use crate::error::{Error, Missing};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

/// The interface's version: fixed since Linux 2.6.22, and the documentation says to refuse any
/// other.
const API_VERSION: i32 = 12;

/// One row of what we ask of a host.
struct Wanted {
    cap: Cap,
    name: &'static str,
    why: &'static str,
    required: bool,
}

const fn required(cap: Cap, name: &'static str, why: &'static str) -> Wanted {
    Wanted {
        cap,
        name,
        why,
        required: true,
    }
}

const fn optional(cap: Cap, name: &'static str, why: &'static str) -> Wanted {
    Wanted {
        cap,
        name,
        why,
        required: false,
    }
}

/// All that this crate uses. Whatever is required has been in every x86 kernel since Linux 4.11.
const WANTED: &[Wanted] = &[
    required(
        Cap::UserMemory,
        "KVM_CAP_USER_MEMORY",
        "guest memory is memory of this process",
    ),
    required(
        Cap::SetTssAddr,
        "KVM_CAP_SET_TSS_ADDR",
        "Intel hosts need room for a task state segment",
    ),
    required(
        Cap::ExtCpuid,
        "KVM_CAP_EXT_CPUID",
        "the guest is told what its processor can do",
    ),
    required(
        Cap::Irqchip,
        "KVM_CAP_IRQCHIP",
        "interrupt controllers in the kernel",
    ),
    required(
        Cap::Pit2,
        "KVM_CAP_PIT2",
        "the timer that guests calibrate with",
    ),
    required(
        Cap::Irqfd,
        "KVM_CAP_IRQFD",
        "devices interrupt without an ioctl",
    ),
    required(
        Cap::Ioeventfd,
        "KVM_CAP_IOEVENTFD",
        "doorbells don't leave the kernel",
    ),
    required(
        Cap::ImmediateExit,
        "KVM_CAP_IMMEDIATE_EXIT",
        "a vCPU can be stopped without a race",
    ),
    optional(
        Cap::CoalescedPio,
        "KVM_CAP_COALESCED_PIO",
        "a serial port that costs fewer exits",
    ),
    optional(
        Cap::IoeventfdNoLength,
        "KVM_CAP_IOEVENTFD_ANY_LENGTH",
        "doorbells of any width",
    ),
    optional(
        Cap::IrqRouting,
        "KVM_CAP_IRQ_ROUTING",
        "devices on PCI interrupt by messages",
    ),
    optional(
        Cap::ReadonlyMem,
        "KVM_CAP_READONLY_MEM",
        "PCI devices that cost fewer exits at boot",
    ),
    optional(
        Cap::MpState,
        "KVM_CAP_MP_STATE",
        "states of processors that wait, for snapshots",
    ),
    optional(
        Cap::VcpuEvents,
        "KVM_CAP_VCPU_EVENTS",
        "pending exceptions, for snapshots",
    ),
    optional(
        Cap::Xsave,
        "KVM_CAP_XSAVE",
        "vector registers, for snapshots",
    ),
    optional(
        Cap::AdjustClock,
        "KVM_CAP_ADJUST_CLOCK",
        "the paravirtual clock, for snapshots",
    ),
    optional(
        Cap::TscDeadlineTimer,
        "KVM_CAP_TSC_DEADLINE_TIMER",
        "the local APIC's precise timer",
    ),
];

/// One capability of the host, as [`System::capabilities`] reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// Its name in the KVM documentation.
    pub name: &'static str,
    /// What it is wanted for.
    pub why: &'static str,
    /// Without it, nothing works: [`System::open`] fails.
    pub required: bool,
    /// The host has it.
    pub present: bool,
}

/// The host's KVM, found usable.
#[derive(Debug)]
pub struct System {
    kvm: Kvm,
}

impl System {
    /// Opens `/dev/kvm`.
    pub fn open() -> Result<Self, Error> {
        Self::open_at(Path::new("/dev/kvm"))
    }

    /// Opens KVM's device where it has another name (in a sandbox, say).
    pub fn open_at(path: &Path) -> Result<Self, Error> {
        // musl would say O_CLOEXEC once more, in a call of its own.
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(
            |errno| Error::Open {
                path: path.to_owned(),
                source: errno.into(),
            },
        )?;
        Self::check(fd, &path.display().to_string())
    }

    /// Takes a descriptor that someone else opened: a process that may not open `/dev/kvm` itself
    /// can be given one.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        Self::check(fd, "the descriptor")
    }

    fn check(fd: OwnedFd, what: &str) -> Result<Self, Error> {
        // SAFETY: from_raw_fd wants a descriptor that is open and that nobody else owns: an
        // `OwnedFd` is that, and gives up its ownership here. That it is KVM's is found out below;
        // until then it only gets an ioctl without argument.
        let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
        let version = kvm.get_api_version();
        if version < 0 {
            return Err(Error::NotKvm {
                what: what.to_owned(),
                source: io::Error::last_os_error(),
            });
        }
        check_version(version)?;
        let missing = missing(&|cap| kvm.check_extension_int(cap));
        if !missing.is_empty() {
            return Err(Error::MissingCapabilities(missing));
        }
        Ok(Self { kvm })
    }

    /// What the host can do of all that we could use.
    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        WANTED
            .iter()
            .map(|wanted| Capability {
                name: wanted.name,
                why: wanted.why,
                required: wanted.required,
                present: self.kvm.check_extension_int(wanted.cap) > 0,
            })
            .collect()
    }

    /// The most vCPUs that one VM can have.
    #[must_use]
    pub fn max_vcpus(&self) -> u32 {
        u32::try_from(self.kvm.get_max_vcpus()).unwrap_or(u32::MAX)
    }

    /// Whether there can be memory that the guest only reads: see
    /// [`Vm::with_rom`](crate::Vm::with_rom).
    #[must_use]
    pub fn has_rom(&self) -> bool {
        self.kvm.check_extension(Cap::ReadonlyMem)
    }

    /// What KVM can give a guest of this host's processor.
    pub fn supported_cpuid(&self) -> Result<CpuId, Error> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::call("KVM_GET_SUPPORTED_CPUID"))
    }

    pub(crate) fn kvm(&self) -> &Kvm {
        &self.kvm
    }
}

fn check_version(found: i32) -> Result<(), Error> {
    if found == API_VERSION {
        Ok(())
    } else {
        Err(Error::ApiVersion {
            found,
            expected: API_VERSION,
        })
    }
}

/// The required capabilities that `check` (which answers as `KVM_CHECK_EXTENSION` does) says are
/// absent.
fn missing(check: &dyn Fn(Cap) -> i32) -> Vec<Missing> {
    WANTED
        .iter()
        .filter(|wanted| wanted.required && check(wanted.cap) <= 0)
        .map(|wanted| Missing {
            name: wanted.name,
            why: wanted.why,
        })
        .collect()
}

#[cfg(test)]
mod tests;
