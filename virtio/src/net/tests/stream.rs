//! A card on a stream, as passt has the other end of, and an other end that says anything.

use super::*;
use crate::net::Passt;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// The card, and the other end.
fn bench() -> (Bench, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    let device = Net::new(Passt::on(one.into()), MAC).unwrap();
    let mut bench = Bench::over(device, ALL, 256, Vec::new(), Arc::default());
    bench.give(100, &[2048]);
    (bench, other)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

#[test]
fn nonsense_costs_the_link_and_nothing_is_listened_to_any_more() {
    for nonsense in [
        b"\0\0\0\0".as_slice(),
        b"\0\x01\0\x13",
        b"\x80\0\0\0",
        b"\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let (mut bench, mut other) = bench();
        other.write_all(nonsense).unwrap();
        bench.event(Event::Fd(0));
        assert!(!bench.link_is_up(), "{nonsense:?}");
        assert_eq!(bench.interest(), None, "{nonsense:?}");
        bench.transmit(&[&[0; 12], &frame(60)]);
        assert_eq!(bench.counters.read().sent_dropped, 1);
    }
}

#[test]
fn an_end_amid_a_frame_costs_the_link() {
    let (mut bench, mut other) = bench();
    other.write_all(&framed(&frame(60))[..20]).unwrap();
    bench.event(Event::Fd(0));
    assert!(bench.link_is_up());
    drop(other);
    bench.event(Event::Fd(0));
    assert!(!bench.link_is_up());
    assert_eq!(bench.interest(), None);
}

#[test]
fn frames_that_are_none_are_dropped_in_turns_that_end() {
    let (mut bench, mut other) = bench();
    other.set_nonblocking(true).unwrap();
    let flood = framed(&[0; 13]).repeat(1000);
    // Without an end: whenever there is room, there is more.
    for turn in 1..=4 {
        while other.write(&flood).is_ok_and(|count| count == flood.len()) {}
        let before = bench.counters.read().received_dropped;
        bench.event(Event::Fd(0));
        let dropped = bench.counters.read().received_dropped - before;
        // What a read brings at most, and a burst.
        assert!((1..10_000).contains(&dropped), "turn {turn}: {dropped}");
        assert_eq!(bench.interest(), Some(Interest::READ));
    }
    assert!(bench.link_is_up());
    assert_eq!(bench.received(), (Vec::new(), Vec::new()));
    // Nor does it hold up what the driver sends.
    bench.transmit(&[&[0; 12], &frame(60)]);
    assert_eq!(bench.counters.read().sent, 1);
}
