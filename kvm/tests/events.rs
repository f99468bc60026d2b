//! Registrations with a VM: they work, and end when they are dropped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may")]

mod common;

use common::{guest, start, system};
use kvm::{DataMatch, Error, Exit, IoAddress, System};
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn event() -> Arc<EventFd> {
    Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())
}

/// Writes 7 to port 0x500 and 8 to port 0x510, byte by byte.
const TWO_PORTS: [u8; 12] = [
    0xba, 0x00, 0x05, // mov $0x500,%dx
    0xb0, 0x07, // mov $7,%al
    0xee, // out %al,(%dx)
    0xb2, 0x10, // mov $0x10,%dl
    0xb0, 0x08, // mov $8,%al
    0xee, // out %al,(%dx)
    0xf4, // hlt
];

#[test]
fn doorbell_on_a_port_takes_the_write_until_it_is_dropped() {
    let Some(system) = system("ioeventfd on a port") else {
        return;
    };
    let (vm, mut vcpu) = guest(&system, &TWO_PORTS);
    let event = event();
    let doorbell = vm
        .ioeventfd(IoAddress::Pio(0x500), None, Arc::clone(&event))
        .unwrap();

    let exit = vcpu.run().unwrap();

    assert!(matches!(exit, Exit::IoOut { port: 0x510, .. }), "{exit:?}");
    assert_eq!(event.read().unwrap(), 1);
    drop(doorbell);
    start(&vcpu);
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x500, .. }), "{exit:?}");
    assert!(event.read().is_err());
}

#[test]
fn doorbell_with_a_value_takes_only_that_value() {
    let Some(system) = system("ioeventfd with a value") else {
        return;
    };
    let (vm, mut vcpu) = guest(&system, &TWO_PORTS);
    let (seven, eight) = (event(), event());
    let value = |value| Some(DataMatch::U8(value));
    let _other = vm
        .ioeventfd(IoAddress::Pio(0x500), value(8), Arc::clone(&eight))
        .unwrap();

    let exit = vcpu.run().unwrap();

    assert!(
        matches!(
            exit,
            Exit::IoOut {
                port: 0x500,
                data: [7],
                ..
            }
        ),
        "{exit:?}"
    );
    assert!(eight.read().is_err());
    let _same = vm
        .ioeventfd(IoAddress::Pio(0x500), value(7), Arc::clone(&seven))
        .unwrap();
    start(&vcpu);
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x510, .. }), "{exit:?}");
    assert_eq!(seven.read().unwrap(), 1);
}

#[test]
fn doorbells_in_memory_of_every_width_are_rung_by_that_width() {
    let Some(system) = system("ioeventfd in memory") else {
        return;
    };
    for (code, value) in [
        (&[0x88, 0x07][..], DataMatch::U8(0x01)), // mov %al,(%rdi)
        (&[0x66, 0x89, 0x07], DataMatch::U16(0x0201)),
        (&[0x89, 0x07], DataMatch::U32(0x0403_0201)),
        (&[0x48, 0x89, 0x07], DataMatch::U64(0x0807_0605_0403_0201)),
    ] {
        let mut code = code.to_vec();
        code.extend([0xe6, 0x80]); // out %al,$0x80
        let (vm, mut vcpu) = common::guest64(&system, &code, common::MEMORY);
        let event = event();
        let at = IoAddress::Mmio(common::MEMORY);
        let _doorbell = vm.ioeventfd(at, Some(value), Arc::clone(&event)).unwrap();

        let exit = vcpu.run().unwrap();

        assert!(
            matches!(exit, Exit::IoOut { port: 0x80, .. }),
            "{value:?}: {exit:?}"
        );
        assert_eq!(event.read().unwrap(), 1, "{value:?}");
    }
}

#[test]
fn second_doorbell_at_one_address_is_refused_with_the_address() {
    let Some(system) = system("two ioeventfds") else {
        return;
    };
    let (vm, _vcpu) = guest(&system, &[]);
    let _first = vm
        .ioeventfd(IoAddress::Mmio(0xd000_0050), None, event())
        .unwrap();

    let error = vm
        .ioeventfd(IoAddress::Mmio(0xd000_0050), None, event())
        .unwrap_err();

    assert!(error.to_string().contains("address 0xd0000050"), "{error}");
}

/// KVM refuses a second doorbell at one place, so one that is not given back is missed at once.
#[test]
fn doorbells_created_and_dropped_again_and_again_at_one_place_all_work() {
    let Some(system) = system("60 ioeventfds") else {
        return;
    };
    let (vm, _vcpu) = guest(&system, &[]);
    let event = event();

    for round in 0..20 {
        let at = if round % 2 == 0 {
            IoAddress::Mmio(0xd000_0050)
        } else {
            IoAddress::Pio(0x500)
        };
        for value in [None, Some(DataMatch::U16(1)), Some(DataMatch::U32(1))] {
            let doorbell = vm.ioeventfd(at, value, Arc::clone(&event));
            assert!(doorbell.is_ok(), "{round}: {doorbell:?}");
        }
    }
}

