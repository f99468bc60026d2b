//! What the tests on the real KVM share.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may"
)]

use kvm::bindings::{kvm_regs, kvm_segment};
use kvm::{System, Vcpu, Vm};
use std::io::Write;
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
            skipped(&format!("no /dev/kvm: {test}"));
            None
        }
    }
}

/// Says so on the real standard error, in one write: what a test that passes prints, the harness
/// keeps to itself, and nobody would see it.
pub(crate) fn skipped(why: &str) {
    let line = format!("skipped: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Where guests are loaded: real mode, below 64 KiB, so that it is an offset in segment 0.
pub(crate) const CODE: u64 = 0x1000;
/// Memory that every guest has; an address behind it is MMIO.
pub(crate) const MEMORY: u64 = 0x10000;

/// A VM with this real-mode code, and its vCPU at the code's start. All segments are 0.
pub(crate) fn guest(system: &System, code: &[u8]) -> (Vm, Vcpu) {
    let vm = Vm::new(system, memory(code)).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    start(&vcpu);
    (vm, vcpu)
}

/// Puts the vCPU at the code's start, in real mode.
pub(crate) fn start(vcpu: &Vcpu) {
    let mut sregs = vcpu.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&kvm_regs {
        rip: CODE,
        rflags: 2,
        rsp: 0x8000,
        ..Default::default()
    })
    .unwrap();
}

/// The same in 64-bit mode, with 2 MiB mapped to itself, this `%rdi`, and bytes 1 to 8 in `%rax`.
pub(crate) fn guest64(system: &System, code: &[u8], rdi: u64) -> (Vm, Vcpu) {
    let memory = memory(code);
    for (at, entry) in [(0x3000, 0x4003_u64), (0x4000, 0x5003), (0x5000, 0x83)] {
        memory.write_obj(entry, GuestAddress(at)).unwrap();
    }
    let vm = Vm::new(system, memory).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_cpuid(&system.supported_cpuid().unwrap()).unwrap();
    let mut sregs = vcpu.get_sregs().unwrap();
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        selector: 8,
        type_: 0xb,
        l: 1,
        ..flat
    };
    let data = kvm_segment {
        selector: 16,
        type_: 3,
        db: 1,
        ..flat
    };
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0031, 0x3000, 0x20, 0x500);
    vcpu.set_sregs(&sregs).unwrap();
    let rax = 0x0807_0605_0403_0201;
    vcpu.set_regs(&kvm_regs {
        rip: CODE,
        rflags: 2,
        rsp: 0x8000,
        rdi,
        rax,
        ..Default::default()
    })
    .unwrap();
    (vm, vcpu)
}

fn memory(code: &[u8]) -> Arc<GuestMemoryMmap<()>> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    Arc::new(memory)
}
