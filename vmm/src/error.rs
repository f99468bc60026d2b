//! What can go wrong with a machine, other than what guests do to themselves.

use crate::config::{Problem, Problems};
use crate::memory;
use crate::outcome::CrashReport;
use crate::state::State;
use std::io;

/// Why a machine could not be built, run or controlled.
///
/// A message says what was being done; why it failed is in [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong; all that is wrong with it, one line each.
    #[error(transparent)]
    Config(#[from] Problems),

    /// KVM refused.
    #[error("KVM failed while {doing}")]
    Kvm {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: kvm::Error,
    },

    /// Guest memory could not be had.
    #[error("guest memory can't be had")]
    Memory(#[from] memory::Error),

    /// A part of the machine does not fit together with another.
    #[error("{what} can't be put together")]
    Board {
        /// Which part.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The host gives no descriptor, pipe or thread to a part of the machine.
    #[error("the host fails {what}")]
    Host {
        /// Which part.
        what: &'static str,
        /// Why.
        source: io::Error,
    },

    /// The loader failed: hype's own, or the one that the caller gave.
    #[error("the guest can't be loaded")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A virtio device could not be set up, paused or resumed.
    #[error("device {device} can't be {done}")]
    Device {
        /// The name of the device.
        device: String,
        /// "set up", "paused" or "resumed".
        done: &'static str,
        /// Why not.
        source: virtio::Error,
    },

    /// A thread could not be started.
    #[error("thread {name} can't be started")]
    Thread {
        /// What it was to be called.
        name: String,
        /// Why not.
        source: io::Error,
    },

    /// A device's worker panicked: a bug in the device.
    #[error("device {device} panicked: {message}")]
    DevicePanicked {
        /// The name of the device.
        device: String,
        /// What the panic said.
        message: String,
    },

    /// A device waits for the host, which does not answer, and its driver wants it reset: the host
    /// may yet write into memory that the guest uses for something else.
    #[error("device {device} waits for the host and can't be reset")]
    DeviceStuck {
        /// The name of the device.
        device: String,
    },

    /// The thread of a vCPU panicked: a bug in hype.
    #[error("the thread of vCPU {cpu} panicked")]
    VcpuPanicked {
        /// Which vCPU.
        cpu: u32,
    },

    /// The machine is in a state in which it can't do that.
    #[error("can't {step} a machine that is {state}")]
    State {
        /// What was asked for.
        step: &'static str,
        /// The state the machine was in.
        state: State,
    },

    /// The machine has no power button, because it has no ACPI.
    #[error("the machine has no power button, because it has no ACPI")]
    NoPowerButton,

    /// KVM met an instruction that it can't carry out: code in device memory, or an instruction
    /// that KVM doesn't emulate on memory that is not RAM.
    #[error("KVM can't carry out an instruction of the guest (internal error {suberror}): {at}")]
    Emulation {
        /// KVM's number for the reason: 1 is an instruction that could not be emulated.
        suberror: u32,
        /// Where, and which instruction.
        at: CrashReport,
    },

    /// The processor refused to enter the guest.
    #[error("the processor refused to enter the guest (hardware reason {reason:#x}): {at}")]
    FailEntry {
        /// What the processor says.
        reason: u64,
        /// The state it refused.
        at: CrashReport,
    },

    /// The host can't provide the memory behind an address of the guest's.
    #[error("the memory behind guest address {addr:#x} is lost: {at}")]
    MemoryFault {
        /// The guest-physical address.
        addr: u64,
        /// Where the guest was.
        at: CrashReport,
    },

    /// `KVM_RUN` returned for a reason that hype never asked for.
    #[error("KVM stopped the guest for an unexpected reason ({name}, {reason}): {at}")]
    UnexpectedExit {
        /// KVM's number.
        reason: u64,
        /// KVM's name for it, where there is one.
        name: &'static str,
        /// Where the guest was.
        at: CrashReport,
    },

    /// `KVM_RUN` failed.
    #[error("vCPU {cpu} can't run")]
    Run {
        /// Which vCPU.
        cpu: u32,
        /// Why not.
        source: kvm::Error,
    },
}

impl Error {
    /// What the user may do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Kvm { source, .. } | Error::Run { source, .. } => source.hint(),
            _ => None,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::Config(Problems::from(problem))
    }
}