#[test]
fn irqfd_interrupts_a_guest_that_halts() {
    let Some(system) = system("irqfd") else {
        return;
    };
    // Sets up the first PIC with vectors from 0x20, and enables only input 5.
    let code = [
        0xb0, 0x11, 0xe6, 0x20, // ICW1
        0xb0, 0x20, 0xe6, 0x21, // ICW2: the first vector
        0xb0, 0x04, 0xe6, 0x21, // ICW3
        0xb0, 0x01, 0xe6, 0x21, // ICW4
        0xb0, 0xdf, 0xe6, 0x21, // OCW1: all masked but 5
        0xc7, 0x06, 0x94, 0x00, 0x00, 0x11, // movw $0x1100,0x94: the handler of vector 0x25
        0xc7, 0x06, 0x96, 0x00, 0x00, 0x00, // movw $0,0x96: its segment
        0xe6, 0x80, // out %al,$0x80
        0xfb, 0xf4, // sti; hlt
    ];
    let mut code = code.to_vec();
    code.resize(0x100, 0x90);
    code.extend([0xe6, 0x81]); // out %al,$0x81
    let (vm, mut vcpu) = guest(&system, &code);
    let mut sregs = vcpu.get_sregs().unwrap();
    // The local APIC of a first vCPU passes the PIC on only if LINT0 is programmed so.
    sregs.cr8 = 0;
    vcpu.set_sregs(&sregs).unwrap();
    let mut lapic = vcpu.get_lapic().unwrap();
    lapic.regs[0x350..0x354].copy_from_slice(&0x700_u32.to_le_bytes().map(|b| b as _));
    vcpu.set_lapic(&lapic).unwrap();
    let irq = vm.irqfd(5).unwrap();
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x80, .. }), "{exit:?}");

    irq.trigger();

    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { port: 0x81, .. }), "{exit:?}");
}

#[test]
fn irqfds_created_and_dropped_more_often_than_there_are_lines_all_work() {
    let Some(system) = system("100 irqfds") else {
        return;
    };
    let (vm, _vcpu) = guest(&system, &[]);

    for round in 0..100 {
        let irq = vm.irqfd(round % 24);
        assert!(irq.is_ok(), "{round}: {irq:?}");
    }
}

#[test]
fn irqfd_behind_the_last_line_is_refused() {
    let Some(system) = system("irqfd 24") else {
        return;
    };
    let (vm, _vcpu) = guest(&system, &[]);

    let error = vm.irqfd(24).unwrap_err();

    assert!(
        matches!(error, Error::Gsi { gsi: 24, limit: 24 }),
        "{error:?}"
    );
}

/// Whether the optional capability is there; says so if not.
fn can_coalesce(system: &System, test: &str) -> bool {
    let present = system
        .capabilities()
        .iter()
        .any(|c| c.name == "KVM_CAP_COALESCED_PIO" && c.present);
    if !present {
        common::skipped(&format!("no KVM_CAP_COALESCED_PIO: {test}"));
    }
    present
}

#[test]
fn coalesced_writes_make_no_exit_and_come_out_in_order_until_the_zone_is_dropped() {
    let Some(system) = system("coalesced pio") else {
        return;
    };
    if !can_coalesce(&system, "coalesced pio") {
        return;
    }
    let code = [
        0xba, 0xf8, 0x03, // mov $0x3f8,%dx
        0xb0, 0x61, 0xee, // mov $'a',%al; out %al,(%dx)
        0xb0, 0x62, 0xee, // mov $'b',%al; out %al,(%dx)
        0xe6, 0x80, // out %al,$0x80
    ];
    let (vm, mut vcpu) = guest(&system, &code);
    let ring = vcpu.coalesced_ring().unwrap();
    let zone = vm.coalesce_pio(0x3f8, 1).unwrap();

    let exit = vcpu.run().unwrap();

    assert!(matches!(exit, Exit::IoOut { port: 0x80, .. }), "{exit:?}");
    assert!(!ring.is_empty());
    let mut seen = Vec::new();
    let taken = ring
        .drain(|write| seen.push((write.at, write.data().to_vec())))
        .unwrap();
    let at = IoAddress::Pio(0x3f8);
    assert_eq!(
        (taken, seen),
        (2, vec![(at, b"a".to_vec()), (at, b"b".to_vec())])
    );
    assert!(ring.is_empty());
    drop(zone);
    start(&vcpu);
    let exit = vcpu.run().unwrap();
    assert!(
        matches!(
            exit,
            Exit::IoOut {
                port: 0x3f8,
                data: b"a",
                ..
            }
        ),
        "{exit:?}"
    );
}

#[test]
fn coalesced_writes_beyond_the_ring_make_an_exit_and_none_is_lost() {
    let Some(system) = system("full coalesced ring") else {
        return;
    };
    if !can_coalesce(&system, "full coalesced ring") {
        return;
    }
    let code = [
        0xba, 0xf8, 0x03, // mov $0x3f8,%dx
        0xb9, 0xe8, 0x03, // mov $1000,%cx
        0xee, 0xfe, 0xc0, 0xe2, 0xfb, // 1: out %al,(%dx); inc %al; loop 1b
        0xe6, 0x80, // out %al,$0x80
    ];
    let (vm, mut vcpu) = guest(&system, &code);
    let ring = vcpu.coalesced_ring().unwrap();
    let _zone = vm.coalesce_pio(0x3f8, 1).unwrap();

    let (mut seen, mut exits) = (Vec::new(), 0);
    loop {
        let exit = vcpu.run().unwrap();
        exits += 1;
        ring.drain(|write| seen.extend_from_slice(write.data()))
            .unwrap();
        match exit {
            Exit::IoOut {
                port: 0x3f8, data, ..
            } => seen.extend_from_slice(data),
            Exit::IoOut { port: 0x80, .. } => break,
            exit => panic!("{exit:?}"),
        }
    }

    let expected: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    assert_eq!(seen, expected);
    assert!(exits < 20, "{exits}");
}
