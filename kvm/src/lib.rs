//! What `hype` adds over [`kvm_ioctls`]: the part of a VMM that talks to `/dev/kvm`.
//!
//! The problem: the KVM interface is a set of ioctls whose rules live in prose. Steps have an
//! order, pages are shared with the kernel, registrations must be undone, a vCPU can be stopped
//! only by a signal, and what a host lacks shows late and as a bare errno. The design turns those
//! rules into types:
//!
//! - [`System`]: one open that names *all* missing capabilities, with hints that fix it.
//! - [`Vm`]: memory slots, then interrupt controllers, in the one order that is quick; it keeps the
//!   guest memory alive.
//! - [`Rom`]: memory that the guest only reads, and its end.
//! - [`IrqFd`], [`MsiVector`], [`IoEventFd`], [`CoalescedPio`]: registrations that end when they are
//!   dropped.
//! - [`CoalescedRing`]: port writes that the kernel gathered, taken out without trusting an index.
//! - [`Vcpu`]: [`run`](Vcpu::run) gives an [`Exit`] that borrows from the page shared with the
//!   kernel, and [`settle`](Vcpu::settle) completes what an exit left half-done.
//! - [`Kick`]: makes a vCPU leave the guest, from any thread, without a lost request.
//! - [`probe`]: can this KVM run an unmodified kernel at all?
//!
//! What it does not do: it knows no devices, no boot protocol and no guest; it starts no thread
//! (but for the time of a probe) and prints nothing. It is for x86-64 hosts.
//!
//! `unsafe` is where the kernel is at the other end of a pointer or a descriptor: taking over the
//! descriptor (`system`), memory slots (`vm`, `rom`), `KVM_RUN` (`vcpu`), the pages shared with the kernel
//! (`run_page`, `exit`, `coalesced`), the kick's signal handler (`kick`), and the memory of the
//! probe's guests (`probe::memory`).

mod coalesced;
mod error;
mod event;
mod exit;
mod kick;
mod msi;
pub mod probe;
mod rom;
mod run_page;
mod system;
mod vcpu;
mod vm;

pub use coalesced::{CoalescedPio, CoalescedRing, CoalescedWrite};
pub use error::{Error, Missing};
pub use event::{DataMatch, IoAddress, IoEventFd, IrqFd};
pub use exit::Exit;
pub use kick::{Binding, Kick, signal};
pub use msi::{MsiMessage, MsiVector};
pub use rom::Rom;
pub use system::{Capability, System};
pub use vcpu::Vcpu;
pub use vm::{PIC_AND_IOAPIC_GSIS, Vm};

pub use kvm_bindings as bindings;
