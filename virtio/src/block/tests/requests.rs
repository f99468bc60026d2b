//! What drivers may ask, and what they may not.

use super::*;

#[test]
fn a_read_gives_the_bytes_of_its_sectors() {
    let mut bench = Bench::new();
    let all = pattern(SIZE as usize);
    assert_eq!(bench.read(0, 512), (OK, all[..512].to_vec()));
    assert_eq!(bench.read(3, 4096), (OK, all[1536..1536 + 4096].to_vec()));
    assert_eq!(bench.read(0, SIZE as usize), (OK, all.clone()));
    assert_eq!(
        bench.read(63, 512),
        (OK, all[63 * 512..].to_vec()),
        "the last"
    );
}

#[test]
fn a_write_changes_its_sectors_and_no_others() {
    let mut bench = Bench::new();
    let mut all = pattern(SIZE as usize);
    assert_eq!(bench.write(5, &[9; 1024]), OK);
    all[5 * 512..7 * 512].fill(9);
    assert!(bench.contents() == all);
    assert_eq!(bench.write(63, &[8; 512]), OK);
    all[63 * 512..].fill(8);
    assert!(bench.contents() == all);
}

#[test]
fn descriptors_may_be_cut_anywhere() {
    let mut bench = Bench::new();
    let all = pattern(SIZE as usize);
    let header_of_write = header(OUT, 2);
    let mut readable: Vec<&[u8]> = header_of_write.chunks(1).collect();
    assert_eq!(readable.len(), 16);
    let data = [7; 1024];
    readable.extend([&data[..1], &data[1..700], &data[700..]]);
    assert_eq!(bench.status(&readable), OK);
    assert_eq!(bench.disk.contents(1024, 1024), data);

    // Header and data in one descriptor; then data and status.
    let joined = [header(OUT, 4), vec![6; 512]].concat();
    assert_eq!(bench.status(&[&joined]), OK);
    assert_eq!(bench.disk.contents(2048, 512), [6; 512]);
    let (len, bytes) = bench.chain(&[&header(IN, 8)], &[513]);
    assert_eq!((len, bytes[512]), (513, OK));
    assert_eq!(bytes[..512], all[8 * 512..9 * 512]);
    let (len, bytes) = bench.chain(&[&header(IN, 8)], &[1, 500, 11, 1]);
    assert_eq!((len, bytes[512]), (513, OK));
    assert_eq!(bytes[..512], all[8 * 512..9 * 512]);
}

#[test]
fn as_many_segments_as_are_announced_are_one_call() {
    let mut bench = Bench::new();
    let lengths = [vec![64; 510 - 2], vec![64, 192], vec![1]].concat();
    let len: usize = lengths.iter().sum::<usize>() - 1;
    let (used, bytes) = bench.chain(&[&header(IN, 0)], &lengths);
    assert_eq!((used as usize, bytes[len]), (len + 1, OK));
    assert_eq!(bytes[..len], pattern(SIZE as usize)[..len]);
    assert_eq!(bench.faults.take_calls(), [Call::Read(0, len)]);
}

#[test]
fn a_request_of_a_mebibyte_across_regions_of_memory_is_whole() {
    let disk = Arc::new(MemoryDisk::with_contents(&pattern(1 << 20)).unwrap());
    let mut bench = Bench::new();
    bench.device = Block::new(Shared(Arc::clone(&disk), false));
    // Of the 4 MiB, the buffer of the second request lies across the middle.
    for _ in 0..2 {
        let (len, bytes) = bench.chain(&[&header(IN, 0)], &[1 << 20, 1]);
        assert_eq!((len, bytes[1 << 20]), ((1 << 20) + 1, OK));
        assert!(bytes[..1 << 20] == pattern(1 << 20));
    }
}

#[test]
fn what_is_not_on_the_disk_is_an_error_and_changes_nothing() {
    let mut bench = Bench::new();
    let before = bench.contents();
    for (sector, len) in [
        (64, 512),
        (65, 512),
        (63, 1024),
        (0, SIZE as usize + 512),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (1 << 55, 512),
        ((1 << 55) + 1, 512),
    ] {
        let (len_used, bytes) = bench.chain(&[&header(IN, sector)], &[len, 1]);
        assert_eq!((len_used, bytes[len]), (0, IOERR), "{sector} {len}");
        assert_eq!(bench.write(sector, &vec![1; len]), IOERR, "{sector} {len}");
    }
    assert!(bench.contents() == before);
    assert_eq!(bench.faults.take_calls(), []);
    bench.works();
}

#[test]
fn data_that_is_not_whole_sectors_is_an_error() {
    let mut bench = Bench::new();
    let before = bench.contents();
    for len in [1, 511, 513, 1023] {
        assert_eq!(bench.write(0, &vec![1; len]), IOERR, "{len}");
        assert_eq!(bench.read(0, len).0, IOERR, "{len}");
    }
    assert!(bench.contents() == before);
    bench.works();
}

