//! Exits of guests of a few bytes, in real mode with the in-kernel interrupt controllers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may")]

mod common;

use common::{CODE, MEMORY, guest, guest64, system};
use kvm::Exit;

#[test]
fn out_of_one_byte_gives_port_size_and_data() {
    let Some(system) = system("out") else { return };
    let code = [
        0xb0, 0x42, // mov $0x42,%al
        0xe6, 0x80, // out %al,$0x80
    ];
    let (_vm, mut vcpu) = guest(&system, &code);

    let exit = vcpu.run().unwrap();

    assert!(
        matches!(
            exit,
            Exit::IoOut {
                port: 0x80,
                size: 1,
                data: [0x42]
            }
        ),
        "{exit:?}"
    );
}

#[test]
fn in_of_four_bytes_gives_the_guest_what_was_put_into_the_exit() {
    let Some(system) = system("in") else { return };
    let code = [
        0xba, 0x34, 0x12, // mov $0x1234,%dx
        0x66, 0xed, // in (%dx),%eax
        0x66, 0xef, // out %eax,(%dx)
    ];
    let (_vm, mut vcpu) = guest(&system, &code);

    match vcpu.run().unwrap() {
        Exit::IoIn {
            port: 0x1234,
            size: 4,
            data,
        } => data.copy_from_slice(&[1, 2, 3, 4]),
        exit => panic!("{exit:?}"),
    }
    let exit = vcpu.run().unwrap();

    assert!(
        matches!(
            exit,
            Exit::IoOut {
                size: 4,
                data: [1, 2, 3, 4],
                ..
            }
        ),
        "{exit:?}"
    );
}

