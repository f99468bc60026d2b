//! What a machine is made of: plain data, checked as a whole before anything is built.

use crate::Loader;
use crate::arch::layout::{PCI_FUNCTIONS_MAX, VIRTIO_MMIO_MAX};
use crate::memory;
use loader::Payload;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use virtio::stream::{Input, Output};
use virtio::transport::Rings;
use virtio::{Device, Kind};

/// vCPU numbers are local APIC identifiers of 8 bits; 255 addresses all of them, and Linux keeps
/// one for the I/O APIC. KVM may allow fewer.
pub const MAX_CPUS: u32 = 254;

/// A machine to be.
///
/// [`Default`] gives one vCPU and 1 GiB; what has to be added is something to boot: a
/// [`payload`](Self::payload), or a [`loader`](Self::loader) of one's own.
///
/// Files and sockets come in opened, or as paths that are opened once; the machine neither
/// looks at the environment nor touches the process's limits, signals (but for the one that
/// kicks vCPUs) or standard streams.
pub struct Config {
    /// The number of vCPUs.
    pub cpus: u32,
    /// Bytes of guest memory; a multiple of 4 KiB.
    pub memory: u64,
    /// The kernel to boot, its initrd and its command line.
    pub payload: Option<Payload>,
    /// What puts the payload into memory, if it is not [`loader::load`].
    pub loader: Option<Box<dyn Loader>>,
    /// The virtio devices, in the order in which the guest finds them.
    pub devices: Vec<VirtioDevice>,
    /// Where the devices are that have no [transport](VirtioDevice::transport) of their own; None
    /// puts each [where its kind is best](Transport::of).
    pub transport: Option<Transport>,
    /// The serial port, which a PC calls COM1 and Linux ttyS0.
    pub serial: Option<SerialPort>,
    /// Whether the guest gets ACPI tables: without them it can't switch itself off, has no power
    /// button, and finds its devices by `virtio_mmio.device=` on its command line.
    pub acpi: bool,
    /// Where KVM is.
    pub kvm: KvmSource,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cpus: 1,
            memory: 1 << 30,
            payload: None,
            loader: None,
            devices: Vec::new(),
            transport: None,
            serial: None,
            acpi: true,
            kvm: KvmSource::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("cpus", &self.cpus)
            .field("memory", &self.memory)
            .field("payload", &self.payload)
            .field("loader", &self.loader.as_ref().map(|_| "replaced"))
            .field("devices", &self.devices)
            .field("transport", &self.transport)
            .field("serial", &self.serial.is_some())
            .field("acpi", &self.acpi)
            .field("kvm", &self.kvm)
            .finish()
    }
}

/// How a guest reaches a virtio device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A window of registers and an interrupt line: the fewest exits on the way to a prompt.
    Mmio,
    /// A function on the PCI bus: an interrupt for each queue, without an exit, and what every
    /// kernel has a driver for.
    Pci,
}

impl Transport {
    /// Where devices of a kind are if nobody says otherwise: disks and network cards on PCI, for
    /// they interrupt often, and a distribution's initrd finds them there; all else on MMIO. So a
    /// machine that has neither has no PCI bus.
    pub const fn of(kind: Kind) -> Transport {
        match kind {
            Kind::Block | Kind::Net => Transport::Pci,
            _ => Transport::Mmio,
        }
    }

    /// The most devices that a machine can have there.
    fn places(self) -> usize {
        match self {
            Transport::Mmio => VIRTIO_MMIO_MAX,
            Transport::Pci => PCI_FUNCTIONS_MAX,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Mmio => "mmio",
            Transport::Pci => "pci",
        })
    }
}

/// A virtio device of a machine; made from any [`Device`] with `into()`.
pub struct VirtioDevice {
    pub(crate) device: Box<dyn Device>,
    pub(crate) rings: Rings,
    pub(crate) transport: Option<Transport>,
}

impl VirtioDevice {
    /// Limits the ring layouts that the device's driver may choose from.
    #[must_use]
    pub fn rings(mut self, rings: Rings) -> Self {
        self.rings = rings;
        self
    }

