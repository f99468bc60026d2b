//! How guests end their machines.

use crate::guest::*;
use crate::kvm_test;
use std::time::{Duration, Instant};
use vmm::{Config, Outcome};

/// The window behind all devices: MMIO, and nobody there.
const UNMAPPED: u32 = 0xd800_0000;

kvm_test!(the_sleep_register_switches_the_machine_off, {
    assert_eq!(run(config(Code::new().power_off())), Outcome::Shutdown);
});

kvm_test!(each_way_to_reset_is_a_reboot, {
    let keyboard_controller = Code::new().out8(0x64, 0xfe);
    let system_control_port = Code::new().out8(0x92, 1);
    for code in [
        Code::new().reset(),
        keyboard_controller,
        system_control_port,
    ] {
        assert_eq!(run(config(code.halt())), Outcome::Reboot);
    }
});

kvm_test!(a_panic_that_the_guest_reports_is_panicked, {
    assert_eq!(
        run(config(Code::new().out8(0x505, 1).halt())),
        Outcome::Panicked
    );
});

kvm_test!(a_triple_fault_is_a_crash_of_that_vcpu, {
    let outcome = run(config(Code::new().triple_fault()));

    let Outcome::Crashed(report) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(report.cpu, 0);
});

kvm_test!(a_triple_fault_is_a_reboot_if_the_command_line_says_so, {
    let config = config_with_cmdline(Code::new().triple_fault(), "quiet reboot=w,t");

    assert_eq!(run(config), Outcome::Reboot);
});

kvm_test!(memory_of_nobody_reads_as_ones_and_takes_writes, {
    let code = Code::new()
        .store32(UNMAPPED, 0)
        .power_off_if32(UNMAPPED, u32::MAX)
        .reset();

    assert_eq!(run(config(code)), Outcome::Shutdown);
});

kvm_test!(ports_of_nobody_read_as_ones_in_each_width, {
    let loads: [&[u8]; 3] = [&[0xec], &[0x66, 0xed], &[0xed]]; // in al, dx; in ax, dx; in eax, dx
    for (load, expected) in loads.into_iter().zip([0xff, 0xffff, u32::MAX]) {
        let code = Code::new()
            .bytes(&[0x31, 0xc0, 0x66, 0xba, 0x21, 0x43]) // xor eax, eax; mov dx, NOWHERE
            .bytes(load)
            .bytes(&[0xa3]) // mov [DATA], eax
            .bytes(&DATA.to_le_bytes())
            .power_off_if32(DATA, expected)
            .reset();

        assert_eq!(run(config(code)), Outcome::Shutdown, "{load:x?}");
    }
});

kvm_test!(string_output_reaches_the_device_item_by_item, {
    // rep outsb of three bytes to the sleep register: only the last one has "go" set.
    let code = Code::new()
        .store32(DATA, u32::from_le_bytes([0x14, 0, SLEEP_S5, 0]))
        .bytes(&[0xbe]) // mov esi, DATA
        .bytes(&DATA.to_le_bytes())
        .bytes(&[0xb9, 3, 0, 0, 0]) // mov ecx, 3
        .bytes(&[0x66, 0xba, 0x00, 0x06]) // mov dx, SLEEP_PORT
        .bytes(&[0xf3, 0x6e]) // rep outsb
        .reset();

    assert_eq!(run(config(code)), Outcome::Shutdown);
});

kvm_test!(
    a_storm_over_all_ports_in_each_width_ends_where_the_guest_says,
    {
        // Every port is read and written (with 0, which asks nothing of anybody) in 1, 2 and 4 bytes,
        // in steps of 7 ports, because an exit takes long on some hosts.
        let code = Code::new()
            .bytes(&[0x31, 0xd2]) // xor edx, edx
            .bytes(&[0xec, 0x66, 0xed, 0xed]) // again: in al, dx; in ax, dx; in eax, dx
            .bytes(&[0x31, 0xc0]) // xor eax, eax
            .bytes(&[0xee, 0x66, 0xef, 0xef]) // out dx, al; out dx, ax; out dx, eax
            .bytes(&[0x66, 0x83, 0xc2, 0x07]) // add dx, 7
            .bytes(&[0x73, 0xf0]) // jnc again
            .power_off();
        let config = config(code);

        assert_eq!(run(config), Outcome::Shutdown);
    }
);

kvm_test!(a_guest_without_acpi_ends_by_a_reset, {
    let config = Config {
        acpi: false,
        ..config(Code::new().reset())
    };

    assert_eq!(run(config), Outcome::Reboot);
});

kvm_test!(machines_reboot_one_after_the_other, {
    // A thousand, or as many as an emulated host can do in the time that a test may take.
    let start = Instant::now();
    let mut reboots = 0;
    while reboots < 1000 && start.elapsed() < Duration::from_secs(15) {
        assert_eq!(run(config(Code::new().reset())), Outcome::Reboot);
        reboots += 1;
    }

    assert!(reboots > 10, "{reboots}");
});
