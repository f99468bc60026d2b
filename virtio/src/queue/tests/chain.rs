//! Reading and writing the bytes of a chain.

use super::Pair;
use crate::features::{INDIRECT_DESC, RING_PACKED};
use crate::queue::{Chain, Queue, QueueError, Step};
use crate::testing::ring::{Descriptor, NEXT, Ring, WRITE, ram};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use vm_memory::{Le16, Le32};

/// Serves one chain and gives it back with what was written.
fn serve(queue: &mut Queue, serve: impl FnOnce(&mut Chain<'_>)) {
    let mut serve = Some(serve);
    let drained = queue.drain(|chain| {
        serve.take().expect("one chain")(chain);
        Ok::<_, QueueError>(Step::Done(chain.written()))
    });
    assert!(drained.is_ok());
    assert!(serve.is_none(), "no chain was available");
}

#[test]
fn a_reader_goes_across_buffers_and_remembers_its_place() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"ab", b"cdef", b"g"], &[]);
    serve(&mut pair.queue, |chain| {
        let mut bytes = [0; 3];
        chain.reader().read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abc");
        assert_eq!(chain.reader().remaining(), 4);
        let mut rest = Vec::new();
        chain.reader().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"defg");
        assert_eq!(chain.readable_len(), 7);
    });
}

#[test]
fn a_writer_goes_across_buffers_and_counts() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"readable"], &[3, 1, 4]);
    serve(&mut pair.queue, |chain| {
        chain.writer().write_all(b"ab").unwrap();
        let mut writer = chain.writer();
        writer.write_all(b"cdefg").unwrap();
        assert_eq!((writer.written(), writer.remaining()), (7, 1));
    });
    assert_eq!(pair.ring.used(), Some((head, 7)));
    assert_eq!(pair.ring.written(head, 7), b"abcdefg");
}

#[test]
fn indirect_chains_read_and_write_as_direct_ones_do() {
    for layout in [0, RING_PACKED] {
        let mut pair = Pair::new(8, layout | INDIRECT_DESC);
        let head = pair.ring.add_indirect(&[b"pi", b"ng"], &[2, 2]);
        serve(&mut pair.queue, |chain| {
            let mut bytes = [0; 4];
            chain.reader().read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"ping");
            chain.writer().write_all(b"pong").unwrap();
        });
        assert_eq!(pair.ring.used(), Some((head, 4)));
        assert_eq!(pair.ring.written(head, 4), b"pong");
    }
}

#[test]
fn objects_are_little_endian() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[&[1, 2, 3], &[4, 5, 6]], &[1, 5]);
    serve(&mut pair.queue, |chain| {
        assert_eq!(
            chain.reader().read_obj::<Le32>().unwrap().to_native(),
            0x0403_0201
        );
        assert_eq!(
            chain.reader().read_obj::<Le16>().unwrap().to_native(),
            0x0605
        );
        chain.writer().write_obj(Le32::from(0x0403_0201)).unwrap();
    });
    assert_eq!(pair.ring.written(head, 4), [1, 2, 3, 4]);
}

#[test]
fn reads_beyond_the_end_fail_and_take_nothing() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"abc"], &[8]);
    serve(&mut pair.queue, |chain| {
        let mut reader = chain.reader();
        let refused = reader.read_obj::<Le32>().map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(reader.remaining(), 3, "the writable part is not read");
        let mut bytes = [0; 8];
        assert_eq!(reader.read(&mut bytes).unwrap(), 3);
        assert_eq!(reader.read(&mut bytes).unwrap(), 0);
    });
}

#[test]
fn writes_beyond_the_end_fail_and_write_nothing() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"abcdefgh"], &[2, 1]);
    serve(&mut pair.queue, |chain| {
        let mut writer = chain.writer();
        assert_eq!(
            writer.write_all(b"1234").unwrap_err().kind(),
            ErrorKind::WriteZero
        );
        assert_eq!(writer.written(), 0);
        assert_eq!(writer.write(b"1234").unwrap(), 3);
        assert_eq!(writer.write(b"5").unwrap(), 0);
    });
    assert_eq!(pair.ring.used(), Some((head, 3)));
}

