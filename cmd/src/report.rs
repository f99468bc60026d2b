//! How a run ended: one exit status, and where there is something to say, one sentence.

use crate::say;
use std::error::Error;
use std::process::ExitCode;
use vmm::Outcome;
use vmm::virtio::Kind;

/// The exit statuses of `hype`, as its help lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The guest powered off, or the user quit.
    Success = 0,
    /// Something failed, or the guest had to be stopped.
    Failure = 1,
    /// The guest asked for a reboot.
    Reboot = 2,
    /// A triple fault.
    Crashed = 3,
    /// The guest's kernel panicked.
    Panicked = 34,
    /// The command line makes no sense.
    Usage = 64,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status as u8)
    }
}

/// Says what failed, and what would mend it.
pub fn failure(error: &(dyn Error + 'static)) -> Status {
    say::error(error);
    if let Some(hint) = hint(error) {
        say::line(format_args!("hint: {hint}"));
    }
    Status::Failure
}

/// The first hint that the error or one of its causes has.
fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(hint) = error
            .downcast_ref::<vmm::kvm::Error>()
            .and_then(vmm::kvm::Error::hint)
        {
            return Some(hint);
        }
        next = error.source();
    }
    None
}

/// The kernel option without which a guest has no driver for a device.
pub fn kernel_option(kind: Kind) -> &'static str {
    match kind {
        Kind::Net => "CONFIG_VIRTIO_NET",
        Kind::Block => "CONFIG_VIRTIO_BLK",
        Kind::Console => "CONFIG_VIRTIO_CONSOLE",
        Kind::Rng => "CONFIG_HW_RANDOM_VIRTIO",
        Kind::Vsock => "CONFIG_VIRTIO_VSOCKETS",
        _ => "the driver of this device",
    }
}

/// Names the devices that the guest never started, and what its kernel lacks for them.
pub fn unstarted(report: &vmm::Report) {
    for device in report.unstarted() {
        say::line(format_args!(
            "hype: the guest never started {}; its kernel needs {} and CONFIG_VIRTIO_MMIO for it",
            device.name,
            kernel_option(device.kind)
        ));
    }
}

/// Says how the machine ended, where that was no orderly end. `quit`: by the user's own hand.
pub fn outcome(outcome: &Outcome, quit: bool) -> Status {
    let status = match outcome {
        Outcome::Shutdown => return Status::Success,
        Outcome::Reboot => return Status::Reboot,
        Outcome::Stopped if quit => return Status::Success,
        Outcome::Stopped => return Status::Failure,
        Outcome::Panicked => Status::Panicked,
        Outcome::Crashed(_) => Status::Crashed,
        _ => Status::Failure,
    };
    say::line(format_args!("hype: {outcome}"));
    status
}
