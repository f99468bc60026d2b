//! How a run ended: one exit status, and where there is something to say, one sentence.

use crate::control::Stop;
use crate::explain::Values;
use crate::{net, say};
use std::error::Error;
use std::process::ExitCode;
use vmm::virtio::Kind;
use vmm::{Outcome, Transport};

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
    mend(error)
}

/// The same for a machine: in the words of the command line, a line for each thing that is wrong.
pub fn machine_failure(error: &vmm::Error, values: &Values) -> Status {
    for line in values.explain(error) {
        say::line(format_args!("hype: {line}"));
    }
    mend(error)
}

fn mend(error: &(dyn Error + 'static)) -> Status {
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
            .or_else(|| {
                error
                    .downcast_ref::<vmm::virtio::block::Error>()
                    .and_then(vmm::virtio::block::Error::hint)
            })
            .or_else(|| error.downcast_ref().and_then(net::Cause::hint))
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

/// The kernel option without which a guest finds no device there.
fn transport_option(transport: Transport) -> &'static str {
    match transport {
        Transport::Pci => "CONFIG_VIRTIO_PCI",
        _ => "CONFIG_VIRTIO_MMIO",
    }
}

/// Names the devices that the guest never started, and what its kernel lacks for them. Not the
/// entropy device: it is always there, and nobody asked for it.
pub fn unstarted(report: &vmm::Report) {
    let asked_for = |device: &&vmm::DeviceReport| device.kind != Kind::Rng;
    for device in report.unstarted().filter(asked_for) {
        say::line(format_args!(
            "hype: the guest never started {}; its kernel needs {} and {} for it",
            device.name,
            kernel_option(device.kind),
            transport_option(device.transport)
        ));
    }
}

/// Says how the machine ended, where that was no orderly end.
pub fn outcome(outcome: &Outcome, stopped: Option<Stop>) -> Status {
    let (status, why) = match (outcome, stopped) {
        (Outcome::Shutdown, _) => return Status::Success,
        (Outcome::Reboot, _) => return Status::Reboot,
        (Outcome::Stopped, Some(Stop::Quit)) => return Status::Success,
        (Outcome::Stopped, Some(Stop::Overdue)) => (
            Status::Failure,
            "the guest did not power off when asked, and was stopped",
        ),
        (Outcome::Stopped, _) => (Status::Failure, "the guest was stopped by a signal"),
        (Outcome::Panicked, _) => (Status::Panicked, "the guest's kernel panicked"),
        (outcome, _) => {
            say::line(format_args!("hype: {outcome}"));
            return match outcome {
                Outcome::Crashed(_) => Status::Crashed,
                _ => Status::Failure,
            };
        }
    };
    say::line(format_args!("hype: {why}"));
    status
}