#[test]
fn advancing_skips_and_stops_at_the_end() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"ab", b"cd", b"ef"], &[4]);
    serve(&mut pair.queue, |chain| {
        let mut reader = chain.reader();
        reader.advance(3);
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"d");
        reader.advance(0);
        reader.advance(usize::MAX);
        assert_eq!((reader.remaining(), reader.slices().count()), (0, 0));
        chain.writer().advance(3);
        assert_eq!(chain.written(), 3);
    });
}

#[test]
fn slices_start_where_the_reader_is() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"abc", b"de"], &[]);
    serve(&mut pair.queue, |chain| {
        let mut reader = chain.reader();
        reader.advance(1);
        let lengths: Vec<_> = reader.slices().map(|slice| slice.len()).collect();
        assert_eq!(lengths, [2, 2]);
    });
}

#[test]
fn host_io_goes_straight_through() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"abc", b"de"], &[2, 4]);
    serve(&mut pair.queue, |chain| {
        let mut taken = Vec::new();
        assert_eq!(chain.reader().write_to(&mut taken).unwrap(), 5);
        assert_eq!(
            (taken.as_slice(), chain.reader().remaining()),
            (&b"abcde"[..], 0)
        );
        let mut source = &b"123"[..];
        assert_eq!(chain.writer().read_from(&mut source).unwrap(), 3);
        assert_eq!(chain.writer().remaining(), 3);
    });
    assert_eq!(pair.ring.used(), Some((head, 3)));
    assert_eq!(pair.ring.written(head, 3), b"123");
}

#[test]
fn host_io_that_takes_less_leaves_the_rest() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"abc", b"de"], &[]);
    serve(&mut pair.queue, |chain| {
        let mut room = [0; 4];
        assert_eq!(chain.reader().write_to(&mut &mut room[..]).unwrap(), 4);
        assert_eq!((&room, chain.reader().remaining()), (b"abcd", 1));
    });
}

#[test]
fn a_buffer_that_crosses_two_regions_is_two_slices() {
    let memory = ram(&[(0, 0x1_0000), (0x1_0000, 0x1_0000), (0x3_0000, 0x1000)]);
    let mut ring = Ring::split(&memory, 0x1000..0x8000, 8, 0);
    let mut queue = Queue::new(&ring.config(), Arc::clone(&memory), 0).unwrap();
    ring.write(0xfffe, b"abcd");
    let crossing = |flags, next| Descriptor {
        address: 0xfffe,
        len: 4,
        flags,
        next,
    };
    ring.as_split().set_descriptor(0, crossing(NEXT, 1));
    ring.as_split().set_descriptor(1, crossing(WRITE, 0));
    ring.as_split().push_avail(0);
    serve(&mut queue, |chain| {
        assert_eq!(
            chain
                .reader()
                .slices()
                .map(|slice| slice.len())
                .collect::<Vec<_>>(),
            [2, 2]
        );
        let mut bytes = [0; 4];
        chain.reader().read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abcd");
        chain.writer().write_all(b"1234").unwrap();
    });
    assert_eq!(ring.read(0xfffe, 4), b"1234");
}

#[test]
fn a_buffer_that_reaches_into_a_hole_is_refused() {
    let memory = ram(&[(0, 0x1_0000), (0x1_0000, 0x1_0000), (0x3_0000, 0x1000)]);
    let mut ring = Ring::split(&memory, 0x1000..0x8000, 8, 0);
    let mut queue = Queue::new(&ring.config(), Arc::clone(&memory), 0).unwrap();
    // From the first region through the second, and over the hole into the third.
    let (address, len) = (0xf000, 0x3_0000 - 0xf000 + 1);
    let descriptor = Descriptor {
        address,
        len,
        flags: 0,
        next: 0,
    };
    ring.as_split().set_descriptor(0, descriptor);
    ring.as_split().push_avail(0);
    let drained = queue.drain(|_| Ok::<_, QueueError>(Step::Done(0)));
    assert_eq!(drained, Err(QueueError::BadAddress { address, len }));
}
