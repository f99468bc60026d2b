//! The device status as drivers write it to the registers of each transport.

use super::*;
use crate::testing::driver::{Driver, Transport};

/// The rules of 2.1 and 3.1.1 in words other than those of the table.
fn expected(status: u32, written: u32) -> u32 {
    let set = written & !status;
    let unknown = written & !(RUNNING | GIVEN_UP) != 0;
    let cleared = status & !written != 0;
    let failed = status & GIVEN_UP != 0;
    let fine = match set {
        _ if written == 0 => return 0,
        _ if unknown || cleared || failed => false,
        GIVEN_UP => true,
        1 => status == 0,
        2 | 3 => status == 3 & !set,
        8 => status == FOUND,
        4 => status == NEGOTIATED,
        _ => false,
    };
    if fine { written } else { status }
}

/// From a reset on these statuses one after the other.
fn go(transport: &mut impl Transport, path: &[u32]) {
    transport.set_status(0);
    transport.set_driver_features(VERSION_1);
    for status in path {
        transport.set_status(*status as u8);
    }
}

/// All pairs of statuses, one written after the other, from wherever a driver may be.
fn status_follows_the_specification(transport: &mut impl Transport) {
    let paths: [&[u32]; 5] = [
        &[],
        &[ACKNOWLEDGE as u32],
        &[FOUND],
        &[FOUND, NEGOTIATED],
        &[FOUND, NEGOTIATED, RUNNING],
    ];
    for path in paths {
        let start = path.last().copied().unwrap_or(0);
        for (first, second) in (0..=u16::MAX).map(|both| both.to_le_bytes().into()) {
            go(transport, path);
            assert_eq!(u32::from(transport.status()), start);
            transport.set_status(first);
            let then = expected(start, first.into());
            let now = transport.status();
            assert_eq!(u32::from(now), then, "{start:#x} <- {first:#x}");
            if then == 0 {
                go(transport, &[]);
            }
            transport.set_status(second);
            let end = expected(then, second.into());
            let now = transport.status();
            assert_eq!(u32::from(now), end, "{then:#x} <- {second:#x}");
        }
    }
}

#[test]
fn status_on_mmio_follows_the_specification_whatever_is_written_in_whatever_order() {
    let mut driver = Driver::mmio_in(Box::new(Echo::default()), Mode::Inline);
    status_follows_the_specification(&mut driver.transport);
}

#[test]
fn status_on_pci_follows_the_specification_whatever_is_written_in_whatever_order() {
    let mut driver = Driver::pci_in(Box::new(Echo::default()), Mode::Inline);
    status_follows_the_specification(&mut driver.transport);
}
