//! Interrupts by messages: they arrive, and what makes no sense arrives nowhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may")]

mod common;

use common::{guest, system};
use kvm::{Error, Exit, MsiMessage, Vcpu, Vm};

/// Waits for vectors 0x25 and 0x26 after an `out` to port 0x80; each writes to a port of its own.
/// Vector 0x25 is what input 5 of the first PIC gives, too.
fn waiting_guest(system: &kvm::System) -> (Vm, Vcpu) {
    let mut code = vec![
        0xb0, 0x11, 0xe6, 0x20, // ICW1
        0xb0, 0x20, 0xe6, 0x21, // ICW2: the first vector
        0xb0, 0x04, 0xe6, 0x21, // ICW3
        0xb0, 0x01, 0xe6, 0x21, // ICW4
        0xb0, 0xdf, 0xe6, 0x21, // OCW1: all masked but 5
        0xc7, 0x06, 0x94, 0x00, 0x00, 0x11, // movw $0x1100,0x94: the handler of vector 0x25
        0xc7, 0x06, 0x96, 0x00, 0x00, 0x00, // movw $0,0x96: its segment
        0xc7, 0x06, 0x98, 0x00, 0x10, 0x11, // movw $0x1110,0x98: the handler of vector 0x26
        0xc7, 0x06, 0x9a, 0x00, 0x00, 0x00, // movw $0,0x9a
        0xe6, 0x80, // out %al,$0x80
        0xfb, 0xf4, // sti; hlt
        0xeb, 0xfc, // jmp to the sti
    ];
    code.resize(0x100, 0x90);
    code.extend([0xe6, 0x85]); // out %al,$0x85
    code.resize(0x110, 0x90);
    code.extend([0xe6, 0x86]); // out %al,$0x86
    let (vm, mut vcpu) = guest(system, &code);
    let mut lapic = vcpu.get_lapic().unwrap();
    // The spurious vector register has the switch that turns the APIC on.
    lapic.regs[0xf0..0xf4].copy_from_slice(&0x1ff_u32.to_le_bytes().map(|b| b as _));
    // LINT0 passes the PIC on.
    lapic.regs[0x350..0x354].copy_from_slice(&0x700_u32.to_le_bytes().map(|b| b as _));
    vcpu.set_lapic(&lapic).unwrap();
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x80, .. }), "{exit:?}");
    (vm, vcpu)
}

fn to_first_apic(vector: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000,
        data: vector,
    }
}

#[test]
fn message_interrupts_a_guest_that_halts_as_it_was_told_last() {
    let Some(system) = system("a message") else {
        return;
    };
    let (vm, mut vcpu) = waiting_guest(&system);
    let (one, other) = (vm.msi_vector().unwrap(), vm.msi_vector().unwrap());
    one.route(to_first_apic(0x25)).unwrap();
    other.route(to_first_apic(0x26)).unwrap();
    one.route(to_first_apic(0x26)).unwrap();
    other.route(to_first_apic(0x25)).unwrap();

    one.trigger();

    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x86, .. }), "{exit:?}");
}

#[test]
fn vector_without_a_message_or_with_a_refused_one_interrupts_nobody() {
    let Some(system) = system("no message") else {
        return;
    };
    let (vm, mut vcpu) = waiting_guest(&system);
    let (silent, refused) = (vm.msi_vector().unwrap(), vm.msi_vector().unwrap());
    let good = vm.msi_vector().unwrap();
    refused.route(to_first_apic(0x25)).unwrap();
    let message = MsiMessage {
        address: 0x1000,
        data: 0x25,
    };
    let error = refused.route(message).unwrap_err();
    assert!(
        matches!(error, Error::MsiAddress { address: 0x1000 }),
        "{error}"
    );
    good.route(to_first_apic(0x26)).unwrap();

    silent.trigger();
    refused.trigger();
    good.trigger();

    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x86, .. }), "{exit:?}");
}

#[test]
fn lines_work_as_before_once_there_are_messages() {
    let Some(system) = system("lines beside messages") else {
        return;
    };
    let (vm, mut vcpu) = waiting_guest(&system);
    let vector = vm.msi_vector().unwrap();
    vector.route(to_first_apic(0x26)).unwrap();
    let line = vm.irqfd(5).unwrap();

    line.trigger();

    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x85, .. }), "{exit:?}");
}

#[test]
fn vectors_made_and_dropped_more_often_than_there_are_routes_all_work() {
    let Some(system) = system("10000 vectors") else {
        return;
    };
    let (vm, mut vcpu) = waiting_guest(&system);
    for _ in 0..10_000 {
        drop(vm.msi_vector().unwrap());
    }
    for _ in 0..20 {
        let vector = vm.msi_vector().unwrap();
        vector.route(to_first_apic(0x26)).unwrap();
    }
    let vector = vm.msi_vector().unwrap();
    vector.route(to_first_apic(0x25)).unwrap();

    vector.trigger();

    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x85, .. }), "{exit:?}");
}