#[test]
fn no_data_is_nothing_to_do() {
    let mut bench = Bench::new();
    for kind in [IN, OUT] {
        assert_eq!(bench.status(&[&header(kind, 0)]), OK);
        assert_eq!(bench.status(&[&header(kind, 64)]), OK, "at the end");
        assert_eq!(bench.status(&[&header(kind, 65)]), IOERR);
    }
    assert_eq!(bench.chain(&[&header(IN, 0)], &[0, 1]), (1, vec![OK]));
    assert_eq!(bench.faults.take_calls(), []);
}

#[test]
fn a_header_of_another_length_is_an_error() {
    let mut bench = Bench::new();
    for kind in [IN, OUT, FLUSH, DISCARD] {
        assert_eq!(bench.status(&[&header(kind, 0)[..15]]), IOERR);
        assert_eq!(bench.status(&[&[header(kind, 0), vec![0]].concat()]), IOERR);
        assert_eq!(bench.status(&[]), IOERR, "the header is writable");
    }
    assert_eq!(bench.faults.take_calls(), []);
    bench.works();
}

#[test]
fn data_in_the_wrong_direction_is_an_error() {
    let mut bench = Bench::new();
    let before = bench.contents();
    let data = [5; 512];
    assert_eq!(bench.status(&[&header(IN, 0), &data]), IOERR);
    for kind in [OUT, FLUSH, DISCARD, WRITE_ZEROES] {
        let (len, bytes) = bench.chain(&[&header(kind, 0)], &[512, 1]);
        assert_eq!((len, bytes[512]), (0, IOERR), "{kind}");
        let (len, bytes) = bench.chain(&[&header(kind, 0), &data], &[512, 1]);
        assert_eq!((len, bytes[512]), (0, IOERR), "{kind}");
    }
    assert!(bench.contents() == before);
    bench.works();
}

#[test]
fn a_request_without_room_for_its_status_writes_nothing_and_costs_the_device() {
    for writable in [[].as_slice(), &[0]] {
        let mut bench = Bench::new();
        let before = bench.contents();
        bench.ring.add(&[&header(OUT, 0), &[5; 512]], writable);
        let result = bench.device.handle(Event::Queue(0), &mut bench.io);
        assert!(
            matches!(result, Err(crate::Error::Request { queue: 0, .. })),
            "{result:?}"
        );
        assert_eq!(bench.ring.used(), None);
        assert!(bench.contents() == before);
    }
}

#[test]
fn a_status_outside_of_ram_costs_the_device_and_no_data_is_written() {
    use crate::testing::ring::{Descriptor, NEXT, WRITE};
    let mut bench = Bench::new();
    let before = bench.contents();
    let request = [header(OUT, 0), vec![5; 512]].concat();
    let address = bench.ring.alloc_bytes(&request);
    let split = bench.ring.as_split();
    let readable = Descriptor {
        address,
        len: 528,
        flags: NEXT,
        next: 1,
    };
    let status = Descriptor {
        address: 0xd000_0000,
        len: 1,
        flags: WRITE,
        next: 0,
    };
    split.set_descriptor(0, readable);
    split.set_descriptor(1, status);
    split.push_avail(0);
    let result = bench.device.handle(Event::Queue(0), &mut bench.io);
    assert!(
        matches!(result, Err(crate::Error::Queue { .. })),
        "{result:?}"
    );
    assert!(bench.contents() == before);
}

#[test]
fn what_is_not_known_is_not_supported() {
    let mut bench = Bench::new();
    // SCSI_CMD, SCSI_CMD_OUT, GET_LIFETIME, SECURE_ERASE, the zone commands, and the barrier of old.
    for kind in [
        2,
        3,
        5,
        6,
        7,
        10,
        14,
        16,
        18,
        20,
        22,
        24,
        26,
        0x8000_0000,
        u32::MAX,
    ] {
        let (_, bytes) = bench.chain(&[&header(kind, 0), &[0; 16]], &[512, 1]);
        assert_eq!(bytes[512], UNSUPP, "{kind:#x}");
        assert_eq!(bench.status(&[&header(kind, 0)]), UNSUPP, "{kind:#x}");
    }
    bench.works();
}

#[test]
fn the_serial_number_is_cut_to_the_room_there_is() {
    let mut bench = Bench::new();
    let full = b"a memory disk\0\0\0\0\0\0\0";
    for (room, used) in [(19, 20), (20, 21), (21, 20), (4096, 20)] {
        let (len, bytes) = bench.chain(&[&header(GET_ID, 0)], &[room, 1]);
        assert_eq!((len, bytes[room]), (used, OK), "{room}");
        let told = room.min(20);
        assert_eq!(bytes[..told], full[..told]);
        assert!(bytes[told..room].iter().all(|byte| *byte == 0), "not more");
    }
    assert_eq!(bench.status(&[&header(GET_ID, 0)]), IOERR, "no room at all");

    bench.device = Block::new(Shared(Arc::clone(&bench.disk), false))
        .serial("12345678901234567890")
        .unwrap();
    let (_, bytes) = bench.chain(&[&header(GET_ID, 0)], &[20, 1]);
    assert_eq!(&bytes[..20], b"12345678901234567890");
}

