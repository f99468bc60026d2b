//! What a console has to put up with (virtio 1.2, 5.3).

use super::{Case, case};
use crate::hostile::rig::{RUNNING, Rig};

const F_EMERG_WRITE: u64 = 1 << 2;
/// Where the character of an emergency is written.
const EMERG_WR: u64 = 8;

pub fn cases() -> Vec<Case> {
    vec![
        case("nothing is transmitted", |rig| {
            assert_eq!(rig.request(&[&[]], &[]).1, 0);
        }),
        case("a buffer to write is transmitted", |rig| {
            assert_eq!(rig.request(&[], &[64]).1, 0);
        }),
        case(
            "a buffer to write behind one to read is transmitted",
            |rig| {
                assert_eq!(rig.request(&[b"boo"], &[64]).1, 0);
            },
        ),
        case("1 MiB is transmitted at once", |rig| {
            assert_eq!(rig.request(&[&[b'!'; 1 << 20]], &[]).1, 0);
        }),
        case("a flood", |rig| {
            for _ in 0..40 {
                assert_eq!(rig.request(&[&[b'!'; 32 << 10]], &[]).1, 0);
            }
        }),
        case("buffers that can only be read, to receive in", |rig| {
            receive(rig, &[&[0xa5; 16]], &[]);
        }),
        case("a buffer of no bytes, to receive in", |rig| {
            receive(rig, &[], &[0]);
        }),
        case("a doorbell of an empty receive queue", |rig| {
            for _ in 0..100 {
                rig.registers.notify(0);
            }
            rig.works();
        }),
        case("emergencies without the feature", |rig| {
            rig.start_with(16, F_EMERG_WRITE);
            rig.registers.config().set(EMERG_WR, u32::from(b'?'));
            rig.works();
        }),
        case("a storm of emergencies", |rig| {
            for character in 0..500 {
                rig.registers.config().set(EMERG_WR, character);
            }
            rig.works();
        }),
        case("emergencies before the device runs", |rig| {
            rig.reset();
            for character in [0, 1, 0xffff_ff00, u32::MAX] {
                rig.registers.config().set(EMERG_WR, character);
            }
            assert_eq!(rig.status(), 0);
        }),
        case("an emergency in bytes", |rig| {
            for at in 0..4 {
                rig.registers.config().write(EMERG_WR + at, b'?');
            }
            rig.registers.config().write(EMERG_WR + 3, u16::MAX);
            assert_eq!(rig.status(), RUNNING);
            rig.works();
        }),
        case("the size of the window is written", |rig| {
            let before = rig.registers.config().get(0);
            rig.registers.config().set(0, !before);
            rig.registers.config().write(1, 0xa5u8);
            assert_eq!(rig.registers.config().get(0), before);
            rig.works();
        }),
        case("input is received byte by byte", |rig| {
            for _ in 0..20 {
                assert_eq!(receive_one(rig), *b"x");
            }
        }),
    ]
}

/// Offers a chain without room to the receive queue: while there is input, it comes back empty.
fn receive(rig: &mut Rig, readable: &[&[u8]], writable: &[usize]) {
    let id = rig.rings[0].add(readable, writable);
    rig.registers.notify(0);
    assert_eq!(rig.used_of(0), (id, 0));
    rig.works();
}

/// Receives one byte of what the host types.
fn receive_one(rig: &mut Rig) -> Vec<u8> {
    let id = rig.rings[0].add(&[], &[1]);
    rig.registers.notify(0);
    assert_eq!(rig.used_of(0), (id, 1));
    rig.rings[0].written(id, 1)
}
