//! What the driver sends is anything at all: a bad frame costs that frame.

use super::*;

#[test]
fn a_bad_frame_is_dropped_and_counted_and_its_chain_comes_back() {
    let good = tso4();
    let with = |change: fn(&mut Header)| {
        let mut header = good;
        change(&mut header);
        header.to_bytes().to_vec()
    };
    let frame = frame(2000);
    let long = vec![0; 65_600];
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("nothing", vec![], &[]),
        ("less than a header", vec![0; 11], &[]),
        ("a header alone", vec![0; 12], &[]),
        ("less than an Ethernet header", vec![0; 12], &frame[..13]),
        ("longer than any frame", vec![0; 12], &long),
        ("gso_type 2", with(|header| header.gso_type = 2), &frame),
        (
            "gso_type 3, UDP",
            with(|header| header.gso_type = 3),
            &frame,
        ),
        (
            "gso_type 0x7f",
            with(|header| header.gso_type = 0x7f),
            &frame,
        ),
        (
            "ECN of nothing",
            with(|header| header.gso_type = 0x80),
            &frame,
        ),
        ("gso_size 0", with(|header| header.gso_size = 0), &frame),
        ("hdr_len", with(|header| header.hdr_len = 2001), &frame),
        (
            "segments without checksum",
            with(|header| header.flags = 0),
            &frame,
        ),
        (
            "csum_start",
            with(|header| header.csum_start = 1983),
            &frame,
        ),
        (
            "csum_offset",
            with(|header| header.csum_offset = u16::MAX),
            &frame,
        ),
        (
            "their sum",
            with(|header| (header.csum_start, header.csum_offset) = (u16::MAX, u16::MAX)),
            &frame,
        ),
    ];
    let mut bench = Bench::new(ALL);
    for (number, (what, header, frame)) in (1..).zip(&cases) {
        bench.transmit(&[header, frame]);
        assert!(bench.sent().is_none(), "{what}");
        assert_eq!(bench.counters.read().sent_dropped, number, "{what}");
    }
    bench.works();
    assert!(bench.link_is_up());
}

#[test]
fn fields_may_be_as_large_as_the_frame_allows() {
    let mut bench = Bench::new(ALL);
    let header = Header {
        hdr_len: 2000,
        csum_start: 1982,
        gso_size: u16::MAX,
        gso_type: 0x81,
        ..tso4()
    };
    bench.transmit(&[&header.to_bytes(), &frame(2000)]);
    assert_eq!(bench.sent(), Some((header, frame(2000))));
}

#[test]
fn what_was_not_agreed_on_is_dropped() {
    let checksum = Header {
        flags: 1,
        csum_start: 34,
        csum_offset: 16,
        ..Header::default()
    };
    let mut bench = Bench::new(0);
    for header in [checksum, tso4()] {
        bench.transmit(&[&header.to_bytes(), &frame(2000)]);
        assert!(bench.sent().is_none());
    }
    let mut bench = Bench::new(CSUM);
    bench.transmit(&[&tso4().to_bytes(), &frame(2000)]);
    assert!(bench.sent().is_none());
    bench.transmit(&[&checksum.to_bytes(), &frame(2000)]);
    assert_eq!(bench.sent(), Some((checksum, frame(2000))));
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let mut bench = Bench::new(ALL);
    let bytes = [tso4().to_bytes().as_slice(), &frame(100)].concat();
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    bench.transmit(&pieces);
    assert_eq!(
        bench.sent(),
        Some((
            Header {
                hdr_len: 54,
                ..tso4()
            },
            frame(100)
        ))
    );
}

#[test]
fn a_chain_that_is_not_all_ram_sends_nothing_and_costs_the_device() {
    let mut bench = Bench::new(ALL);
    let split = bench.rings[1].as_split();
    let descriptor = |address, flags, next| crate::testing::ring::Descriptor {
        address,
        len: 100,
        flags,
        next,
    };
    split.set_descriptor(0, descriptor(0x1000, 1, 1));
    split.set_descriptor(1, descriptor(1 << 40, 0, 0));
    split.push_avail(0);
    assert!(
        bench
            .device
            .handle(Event::Queue(TX), &mut bench.io)
            .is_err()
    );
    assert!(bench.sent().is_none());
}

#[test]
fn writable_parts_of_a_frame_are_left_alone() {
    let mut bench = Bench::new(ALL);
    let id = bench.rings[1].add(&[&[0; 12], &frame(60)], &[64]);
    bench.event(Event::Queue(TX));
    assert_eq!(bench.rings[1].used(), Some((id, 0)));
    assert_eq!(bench.rings[1].written(id, 64), vec![0; 64]);
    assert_eq!(bench.sent(), Some((Header::default(), frame(60))));
}
