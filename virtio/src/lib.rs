//! Virtio 1.2 devices, the rings they are driven by, and their host side.
//!
//! This crate knows nothing of KVM: an interrupt is the [`Irq`] trait, a doorbell an
//! event descriptor, guest memory is `vm-memory`. So all of it is tested, fuzzed and
//! measured without a hypervisor.
//!
//! Layers, each written once (section numbers are those of the virtio 1.2 text):
//!
//! ```text
//!  transport::mmio      register decode: offsets -> Core calls; where the doorbells are   (4.2)
//!  transport::pci       likewise, in a PCI function with MSI-X                            (4.1)
//!  transport (Core)     device status, feature negotiation, queue set-up, reset          (2, 3)
//!  worker               the threads of an *active* device: wait, failure policy, hand-back
//!  Device               block, console, net, rng, ...: a state machine without a thread              (5)
//!  queue                ring layouts behind one concrete type                       (2.7, 2.8)
//! ```
//!
//! While the driver sets a device up, its transport owns the [`Device`] and a
//! [`queue::QueueConfig`] per queue. At `DRIVER_OK` both *move* into a [`worker`], and come
//! back when it is stopped: reset, pause and shutdown are all made of that one mechanism.

pub mod block;
pub mod config;
pub mod console;
pub mod device;
pub mod error;
pub mod features;
pub mod io;
pub mod memory;
pub mod net;
mod poll;
pub mod queue;
pub mod rng;
mod slices;
pub mod stream;
mod sys;
pub mod testing;
pub mod transport;
pub mod worker;

pub use config::ConfigSpace;
pub use device::{Device, Event, Irq, Kind, Lane, Spec};
pub use error::Error;
pub use io::Io;
pub use memory::GuestMemory;
pub use queue::{Chain, Queue, Step, Token};
