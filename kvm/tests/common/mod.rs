//! What the tests on the real KVM share.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may"
)]

use kvm::{System, Vcpu, Vm};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The host's KVM; or a line that says that the test was skipped, and `None`. With
/// `HYPE_REQUIRE_KVM=1` in the environment there is no skipping.
pub(crate) fn system(test: &str) -> Option<System> {
    match System::open() {
        Ok(system) => Some(system),
        Err(error) if std::env::var_os("HYPE_REQUIRE_KVM").is_some_and(|v| v == "1") => {
            panic!("HYPE_REQUIRE_KVM=1, and {error}: {error:?}")
        }
        Err(_) => {
            eprintln!("skipped: no /dev/kvm: {test}");
            None
        }
    }
}

/// Where guests are loaded: real mode, below 64 KiB, so that it is an offset in segment 0.
pub(crate) const CODE: u64 = 0x1000;
/// Memory that every guest has; an address behind it is MMIO.
pub(crate) const MEMORY: u64 = 0x10000;

/// A VM with this real-mode code, and its vCPU at the code's start.
pub(crate) fn guest(system: &System, code: &[u8]) -> (Vm, Vcpu) {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    let vm = Vm::new(system, Arc::new(memory)).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    start(&vcpu);
    (vm, vcpu)
}

/// Puts the vCPU at the code's start: in real mode, with flat 4 GiB data segments ("unreal mode"),
/// so that an address of 32 bits reaches MMIO.
pub(crate) fn start(vcpu: &Vcpu) {
    let mut sregs = vcpu.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    (regs.rip, regs.rflags, regs.rsp) = (CODE, 2, 0x8000);
    vcpu.set_regs(&regs).unwrap();
}