    /// Puts the device somewhere else than the [others](Config::transport).
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }
}

impl<D: Device> From<D> for VirtioDevice {
    fn from(device: D) -> Self {
        VirtioDevice {
            device: Box::new(device),
            rings: Rings::default(),
            transport: None,
        }
    }
}

impl fmt::Debug for VirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.device.spec().name)
    }
}

/// The two directions of the serial port; either may be absent.
#[derive(Default)]
pub struct SerialPort {
    /// What the guest reads.
    pub input: Option<Input>,
    /// Where it writes to.
    pub output: Option<Output>,
}

/// Where KVM is.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum KvmSource {
    /// `/dev/kvm`.
    #[default]
    Default,
    /// Another path.
    Path(PathBuf),
    /// A descriptor, opened by somebody with the permission to do so.
    Fd(OwnedFd),
}

impl Config {
    /// Finds everything that is wrong with this configuration, as far as it can be told without
    /// building the machine. [`Vm::new`](crate::Vm::new) does it too.
    pub fn validate(&self) -> Result<(), Problems> {
        self.examine().map(drop)
    }

    /// Where a device of this machine is.
    pub(crate) fn transport_of(&self, device: &VirtioDevice) -> Transport {
        let of_all = device.transport.or(self.transport);
        of_all.unwrap_or_else(|| Transport::of(device.device.spec().kind))
    }

    /// How many devices are on a transport.
    pub(crate) fn count(&self, transport: Transport) -> usize {
        let of_it = |device: &&VirtioDevice| self.transport_of(device) == transport;
        self.devices.iter().filter(of_it).count()
    }

    /// [`validate`](Self::validate), and the payload that it has opened on the way: None where
    /// somebody else loads.
    pub(crate) fn examine(&self) -> Result<Option<loader::Opened>, Problems> {
        let mut problems = Vec::new();
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            problems.push(Problem::Cpus {
                cpus: self.cpus,
                max: MAX_CPUS,
            });
        }
        problems.extend(memory::check(self.memory).err().map(Problem::Memory));
        for transport in [Transport::Mmio, Transport::Pci] {
            let devices = self.count(transport);
            let max = transport.places();
            if devices > max {
                problems.push(Problem::Devices {
                    devices,
                    transport,
                    max,
                });
            }
        }
        let mut opened = None;
        match (&self.loader, &self.payload) {
            (None, None) => problems.push(Problem::NothingToBoot),
            (None, Some(payload)) => match loader::open(payload) {
                Ok(payload) => opened = Some(payload),
                Err(errors) => problems.extend(errors.into_iter().map(Problem::Payload)),
            },
            (Some(_), _) => {}
        }
        if problems.is_empty() {
            Ok(opened)
        } else {
            Err(Problems(problems))
        }
    }
}

/// Everything that is wrong with a [`Config`]; there is at least one thing.
///
/// Shown one line each, with the cause after the colon where there is one.
#[derive(Debug)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
            // A list has no single source() that a caller could print after it.
            let mut source = std::error::Error::source(problem);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Problems(vec![problem])
    }
}

/// One thing that is wrong with a [`Config`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No vCPU, or too many.
    #[error("{cpus} vCPUs: the number must be 1 to {max}")]
    Cpus {
        /// As configured.
        cpus: u32,
        /// The limit.
        max: u32,
    },
    /// A size that guest memory can't have.
    #[error(transparent)]
    Memory(memory::Error),
    /// More devices than there are places for.
    #[error("{devices} virtio devices on {transport}: there are places for {max}")]
    Devices {
        /// As configured.
        devices: usize,
        /// Where.
        transport: Transport,
        /// The limit.
        max: usize,
    },
    /// Neither payload nor loader.
    #[error("nothing to boot: neither a payload nor a loader of the caller's")]
    NothingToBoot,
    /// The payload can't be booted.
    #[error("the payload can't be booted")]
    Payload(#[source] loader::Error),
}

#[cfg(test)]
mod tests;
