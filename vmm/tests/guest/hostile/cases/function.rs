//! Configuration space of a PCI function (PCI 3.0, 6.1): widths, directions, functions that are
//! not there, and the window to BAR 0 (virtio 1.2, 4.1.4.9).

use super::{Case, case, ignored};
use crate::hostile::rig::{RUNNING, Rig};
use crate::hostile::target::Window;
use crate::hostile::transport::{COMMAND, header};
use vmm::virtio::transport::pci::common::register::DEVICE_STATUS;

/// How much of a function's page is there.
const SPACE: u64 = 0x100;
const FUNCTION: u64 = 0x1000;

/// The fields of the window, and where they end.
const WINDOW_BAR: u64 = 4;
const WINDOW_OFFSET: u64 = 8;
const WINDOW_LENGTH: u64 = 12;
const WINDOW_DATA: u64 = 16;
const WINDOW_END: u64 = 20;

pub fn cases() -> Vec<Case> {
    let mut cases = accesses();
    cases.extend(absent());
    cases.extend(command());
    cases.extend(window());
    cases
}

fn accesses() -> Vec<Case> {
    vec![
        case(
            "configuration space is read in all widths and at all offsets",
            |rig| {
                let function = &rig.pci().function;
                let bytes: Vec<u8> = (0..SPACE).map(|at| function.read(at)).collect();
                let wanted = |at: u64, width: u64| {
                    let bytes = &bytes[at as usize..(at + width) as usize];
                    bytes
                        .iter()
                        .rev()
                        .fold(0, |value, byte| value << 8 | u64::from(*byte))
                };
                for at in 0..SPACE - 8 {
                    let read = [
                        (2, function.read::<u16>(at).into()),
                        (4, function.read::<u32>(at).into()),
                        (8, function.read::<u64>(at)),
                    ];
                    for (width, value) in read {
                        assert_eq!(value, wanted(at, width), "{width} bytes at {at:#x}");
                    }
                }
                ignored(rig);
            },
        ),
        case("what is fixed in configuration space is written", |rig| {
            let before = bytes(rig);
            let fixed = fixed(rig);
            let function = &rig.pci().function;
            for at in fixed {
                for value in [0u8, u8::MAX] {
                    function.write(at, value);
                }
            }
            // Identity and class, across what is fixed alone.
            for at in [0, 8, 0x2c, 0x34] {
                function.write(at, 0x5a5a_5a5a_u32);
            }
            function.write(1, u16::MAX);
            function.write(9, 0xff_ffff_u32);
            assert_eq!(bytes(rig), before);
            ignored(rig);
        }),
        case("configuration space is used behind its end", |rig| {
            let function = &rig.pci().function;
            for at in [SPACE, SPACE + 1, 0x101, 0x800, FUNCTION - 8] {
                function.write(at, u32::MAX);
                assert_eq!(function.read::<u32>(at), 0, "{at:#x}");
            }
            for at in [SPACE - 7, SPACE - 3, SPACE - 1, FUNCTION - 3, FUNCTION - 1] {
                function.write(at, u64::MAX);
                let _: u64 = function.read(at);
            }
            ignored(rig);
        }),
    ]
}

fn absent() -> Vec<Case> {
    vec![
        case("functions that are not there are used", |rig| {
            let bus = &rig.pci().function.bus;
            let absent = (0..bus.len())
                .step_by(FUNCTION as usize)
                .filter(|at| bus.read::<u16>(*at) == u16::MAX);
            let absent: Vec<u64> = absent.collect();
            assert!(absent.len() > 200, "{} are absent", absent.len());
            for at in absent.into_iter().step_by(7) {
                for offset in [0, 1, 4, 0x0e, 0x10, 0x34, 0x40, 0xff, 0x100, 0xff8] {
                    bus.write(at + offset, 0u8);
                    bus.write(at + offset, 0u32);
                    assert_eq!(bus.read::<u8>(at + offset), u8::MAX);
                    assert_eq!(bus.read::<u16>(at + offset), u16::MAX);
                    assert_eq!(bus.get(at + offset), u32::MAX);
                }
            }
            ignored(rig);
        }),
        case("configuration space of buses that are not there", |rig| {
            let bus = &rig.pci().function.bus;
            let behind = Window::map(bus.address() + bus.len(), FUNCTION);
            for offset in [0, 1, 4, 0x10, FUNCTION - 4] {
                behind.write(offset, 0u8);
                behind.set(offset, 0);
                assert_eq!(behind.read::<u8>(offset), u8::MAX);
                assert_eq!(behind.get(offset), u32::MAX);
            }
            ignored(rig);
        }),
        case("the host bridge is written", |rig| {
            let bus = &rig.pci().function.bus;
            let read = || (0..SPACE).map(|at| bus.read::<u8>(at)).collect::<Vec<_>>();
            let before = read();
            for at in 0..SPACE {
                bus.write(at, 0u8);
                bus.write(at, u8::MAX);
            }
            assert_eq!(read(), before);
            ignored(rig);
        }),
    ]
}

