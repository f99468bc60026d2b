use super::*;

/// A ring that no kernel fills, with these indices.
fn ring(first: u32, last: u32) -> (RunPage, Ring) {
    let page = RunPage::fake();
    let ring = Ring(page.ring().unwrap());
    set(ring, first, last);
    (page, ring)
}

fn set(ring: Ring, first: u32, last: u32) {
    // SAFETY: the page is alive in every test.
    let (f, l) = unsafe { ring.indices() };
    f.store(first, Ordering::Relaxed);
    l.store(last, Ordering::Release);
}

fn fill(ring: Ring, index: u32, entry: kvm_coalesced_mmio) {
    // SAFETY: the tests only fill entries that the ring has.
    unsafe {
        let entries = ring
            .0
            .as_ptr()
            .cast::<u8>()
            .add(8)
            .cast::<kvm_coalesced_mmio>();
        entries.add(index as usize).write(entry);
    }
}

fn byte(value: u8) -> kvm_coalesced_mmio {
    let mut entry = kvm_coalesced_mmio {
        phys_addr: 0x3f8,
        len: 1,
        data: [value; 8],
        ..Default::default()
    };
    entry.__bindgen_anon_1.pio = 1;
    entry
}

fn drain(ring: Ring) -> Result<Vec<CoalescedWrite>, Error> {
    let mut seen = Vec::new();
    // SAFETY: the page is alive in every test, and has no other user.
    unsafe { ring.drain(|write| seen.push(*write)) }.map(|taken| {
        assert_eq!(taken, seen.len());
        seen
    })
}

#[test]
fn ring_has_170_entries_as_the_kernel_counts_them() {
    assert_eq!(CAPACITY, 170);
}

#[test]
fn drain_of_an_empty_ring_gives_nothing() {
    for index in [0, CAPACITY - 1] {
        let (_page, ring) = ring(index, index);

        assert_eq!(drain(ring).unwrap(), []);
    }
}

#[test]
fn drain_across_the_end_of_the_ring_keeps_the_order() {
    let (_page, ring) = ring(CAPACITY - 1, 1);
    fill(ring, CAPACITY - 1, byte(b'a'));
    fill(ring, 0, byte(b'b'));

    let seen = drain(ring).unwrap();

    let data: Vec<_> = seen
        .iter()
        .flat_map(|write| write.data().to_vec())
        .collect();
    assert_eq!(data, b"ab");
    assert_eq!(seen[0].at, IoAddress::Pio(0x3f8));
    assert_eq!(drain(ring).unwrap(), []);
}

#[test]
fn drain_with_an_index_outside_the_ring_is_an_error_with_both() {
    for (first, last) in [(CAPACITY, 0), (0, CAPACITY), (u32::MAX, 1), (1, u32::MAX)] {
        let (_page, ring) = ring(first, last);

        let error = drain(ring).unwrap_err();

        match error {
            Error::CoalescedRing {
                first: f,
                last: l,
                limit: 170,
            } => {
                assert_eq!((f, l), (first, last));
            }
            error => panic!("{error:?}"),
        }
    }
}

#[test]
fn drain_of_a_length_beyond_the_data_gives_8_bytes() {
    let (_page, ring) = ring(0, 1);
    fill(
        ring,
        0,
        kvm_coalesced_mmio {
            len: u32::MAX,
            data: [9; 8],
            ..Default::default()
        },
    );

    let seen = drain(ring).unwrap();

    assert_eq!(
        (seen[0].at, seen[0].data()),
        (IoAddress::Mmio(0), &[9; 8][..])
    );
}

#[test]
fn drain_of_a_ring_that_is_filled_all_the_time_ends_after_one_round() {
    let (_page, ring) = ring(0, 1);
    let mut taken = 0_u32;

    // SAFETY: as above.
    let count = unsafe {
        ring.drain(|_| {
            taken += 1;
            set(ring, taken % CAPACITY, (taken + 1) % CAPACITY);
        })
    };

    assert_eq!(count.unwrap(), CAPACITY as usize);
}
