//! What differs between processor architectures.
//!
//! These are the only lines of the crate that ask which architecture it is. Each one exports:
//!
//! | name | what it is |
//! | --- | --- |
//! | `layout` | where everything is: RAM, devices, ports, interrupt lines |
//! | `cpuid`, `msr` | how a processor looks before its first instruction |
//! | `boot` | the loader's register state in KVM's form |

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{boot, cpuid, layout, msr};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("hype runs on x86_64 only");