/// `rep outs` of 8 bytes at address 0x2000, which hold 0 to 7, as items of this size.
fn rep_outs(items: [u8; 2], size: u8) {
    let Some(system) = system("rep outs") else {
        return;
    };
    let mut code = vec![
        0xbe,
        0x00,
        0x20, // mov $0x2000,%si
        0xbf,
        0x00,
        0x20, // mov $0x2000,%di
        0xb9,
        0x08,
        0x00, // mov $8,%cx
        0x30,
        0xc0, // xor %al,%al
        0xaa,
        0xfe,
        0xc0,
        0xe2,
        0xfb, // 1: stos %al; inc %al; loop 1b
        0xb9,
        8 / size,
        0x00, // mov $items,%cx
        0xba,
        0xf8,
        0x03, // mov $0x3f8,%dx
        0xf3, // rep
    ];
    code.extend(items.iter().filter(|&&byte| byte != 0));
    code.push(0xf4); // hlt
    let (_vm, mut vcpu) = guest(&system, &code);

    // KVM may give all items in one exit, or each in its own.
    let mut seen = Vec::new();
    while seen.len() < 8 {
        match vcpu.run().unwrap() {
            Exit::IoOut {
                port: 0x3f8,
                size: s,
                data,
            } => {
                assert_eq!(s, size);
                assert_eq!(data.len() % usize::from(size), 0);
                seen.extend_from_slice(data);
            }
            exit => panic!("{exit:?}"),
        }
    }

    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn rep_outs_of_bytes_keeps_the_item_size() {
    rep_outs([0, 0x6e], 1);
}

#[test]
fn rep_outs_of_words_keeps_the_item_size() {
    rep_outs([0, 0x6f], 2);
}

#[test]
fn rep_outs_of_double_words_keeps_the_item_size() {
    rep_outs([0x66, 0x6f], 4);
}

/// Segment 0x1000 is right behind the memory.
const TO_MMIO: [u8; 5] = [
    0xb8, 0x00, 0x10, // mov $0x1000,%ax
    0x8e, 0xd8, // mov %ax,%ds
];

#[test]
fn mmio_write_of_two_bytes_gives_address_and_data() {
    let Some(system) = system("mmio write") else {
        return;
    };
    let mut code = TO_MMIO.to_vec();
    code.extend([0xc7, 0x06, 0x08, 0x00, 0x34, 0x12]); // movw $0x1234,8
    let (_vm, mut vcpu) = guest(&system, &code);

    let exit = vcpu.run().unwrap();

    match exit {
        Exit::MmioWrite { addr, data } => assert_eq!((addr, data), (MEMORY + 8, &[0x34, 0x12][..])),
        exit => panic!("{exit:?}"),
    }
}

#[test]
fn mmio_read_gives_the_guest_what_was_put_into_the_exit() {
    let Some(system) = system("mmio read") else {
        return;
    };
    let mut code = TO_MMIO.to_vec();
    code.extend([0x66, 0xa1, 0x04, 0x00]); // mov 4,%eax
    code.extend([0x66, 0xe7, 0x80]); // out %eax,$0x80
    let (_vm, mut vcpu) = guest(&system, &code);

    match vcpu.run().unwrap() {
        Exit::MmioRead { addr, data } => {
            assert_eq!(addr, MEMORY + 4);
            data.copy_from_slice(&[5, 6, 7, 8]);
        }
        exit => panic!("{exit:?}"),
    }
    let exit = vcpu.run().unwrap();

    assert!(
        matches!(
            exit,
            Exit::IoOut {
                data: [5, 6, 7, 8],
                ..
            }
        ),
        "{exit:?}"
    );
}

/// In 64-bit mode, with `%rdi` from the test and `%rax` of bytes 1 to 8.
const STORE_RAX: [u8; 3] = [0x48, 0x89, 0x07]; // mov %rax,(%rdi)

#[test]
fn mmio_write_of_eight_bytes_is_one_exit() {
    let Some(system) = system("mmio write of 8 bytes") else {
        return;
    };
    let (_vm, mut vcpu) = guest64(&system, &STORE_RAX, MEMORY + 0x10);

    let exit = vcpu.run().unwrap();

    match exit {
        Exit::MmioWrite { addr, data } => {
            assert_eq!((addr, data), (MEMORY + 0x10, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
        }
        exit => panic!("{exit:?}"),
    }
}

#[test]
fn settle_after_an_mmio_read_completes_it_without_running_the_guest() {
    let Some(system) = system("settle after an mmio read") else {
        return;
    };
    let mut code = TO_MMIO.to_vec();
    code.extend([0xa0, 0x04, 0x00]); // mov 4,%al
    code.extend([0xe6, 0x80]); // out %al,$0x80
    let (_vm, mut vcpu) = guest(&system, &code);
    match vcpu.run().unwrap() {
        Exit::MmioRead { data, .. } => data.copy_from_slice(&[0x99]),
        exit => panic!("{exit:?}"),
    }
    let before = vcpu.get_regs().unwrap();

    let settled = matches!(vcpu.settle().unwrap(), Exit::Interrupted);

    let after = vcpu.get_regs().unwrap();
    assert!(settled);
    assert_eq!((before.rip, before.rax & 0xff), (CODE + 5, 0x00));
    assert_eq!((after.rip, after.rax & 0xff), (CODE + 8, 0x99));
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::IoOut { data: [0x99], .. }), "{exit:?}");
}

#[test]
fn settle_of_a_write_across_pages_gives_its_second_part_then_is_done() {
    let Some(system) = system("settle of a write across pages") else {
        return;
    };
    let (_vm, mut vcpu) = guest64(&system, &STORE_RAX, MEMORY + 0xffc);
    match vcpu.run().unwrap() {
        Exit::MmioWrite {
            addr,
            data: [1, 2, 3, 4],
        } => assert_eq!(addr, MEMORY + 0xffc),
        exit => panic!("{exit:?}"),
    }

    match vcpu.settle().unwrap() {
        Exit::MmioWrite {
            addr,
            data: [5, 6, 7, 8],
        } => assert_eq!(addr, MEMORY + 0x1000),
        exit => panic!("{exit:?}"),
    }
    let done = matches!(vcpu.settle().unwrap(), Exit::Interrupted);

    assert!(done);
    assert_eq!(vcpu.get_regs().unwrap().rip, CODE + STORE_RAX.len() as u64);
}

#[test]
fn settle_with_nothing_pending_is_interrupted_and_the_next_run_is_not() {
    let Some(system) = system("settle with nothing pending") else {
        return;
    };
    let (_vm, mut vcpu) = guest(&system, &[0xe6, 0x80]); // out %al,$0x80

    let settled = matches!(vcpu.settle().unwrap(), Exit::Interrupted);
    let exit = vcpu.run().unwrap();

    assert!(settled);
    assert!(matches!(exit, Exit::IoOut { .. }), "{exit:?}");
}

#[test]
fn triple_fault_is_a_shutdown() {
    let Some(system) = system("triple fault") else {
        return;
    };
    let (_vm, mut vcpu) = guest64(&system, &[0x0f, 0x0b], 0); // ud2, and there is no IDT
    let mut sregs = vcpu.get_sregs().unwrap();
    sregs.idt.limit = 0;
    vcpu.set_sregs(&sregs).unwrap();

    let exit = vcpu.run().unwrap();

    assert!(matches!(exit, Exit::Shutdown), "{exit:?}");
}

#[test]
fn set_msrs_of_one_that_does_not_exist_names_it() {
    let Some(system) = system("set_msrs") else {
        return;
    };
    let (_vm, vcpu) = guest(&system, &[]);

    let error = vcpu
        .set_msrs(&[(0xc000_0102, 7), (0x1234_5678, 9)])
        .unwrap_err();

    assert!(
        matches!(
            error,
            kvm::Error::Msr {
                index: 0x1234_5678,
                value: 9
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        vcpu.get_msrs(&[0xc000_0102, 0x1234_5678]).unwrap(),
        [(0xc000_0102, 7)]
    );
}

#[test]
fn vcpu_with_a_number_that_is_taken_is_refused_with_a_hint() {
    let Some(system) = system("create_vcpu twice") else {
        return;
    };
    let (vm, _vcpu) = guest(&system, &[]);

    let error = vm.create_vcpu(0).unwrap_err();

    assert!(
        matches!(error, kvm::Error::CreateVcpu { id: 0, .. }),
        "{error:?}"
    );
    assert!(error.hint().is_some());
}