#[test]
fn discards_and_zeroes_touch_their_ranges_only() {
    let mut bench = Bench::new();
    let mut all = pattern(SIZE as usize);
    let ranges = [range(8, 8, 0), range(32, 16, 0)].concat();
    assert_eq!(bench.status(&[&header(DISCARD, 0), &ranges]), OK);
    all[8 * 512..16 * 512].fill(0);
    all[32 * 512..48 * 512].fill(0);
    assert!(bench.contents() == all);
    for (sector, flags) in [(1, 0), (50, 1)] {
        let request = range(sector, 3, flags);
        assert_eq!(bench.status(&[&header(WRITE_ZEROES, 0), &request]), OK);
        all[sector as usize * 512..][..3 * 512].fill(0);
        assert!(bench.contents() == all);
    }
    assert_eq!(
        bench.faults.take_calls(),
        [
            Call::Discard(8 * 512, 8 * 512),
            Call::Discard(32 * 512, 16 * 512),
            Call::WriteZeroes(512, 3 * 512, false),
            Call::WriteZeroes(50 * 512, 3 * 512, true),
        ]
    );
}

#[test]
fn a_bad_range_refuses_the_whole_request() {
    let mut bench = Bench::new();
    let before = bench.contents();
    let good = range(0, 1, 0);
    for (kind, ranges, status) in [
        (DISCARD, vec![], IOERR),
        (DISCARD, good[..15].to_vec(), IOERR),
        (DISCARD, [good.clone(), vec![0]].concat(), IOERR),
        (DISCARD, good.repeat(33), IOERR),
        (WRITE_ZEROES, good.repeat(2), IOERR),
        (DISCARD, range(0, 0, 0), IOERR),
        (DISCARD, [good.clone(), range(64, 1, 0)].concat(), IOERR),
        (DISCARD, [good.clone(), range(63, 2, 0)].concat(), IOERR),
        (DISCARD, range(u64::MAX, 1, 0), IOERR),
        (DISCARD, range(1 << 55, u32::MAX, 0), IOERR),
        (DISCARD, range(0, u32::MAX, 0), IOERR),
        (WRITE_ZEROES, range(0, (1 << 15) + 1, 0), IOERR),
        (DISCARD, range(0, 1, 1), UNSUPP),
        (DISCARD, range(0, 1, 2), UNSUPP),
        (WRITE_ZEROES, range(0, 1, 2), UNSUPP),
        (WRITE_ZEROES, range(0, 1, 0x8000_0001), UNSUPP),
    ] {
        let answer = bench.status(&[&header(kind, 0), &ranges]);
        assert_eq!(answer, status, "{kind} {ranges:x?}");
    }
    assert!(bench.contents() == before);
    assert_eq!(bench.faults.take_calls(), []);
    bench.works();
}

#[test]
fn what_was_not_negotiated_is_not_supported() {
    let mut bench = Bench::with(VERSION_1, false);
    let before = bench.contents();
    for kind in [FLUSH, DISCARD, WRITE_ZEROES] {
        assert_eq!(bench.status(&[&header(kind, 0), &range(0, 1, 0)]), UNSUPP);
    }
    assert!(bench.contents() == before);
    bench.works();
}

#[test]
fn a_read_only_disk_refuses_all_that_changes_it() {
    for features in [VERSION_1, ALL] {
        let mut bench = Bench::with(features, true);
        let before = bench.contents();
        assert_eq!(bench.write(0, &[5; 512]), IOERR);
        assert_eq!(bench.status(&[&header(FLUSH, 0)]), IOERR);
        assert_eq!(bench.status(&[&header(DISCARD, 0), &range(0, 1, 0)]), IOERR);
        assert_eq!(
            bench.status(&[&header(WRITE_ZEROES, 0), &range(0, 1, 0)]),
            IOERR
        );
        assert!(bench.contents() == before);
        assert_eq!(bench.faults.take_calls(), []);
        bench.works();
    }
}

#[test]
fn a_gibibyte_in_one_chain_is_refused_by_a_smaller_disk_and_allocates_nothing() {
    use crate::testing::ring::{Descriptor, NEXT, WRITE};
    let mut bench = Bench::new();
    let address = bench.ring.alloc_bytes(&header(IN, 0));
    let split = bench.ring.as_split();
    let descriptor = |address, len, flags, next| Descriptor {
        address,
        len,
        flags,
        next,
    };
    split.set_descriptor(0, descriptor(address, 16, NEXT, 1));
    // The same 4 MiB of memory 250 times over.
    for index in 1..=250 {
        split.set_descriptor(index, descriptor(0, 4 << 20, WRITE | NEXT, index + 1));
    }
    split.set_descriptor(251, descriptor(address, 1, WRITE, 0));
    split.push_avail(0);
    bench.device.handle(Event::Queue(0), &mut bench.io).unwrap();
    assert_eq!(bench.ring.used().map(|(_, len)| len), Some(0));
    assert_eq!(bench.ring.read(address, 1), [IOERR]);
    assert_eq!(bench.faults.take_calls(), []);
}
