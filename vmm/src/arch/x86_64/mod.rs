//! The PC: a processor with a local APIC each, one I/O APIC, port I/O.

pub mod boot;
pub mod cpuid;
pub mod layout;
pub mod msr;