fn command() -> Vec<Case> {
    vec![
        case("all of COMMAND is written", |rig| {
            let function = &rig.pci().function;
            for command in [u16::MAX, 0, 0x400, 0xfbf8, 1, 4, 2] {
                function.write(header::COMMAND, command);
                let kept = command & (0x400 | COMMAND);
                assert_eq!(function.read::<u16>(header::COMMAND), kept);
            }
            function.write(header::COMMAND, COMMAND);
            ignored(rig);
        }),
        case("the function is switched off and on amid requests", |rig| {
            for turn in 0..50 {
                let chain = rig.good();
                rig.write(&chain);
                let off = [0, 2, 4][turn % 3];
                rig.pci().function.write(header::COMMAND, off);
                rig.kick();
                rig.pci().function.write(header::COMMAND, COMMAND);
                rig.kick();
                rig.used();
            }
            ignored(rig);
        }),
        case("registers of a function that is switched off", |rig| {
            rig.pci().function.write(header::COMMAND, 4u16);
            rig.set_status(0);
            let status = rig.status();
            rig.pci().function.write(header::COMMAND, COMMAND);
            assert_eq!(status, 0xff, "nobody answers");
            ignored(rig);
        }),
    ]
}

fn window() -> Vec<Case> {
    const BAR_SIZE: u32 = 0x1_0000;
    let bad = [
        ("BAR 1", 1, 0, 4),
        ("BAR 5", 5, 0, 4),
        ("BAR 255", 255, 0, 4),
        ("no bytes", 0, 0, 0),
        ("3 bytes", 0, 0, 3),
        ("5 bytes", 0, 0, 5),
        ("8 bytes", 0, 0x20, 8),
        ("255 bytes", 0, 0, 255),
        ("2^32 - 1 bytes", 0, 0, u32::MAX),
        ("an odd place", 0, 1, 2),
        ("a place that is not aligned", 0, 0x16, 4),
        ("the last bytes and more", 0, BAR_SIZE - 2, 4),
        ("what is behind the BAR", 0, BAR_SIZE, 1),
        ("what is far behind the BAR", 0, u32::MAX - 3, 4),
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|(name, bar, offset, len)| {
            case(format!("the window to BAR 0 shows {name}"), move |rig| {
                aim(rig, bar, offset, len);
                let (function, data) = (&rig.pci().function, rig.pci().window + WINDOW_DATA);
                assert_eq!(function.read::<u32>(data), u32::MAX);
                function.write(data, 0u32);
                function.write(data + 1, 0u16);
                assert_eq!(function.read::<u8>(data), u8::MAX);
                ignored(rig);
            })
        })
        .collect();
    cases.push(case("the status through the window to BAR 0", |rig| {
        aim(rig, 0, DEVICE_STATUS as u32, 1);
        let (function, data) = (&rig.pci().function, rig.pci().window + WINDOW_DATA);
        assert_eq!(u32::from(function.read::<u8>(data)), RUNNING);
        // Across the ends of the data, and in no width of the register.
        function.write(rig.pci().window + WINDOW_LENGTH, 1u64 << 32 | 1);
        function.write(data, 0u8);
        assert_eq!(rig.status(), 0, "that was a reset");
    }));
    cases
}

/// What the window shows.
fn aim(rig: &Rig, bar: u8, offset: u32, len: u32) {
    let (function, at) = (&rig.pci().function, rig.pci().window);
    function.write(at + WINDOW_BAR, bar);
    function.write(at + WINDOW_OFFSET, offset);
    function.write(at + WINDOW_LENGTH, len);
}

fn bytes(rig: &Rig) -> Vec<u8> {
    let function = &rig.pci().function;
    (0..SPACE).map(|at| function.read(at)).collect()
}

/// Offsets of bytes that nobody can write.
fn fixed(rig: &Rig) -> Vec<u64> {
    let (window, msix) = (rig.pci().window, rig.pci().msix.at);
    let is_fixed = |at: &u64| {
        let bar = header::BAR0..header::BAR0 + 8;
        let command = header::COMMAND..header::COMMAND + 2;
        let window = window + WINDOW_BAR..window + WINDOW_END;
        let control = msix + 2..msix + 4;
        ![bar, command, window, control]
            .iter()
            .any(|writable| writable.contains(at))
    };
    (0..SPACE).filter(is_fixed).collect()
}
