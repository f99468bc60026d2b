//! The map that the guest gets, and the allocator over what is free.

use super::*;
use crate::testing::{GIB, ram};

fn map(ranges: &[Range<u64>], reserved: &[Range<u64>]) -> MemoryMap {
    MemoryMap::new(&ram(ranges), reserved).unwrap()
}

fn lines(map: &MemoryMap) -> Vec<(u64, u64, bool)> {
    map.entries()
        .iter()
        .map(|entry| (entry.range.start, entry.range.end, entry.usable))
        .collect()
}

#[test]
fn the_firmware_area_is_reserved() {
    let lines = lines(&map(&[0..16 * MIB], &[]));

    assert_eq!(
        lines,
        [
            (0, 0x9fc00, true),
            (0x9fc00, MIB, false),
            (MIB, 16 * MIB, true)
        ]
    );
}

#[test]
fn the_hole_is_left_out_and_the_total_is_all_ram() {
    for size in [3 * GIB - 4096, 3 * GIB, 3 * GIB + 4096, 4 * GIB, 5 * GIB] {
        let mut ranges = vec![0..size.min(3 * GIB)];
        if size > 3 * GIB {
            ranges.push(4 * GIB..GIB + size);
        }

        let lines = lines(&map(&ranges, &[]));

        assert_eq!(
            lines.iter().map(|(start, end, _)| end - start).sum::<u64>(),
            size
        );
        assert!(
            lines
                .iter()
                .all(|(start, end, _)| *end <= 3 * GIB || *start >= 4 * GIB)
        );
    }
}

#[test]
fn reserved_ranges_are_cut_out_wherever_they_touch_ram() {
    let reserved = [
        0xe0000..0xf0000,            // within the firmware area
        15 * MIB..15 * MIB + 0x1000, // in the middle
        20 * MIB - 0x1000..21 * MIB, // across the end
        30 * MIB..31 * MIB,          // where there is no RAM
        5 * MIB..5 * MIB,            // empty
    ];

    let lines = lines(&map(&[0..20 * MIB], &reserved));

    let expected = [
        (0, 0x9fc00, true),
        (0x9fc00, MIB, false),
        (MIB, 15 * MIB, true),
        (15 * MIB, 15 * MIB + 0x1000, false),
        (15 * MIB + 0x1000, 20 * MIB - 0x1000, true),
        (20 * MIB - 0x1000, 20 * MIB, false),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn touching_regions_become_one_line() {
    let lines = lines(&map(&[0..4 * MIB, 4 * MIB..8 * MIB], &[]));

    assert_eq!(lines.last(), Some(&(MIB, 8 * MIB, true)));
}

#[test]
fn memory_without_a_first_mib_is_refused() {
    let error = |ranges: &[Range<u64>]| MemoryMap::new(&ram(ranges), &[]).unwrap_err();

    assert!(matches!(
        error(&[0x1000..MIB]),
        Error::NoLowMemory { address: 0 }
    ));
    assert!(matches!(
        error(&[0..0x80000]),
        Error::NoLowMemory { address: 0x80000 }
    ));
}

#[test]
fn reserving_what_the_loader_needs_is_refused() {
    let error = MemoryMap::new(&ram(&[0..MIB]), &[(0x9000..0xa000)]).unwrap_err();

    assert!(matches!(
        error,
        Error::ReservedLow {
            start: 0x9000,
            end: 0xa000,
            limit: 0x9fc00
        }
    ));
}

#[test]
fn a_map_longer_than_e820_is_refused() {
    let reserved: Vec<_> = (0..63)
        .map(|i| (2 + 2 * i) * MIB..(3 + 2 * i) * MIB)
        .collect();

    assert_eq!(map(&[0..256 * MIB], &reserved[..62]).entries().len(), 127);
    let error = MemoryMap::new(&ram(&[0..256 * MIB]), &reserved).unwrap_err();
    assert!(matches!(
        error,
        Error::MemoryMapLength {
            count: 129,
            limit: 128
        }
    ));
}

#[test]
fn the_highest_place_is_below_the_bound_and_aligned() {
    let mut map = map(&[0..64 * MIB], &[]);

    assert_eq!(
        map.take_highest(5, 0x1000, &(MIB..u64::MAX)).unwrap(),
        0x3ff_f000..0x3ff_f005
    );
    assert_eq!(
        map.take_highest(0x1001, 0x1000, &(MIB..8 * MIB))
            .unwrap()
            .start,
        0x7f_e000
    );
}

#[test]
fn a_full_range_falls_through_to_the_next() {
    let mut map = map(&[0..4 * MIB, 8 * MIB..10 * MIB], &[]);

    assert_eq!(
        map.take_highest(3 * MIB, 1, &(MIB..u64::MAX)).unwrap(),
        MIB..4 * MIB
    );
    assert_eq!(
        map.take_lowest(1, 1, &(MIB..u64::MAX)).unwrap().start,
        8 * MIB
    );
}

#[test]
fn what_is_taken_is_not_given_again() {
    let mut map = map(&[0..4 * MIB], &[]);

    map.take("x", &(2 * MIB..3 * MIB)).unwrap();

    assert!(map.take("x", &(3 * MIB - 1..3 * MIB)).is_err());
    assert_eq!(
        map.take_lowest(MIB, MIB, &(MIB..u64::MAX)).unwrap(),
        MIB..2 * MIB
    );
    assert_eq!(
        map.take_lowest(MIB, MIB, &(MIB..u64::MAX)).unwrap(),
        3 * MIB..4 * MIB
    );
    assert!(map.take_lowest(1, 1, &(MIB..u64::MAX)).is_err());
}

#[test]
fn a_size_that_fits_nowhere_says_how_much_is_missing() {
    let mut map = map(&[0..4 * MIB], &[]);

    let error = map.take_highest(u64::MAX, 1, &(MIB..u64::MAX)).unwrap_err();
    assert!(matches!(error, ImageError::NoRoom { free, .. } if free == 3 * MIB));
    let error = map
        .take_highest(3 * MIB + 1, 1, &(MIB..u64::MAX))
        .unwrap_err();
    assert!(error.to_string().ends_with("needs 1 more MiB"), "{error}");
    assert!(
        map.take_lowest(u64::MAX, 1 << 63, &(MIB..u64::MAX))
            .is_err()
    );
}
