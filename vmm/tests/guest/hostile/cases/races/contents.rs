//! Requests of a disk that change after the doorbell: header and ranges.

use super::{Case, case, race, rounds};
use crate::hostile::rig::{DISK, Rig, contents, header, link};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use vm_memory::{Bytes, GuestAddress};
use vmm::virtio::testing::ring::{Descriptor, WRITE};

const IN: u32 = 0;
const OUT: u32 = 1;
const GET_ID: u32 = 8;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;

const SECTORS: u64 = DISK as u64 / 512;

pub fn cases() -> Vec<Case> {
    vec![
        case("a read of one of two sectors", |rig| {
            let sectors = [3u64, 77];
            flipping(rig, IN, 8, sectors, |status, data| {
                assert_eq!(status, OK);
                assert!(
                    sectors.iter().any(|sector| *data == of(*sector)),
                    "{:x?}",
                    &data[..8]
                );
            });
        }),
        case("a read of a sector that is there or not", |rig| {
            flipping(rig, IN, 8, [5, SECTORS], |status, data| match status {
                OK => assert!(*data == of(5)),
                _ => assert_eq!(status, IOERR),
            });
        }),
        case("a read of no sector that is there", |rig| {
            flipping(rig, IN, 8, [SECTORS, 1 << 55], |status, _| {
                assert_eq!(status, IOERR);
            });
        }),
        case("a request to read or to write", |rig| {
            let kinds = [IN, OUT].map(u64::from);
            // Room for data is none to write: that way, it is no request.
            flipping(rig, IN, 0, kinds, |status, data| match status {
                OK => assert!(*data == of(0)),
                _ => assert_eq!(status, IOERR),
            });
        }),
        case("a request to read or for the name", |rig| {
            let kinds = [IN, GET_ID].map(u64::from);
            flipping(rig, IN, 0, kinds, |status, data| {
                assert_eq!(status, OK);
                let name = [&[0; 20][..], &[0xa5; 492]].concat();
                assert!(*data == of(0) || *data == name);
            });
        }),
        case("a write of no sector that is there", |rig| {
            let chain = request(rig, OUT, &[0x5a; 512], &[]);
            flip(rig, &chain, 0, 8, [SECTORS, u64::MAX], |rig| {
                assert_eq!(status(rig, &chain), IOERR);
            });
        }),
        case("zeroes in no range that is there", |rig| {
            let range = [&SECTORS.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
            let chain = request(rig, WRITE_ZEROES, &range, &[]);
            flip(rig, &chain, 1, 0, [SECTORS, 1 << 55], |rig| {
                assert_eq!(status(rig, &chain), IOERR);
            });
        }),
    ]
}

fn of(sector: u64) -> Vec<u8> {
    let start = sector as usize * 512;
    contents()[start..start + 512].to_vec()
}

/// A request in fixed memory, which is offered again and again: header, data, room, status.
fn request(rig: &mut Rig, kind: u32, data: &[u8], room: &[usize]) -> Vec<Descriptor> {
    let header = header(kind, 0);
    let mut parts: Vec<(Vec<u8>, u16)> = vec![(header.to_vec(), 0), (data.to_vec(), 0)];
    parts.retain(|(bytes, _)| !bytes.is_empty());
    parts.extend(room.iter().map(|len| (vec![0; *len], WRITE)));
    parts.push((vec![0xff], WRITE));
    link(
        parts
            .into_iter()
            .map(|(bytes, flags)| Descriptor {
                address: rig.main().alloc_bytes(&bytes),
                len: bytes.len() as u32,
                flags,
                next: 0,
            })
            .collect(),
    )
}

/// Reads a sector while eight bytes of the header flip between two values.
fn flipping(rig: &mut Rig, kind: u32, at: u64, values: [u64; 2], check: impl Fn(u8, &Vec<u8>)) {
    let chain = request(rig, kind, &[], &[512]);
    flip(rig, &chain, 0, at, values, |rig| {
        rig.main().write(chain[1].address, &[0xa5; 512]);
        let status = status(rig, &chain);
        check(status, &rig.main().read(chain[1].address, 512));
    });
}

/// Has eight bytes of a buffer flip while requests are made.
fn flip(
    rig: &mut Rig,
    chain: &[Descriptor],
    part: usize,
    at: u64,
    values: [u64; 2],
    round: impl FnMut(&mut Rig),
) {
    let memory = Arc::clone(&rig.memory);
    let place = GuestAddress(chain[part].address + at);
    // One access, so that no device can see half of it.
    let set = move |turn: usize| memory.store(values[turn % 2], place, Relaxed).unwrap();
    set(0);
    race(rig, |_, turn| set(turn), |rig| rounds(rig, round));
}

/// Offers a request, and tells its status.
fn status(rig: &mut Rig, chain: &[Descriptor]) -> u8 {
    let place = chain.last().unwrap().address;
    rig.main().write(place, &[0xff]);
    let table = rig.main().table(chain);
    rig.offer(&[table]);
    rig.used();
    rig.main().read(place, 1)[0]
}
