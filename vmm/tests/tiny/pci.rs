//! PCI functions, as seen by guests that count on making no exit.

use crate::devices::Dummy;
use crate::guest::*;
use crate::kvm_test;
use vmm::{Config, Outcome, Report, Transport, Vm};

/// The first function's configuration space, and what it is: virtio's, an entropy source.
const FUNCTION: u32 = 0xe000_8000;
const ID: u32 = 0x1044_1af4;
const COMMAND: u32 = FUNCTION + 0x04;
const BAR0: u32 = FUNCTION + 0x10;
/// The window to BAR 0: which offset, how many bytes, and these.
const WINDOW_OFFSET: u32 = FUNCTION + 0x88;
const WINDOW_LENGTH: u32 = FUNCTION + 0x8c;
const WINDOW_DATA: u32 = FUNCTION + 0x90;
/// Where BAR 0 is at first, and registers in it.
const BAR: u32 = 0xc000_0000;
const DEVICE_FEATURE_SELECT: u32 = BAR;
const DRIVER_FEATURE_SELECT: u32 = BAR + 0x08;
const QUEUE_DESC: u32 = BAR + 0x20;

/// Configuration mechanism 1 (PCI 3.0, 3.2.2.3.2).
const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;

fn run_on_pci(code: Code) -> (Outcome, Report) {
    let config = Config {
        devices: vec![Dummy::new(false).into()],
        transport: Some(Transport::Pci),
        ..config(code)
    };
    let vm = Vm::new(config).unwrap();
    let handle = vm.handle();
    (vm.run().unwrap(), handle.report())
}

/// Whether this host has what spares the exits; else says what is not looked at.
fn can(capability: &str) -> bool {
    let all = vmm::kvm::System::open().unwrap().capabilities();
    let present = all.iter().any(|one| one.name == capability && one.present);
    if !present {
        skipped(&format!("counting exits: no {capability}"));
    }
    present
}

kvm_test!(reads_of_configuration_space_make_no_exits, {
    let nothing_there = |code: Code, device: u32| {
        // Goes on if there is nothing, which is not 0.
        code.power_off_if32(0xe000_0000 + (device << 15), 0)
    };
    let code = (2..32).fold(Code::new(), nothing_there);

    let (outcome, report) = run_on_pci(code.power_off_if32(FUNCTION, ID).reset());

    assert_eq!(outcome, Outcome::Shutdown);
    if can("KVM_CAP_READONLY_MEM") {
        let exits = report.total_exits();
        assert_eq!((exits.mmio_read, exits.total()), (0, 1), "{exits:?}");
    }
});

kvm_test!(
    what_was_written_to_configuration_space_is_read_without_an_exit,
    {
        let code = Code::new().store32(BAR0, u32::MAX);

        let (outcome, report) = run_on_pci(code.power_off_if32(BAR0, 0xffff_0004).reset());

        assert_eq!(outcome, Outcome::Shutdown);
        if can("KVM_CAP_READONLY_MEM") {
            let exits = report.total_exits();
            assert_eq!((exits.mmio_read, exits.mmio_write), (0, 1), "{exits:?}");
        }
    }
);

kvm_test!(ports_that_lead_nowhere_read_as_ones, {
    let nowhere = [
        0x0000_0800, // not enabled
        0x7fff_fffc,
        0x8001_0800, // bus 1
        0x80ff_0800,
        0x8000_f800, // device 31
        0x8000_0900, // function 1
    ];
    let code = nowhere.iter().fold(Code::new(), |code, address| {
        code.out32(ADDRESS_PORT, *address)
            .reset_unless_in(DATA_PORT, &[0xff; 4])
            .reset_unless_in(DATA_PORT + 1, &[0xff; 2])
            .out32(DATA_PORT, 0)
    });
    let (outcome, _) = run_on_pci(code.power_off());
    assert_eq!(outcome, Outcome::Shutdown);
});

kvm_test!(the_address_port_takes_double_words_only, {
    let code = Code::new()
        .out32(ADDRESS_PORT, 0x8000_0800)
        .out8(ADDRESS_PORT, 0x55)
        .out16(ADDRESS_PORT, 0)
        .out8(ADDRESS_PORT + 2, 0xff)
        .out8(ADDRESS_PORT + 3, 0)
        .reset_unless_in(ADDRESS_PORT, &[0xff])
        .reset_unless_in(ADDRESS_PORT, &[0xff; 2])
        .reset_unless_in(DATA_PORT, &ID.to_le_bytes());
    let (outcome, _) = run_on_pci(code.power_off());
    assert_eq!(outcome, Outcome::Shutdown);
});

kvm_test!(
    data_ports_are_read_in_all_widths_but_not_across_their_end,
    {
        let id = ID.to_le_bytes();
        let mut code = Code::new().out32(ADDRESS_PORT, 0x8000_0800);
        for (byte, port) in (0..4).zip(DATA_PORT..) {
            for width in [1, 2, 4] {
                let inside = id.get(byte..byte + width);
                code = code.reset_unless_in(port, inside.unwrap_or(&[0xff; 4][..width]));
            }
        }
        let (outcome, _) = run_on_pci(code.power_off());
        assert_eq!(outcome, Outcome::Shutdown);
    }
);

kvm_test!(the_window_to_a_bar_shows_its_registers, {
    // The number of queues: 0.
    let code = Code::new()
        .store32(WINDOW_OFFSET, 0x12)
        .store32(WINDOW_LENGTH, 2);

    let (outcome, report) = run_on_pci(code.power_off_if32(WINDOW_DATA, 0xffff_0000).reset());

    assert_eq!(outcome, Outcome::Shutdown);
    assert_eq!(report.total_exits().mmio_read, 1);
});

kvm_test!(gathered_writes_are_done_before_the_read_that_follows, {
    let code = Code::new()
        .store32(COMMAND, 2)
        .store32(QUEUE_DESC, 0x1234_5000)
        .store32(DRIVER_FEATURE_SELECT, 1)
        .store32(DEVICE_FEATURE_SELECT, 5)
        .store32(DEVICE_FEATURE_SELECT, 7);

    let (outcome, report) = run_on_pci(code.power_off_if32(DEVICE_FEATURE_SELECT, 7).reset());

    assert_eq!(outcome, Outcome::Shutdown);
    let exits = report.total_exits();
    assert_eq!((exits.mmio_read, exits.mmio_write), (1, 1), "{exits:?}");
});

kvm_test!(more_gathered_writes_than_the_ring_holds_arrive_in_order, {
    let write = |code: Code, value| code.store32(DEVICE_FEATURE_SELECT, value);
    let code = (0..=200).fold(Code::new().store32(COMMAND, 2), write);

    let (outcome, report) = run_on_pci(code.power_off_if32(DEVICE_FEATURE_SELECT, 200).reset());

    assert_eq!(outcome, Outcome::Shutdown);
    let writes = report.total_exits().mmio_write;
    assert!((2..10).contains(&writes), "{writes}");
});
