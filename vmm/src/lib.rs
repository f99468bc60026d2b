//! A Linux virtual machine inside your own process.
//!
//! ```no_run
//! use vmm::loader::Payload;
//! use vmm::virtio::{console::Console, stream::Output};
//! use vmm::{Config, Outcome, Vm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default();
//! config.payload = Some(
//!     Payload::linux("bzImage").initrd("initrd.cpio.gz").cmdline("console=hvc0"),
//! );
//! let output = Output::writer(std::io::stdout());
//! config.devices.push(Console::new(None, Some(output)).into());
//!
//! let vm = Vm::new(config)?; // builds; nothing runs
//! let handle = vm.handle(); // for other threads: pause, resume, stop, power_button, report
//! match vm.run()? {
//!     Outcome::Shutdown => println!("{}", handle.report().total_exits()),
//!     outcome => println!("{outcome}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Design
//!
//! ```text
//!   Config --validate--> Vm::new --------------------------> Vm --run--> Outcome
//!   (plain data)         memory, KVM, vCPUs, devices,         |
//!                        tables, guest: in `vm`               +--handle--> Handle (any thread)
//!
//!   vcpu     one thread each: exit in, entry out      gate     run, hold, end: told to vCPUs
//!   bus      address -> device                        control  vCPUs and devices, in order
//!   window   a virtio device at an address            state    the table of states
//!   pci      a bus of virtio devices                  plugged  a virtio device, wherever it is
//!   acpi, legacy, memory, arch: the machine that the guest sees
//! ```
//!
//! The crate puts [`kvm`], [`loader`] and [`virtio`] together, which know nothing of each other,
//! and passes them on: an embedder needs no other dependency. As many machines as the host can
//! hold live side by side in a process.
//!
//! # What it does not do
//!
//! It does not print, exit, read the environment, change the process's limits or install signal
//! handlers, with one exception: the real-time signal that gets vCPUs out of the guest (see
//! [`kvm::signal`]) gets its handler when the first vCPU runs, and keeps it. It knows neither
//! flags nor terminals; these are the command's.

mod acpi;
mod arch;
mod boot;
mod bus;
mod cmdline;
mod config;
mod control;
mod crash;
mod error;
mod exits;
mod gate;
mod gathered;
mod handle;
mod irq;
mod legacy;
mod memory;
mod outcome;
mod pci;
mod plugged;
mod state;
mod vcpu;
mod vm;
mod window;

pub use boot::{DeviceWindow, Guest, Loader};
pub use config::{
    Config, KvmSource, MAX_CPUS, Problem, Problems, SerialPort, Transport, VirtioDevice,
};
pub use error::Error;
pub use exits::Exits;
pub use handle::{DeviceReport, Handle, Report};
pub use memory::Error as MemoryError;
pub use outcome::{CrashReport, Outcome};
pub use state::State;
pub use vm::Vm;
/// The layers below, so that an embedder needs one dependency only.
pub use {kvm, loader, virtio, vm_memory};

/// The README's code, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
