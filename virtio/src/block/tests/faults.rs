//! A host that fails, and when what was written is safe.

use super::*;

const EIO: i32 = libc::EIO;

#[test]
fn an_error_of_the_host_costs_one_request() {
    let mut bench = Bench::new();
    for errno in [libc::EIO, libc::ENOSPC, libc::EFBIG, libc::EDQUOT] {
        bench.faults.plan([Fault::Error(errno)]);
        let (len, bytes) = bench.chain(&[&header(IN, 0)], &[512, 1]);
        assert_eq!((len, bytes[512]), (0, IOERR));
        bench.faults.plan([Fault::Error(errno)]);
        assert_eq!(bench.write(0, &[1; 512]), IOERR);
        bench.faults.plan([Fault::Error(errno)]);
        assert_eq!(bench.status(&[&header(DISCARD, 0), &range(0, 1, 0)]), IOERR);
        bench.faults.plan([Fault::Error(errno)]);
        assert_eq!(bench.status(&[&header(FLUSH, 0)]), IOERR);
        bench.works();
    }
    assert_eq!(bench.write(0, &[1; 512]), OK);
}

#[test]
fn what_is_short_or_interrupted_is_continued() {
    let mut bench = Bench::new();
    let faults = [
        Fault::Short(1),
        Fault::Error(libc::EINTR),
        Fault::Short(700),
        Fault::Error(libc::EAGAIN),
        Fault::Short(3),
    ];
    bench.faults.plan(faults);
    assert_eq!(bench.read(2, 4096), (OK, bench.disk.contents(1024, 4096)));
    let calls = bench.faults.take_calls();
    assert_eq!(calls.len(), 6);
    assert_eq!(
        calls[1..3],
        [Call::Read(1025, 4095), Call::Read(1025, 4095)]
    );
    assert_eq!(calls[5], Call::Read(1024 + 704, 4096 - 704));

    bench.faults.plan(faults);
    let data = pattern(4096);
    let readable: Vec<u8> = header(OUT, 8);
    let status = bench.status(&[&readable, &data[..100], &data[100..2000], &data[2000..]]);
    assert_eq!(status, OK);
    assert!(bench.disk.contents(4096, 4096) == data);
}

#[test]
fn a_read_that_fails_midway_tells_how_much_is_there() {
    let mut bench = Bench::new();
    bench.faults.plan([Fault::Short(600), Fault::Error(EIO)]);
    let (len, bytes) = bench.chain(&[&header(IN, 0)], &[1024, 1]);
    assert_eq!((len, bytes[1024]), (600, IOERR));
    assert_eq!(bytes[..600], pattern(600));
    bench.works();
}

#[test]
fn a_storage_that_ends_early_is_an_error_and_no_endless_loop() {
    let mut bench = Bench::new();
    bench.faults.plan([Fault::Short(512), Fault::Short(0)]);
    assert_eq!(bench.read(0, 1024).0, IOERR);
    bench.faults.plan([Fault::Short(0)]);
    assert_eq!(bench.write(0, &[1; 1024]), IOERR);
    bench.faults.plan(vec![Fault::Error(libc::EAGAIN); 1001]);
    assert_eq!(bench.read(0, 1024).0, IOERR, "it would block for ever");
    bench.works();
}

#[test]
fn a_write_is_flushed_when_the_driver_asks_for_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.write(0, &[1; 512]), OK);
    assert_eq!(bench.status(&[&header(FLUSH, 0)]), OK);
    assert_eq!(
        bench.faults.take_calls(),
        [Call::Write(0, 512), Call::Flush]
    );
}

#[test]
fn each_write_is_flushed_for_a_driver_that_cannot_ask() {
    let mut bench = Bench::with(VERSION_1 | F_CONFIG_WCE | F_WRITE_ZEROES, false);
    let mut byte = [9];
    bench.device.spec().config.read(32, &mut byte);
    assert_eq!(byte, [0], "writeback is off");
    assert_eq!(bench.write(0, &[1; 512]), OK);
    assert_eq!(
        bench.status(&[&header(WRITE_ZEROES, 0), &range(0, 1, 0)]),
        OK
    );
    bench.faults.plan([Fault::None, Fault::Error(EIO)]);
    assert_eq!(bench.write(0, &[1; 512]), IOERR, "the flush has failed");
    let calls = bench.faults.take_calls();
    assert_eq!(calls[1], Call::Flush);
    assert_eq!(calls[3..], [Call::Flush, Call::Write(0, 512), Call::Flush]);
    bench.works();
}

#[test]
fn the_driver_may_switch_the_cache_off_and_on() {
    let mut bench = Bench::new();
    let config = Arc::clone(&bench.device.spec().config);
    assert_eq!(bench.write(0, &[1; 512]), OK);
    assert!(config.write(32, &[0]));
    bench
        .device
        .handle(Event::ConfigWritten, &mut bench.io)
        .unwrap();
    assert_eq!(
        bench.faults.take_calls(),
        [Call::Write(0, 512), Call::Flush],
        "what was completed before is made safe"
    );
    assert_eq!(bench.write(0, &[1; 512]), OK);
    assert_eq!(
        bench.faults.take_calls(),
        [Call::Write(0, 512), Call::Flush]
    );
    assert!(config.write(32, &[1]));
    bench
        .device
        .handle(Event::ConfigWritten, &mut bench.io)
        .unwrap();
    assert_eq!(bench.write(0, &[1; 512]), OK);
    assert_eq!(bench.faults.take_calls(), [Call::Write(0, 512)]);

    assert!(config.write(32, &[0]));
    bench.device.reset();
    let mut byte = [9];
    config.read(32, &mut byte);
    assert_eq!(byte, [1], "as it was");
}

#[test]
fn many_flushes_in_a_row_keep_their_order() {
    let mut bench = Bench::new();
    for round in 0..50 {
        bench.ring.add(&[&header(OUT, round), &[3; 512]], &[1]);
        bench.ring.add(&[&header(FLUSH, 0)], &[1]);
    }
    bench.device.handle(Event::Queue(0), &mut bench.io).unwrap();
    for _ in 0..100 {
        let (id, len) = bench.ring.used().unwrap();
        assert_eq!((len, bench.ring.written(id, 1)), (1, vec![OK]));
    }
    let calls = bench.faults.take_calls();
    for (round, pair) in (0..50).zip(calls.chunks(2)) {
        assert_eq!(pair, [Call::Write(round * 512, 512), Call::Flush]);
    }
}
