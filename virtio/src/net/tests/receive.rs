//! Frames for the driver.

use super::*;
use crate::Step;

#[test]
fn a_frame_is_spread_over_as_many_chains_as_it_takes() {
    let mut bench = Bench::new(MRG_RXBUF);
    bench.give(40, &[100]);
    bench.arrive(Header::default(), &frame(500));
    let (lens, bytes) = bench.received();
    assert_eq!(lens, [100, 100, 100, 100, 100, 12]);
    assert_eq!(
        bytes[..12],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0],
        "num_buffers"
    );
    assert_eq!(bytes[12..], frame(500));
}

#[test]
fn frames_arrive_whole_whatever_their_length_was_expected_to_be() {
    let mut bench = Bench::new(MRG_RXBUF | GUEST_CSUM | GUEST_TSO4);
    bench.give(96, &[1536]);
    // The second large one is read straight, and so are the small ones behind it, for a while.
    for len in [60, 60_000, 61_000]
        .into_iter()
        .chain([60; 70])
        .chain([62_000])
    {
        bench.arrive(tso4(), &frame(len));

        let (lens, bytes) = bench.received();
        assert_eq!(lens.len(), (len + 12).div_ceil(1536), "{len}");
        assert_eq!(bytes[12..], frame(len), "{len}");
        bench.give(lens.len(), &[1536]);
    }
}

#[test]
fn without_merging_a_frame_has_one_chain() {
    let mut bench = Bench::new(0);
    bench.give(4, &[12, 600, 1000]);
    bench.arrive(Header::default(), &frame(1514));
    bench.arrive(Header::default(), &frame(60));
    let (lens, bytes) = bench.received();
    assert_eq!(lens, [1526, 72]);
    assert_eq!(bytes[10..12], [1, 0], "num_buffers");
    assert_eq!(bytes[12..1526], frame(1514));
    // One that does not fit its chain is lost, and the chain is not.
    bench.arrive(Header::default(), &frame(1601));
    assert_eq!(bench.received().0, NOTHING);
    assert_eq!(bench.counters.read().received_dropped, 1);
    bench.works();
}

#[test]
fn buffers_of_any_cut_are_filled() {
    for merge in [0, MRG_RXBUF] {
        for sizes in [
            vec![1; 200],
            vec![11, 1, 300],
            vec![13, 2000],
            vec![5, 5, 5, 2000],
        ] {
            let mut bench = Bench::with_lanes(merge, 1, 256);
            bench.rings[0].add(&[], &sizes[..sizes.len().min(60)]);
            bench.event(Event::Queue(RX));
            bench.patience_ends();
            let room: usize = sizes[..sizes.len().min(60)].iter().sum();
            bench.arrive(Header::default(), &frame(room - 12));
            let (lens, bytes) = bench.received();
            assert_eq!(lens, [room as u32], "{sizes:?}");
            assert_eq!(bytes[12..], frame(room - 12));
        }
    }
}

#[test]
fn a_frame_longer_than_the_pieces_that_one_call_takes_is_lost_whole() {
    let mut bench = Bench::new(MRG_RXBUF | INDIRECT_DESC);
    // 600 pieces of a byte, of which a call takes 512.
    for _ in 0..3 {
        bench.rings[0].add_indirect(&[], &[1; 200]);
    }
    bench.event(Event::Queue(RX));
    bench.arrive(Header::default(), &frame(550));
    assert_eq!(bench.received().0, NOTHING);
    assert_eq!(bench.counters.read().received_dropped, 1);
    bench.arrive(Header::default(), &frame(500));
    let (lens, bytes) = bench.received();
    assert_eq!(lens, [200, 200, 112]);
    assert_eq!(bytes[12..], frame(500));
}

#[test]
fn a_chain_without_room_for_a_header_is_given_back() {
    for sizes in [&[][..], &[1], &[11], &[5, 6]] {
        let mut bench = Bench::new(MRG_RXBUF);
        if sizes.is_empty() {
            bench.rings[0].add(&[b"readable"], sizes);
        } else {
            bench.rings[0].add(&[], sizes);
        }
        bench.event(Event::Queue(RX));
        assert_eq!(bench.received().0, [0], "{sizes:?}");
        bench.works();
    }
}

#[test]
fn without_buffers_the_host_is_not_listened_to() {
    let mut bench = Bench::new(ALL);
    assert_eq!(bench.interest(), None);
    bench.give(1, &[2048]);
    bench.patience_ends();
    assert_eq!(bench.interest(), Some(Interest::READ));
    bench.arrive(Header::default(), &frame(60));
    assert_eq!(bench.interest(), None, "its only buffer was used");
    for _ in 0..5 {
        bench.arrive(Header::default(), &frame(60));
    }
    assert_eq!(bench.received().0, [72]);
    bench.give(48, &[2048]);
    bench.event(Event::Fd(0));
    (0..5).for_each(|_| bench.event(Event::Fd(0)));
    assert_eq!(bench.received().0, [72; 5], "the frames have waited");
}

#[test]
fn a_large_frame_is_waited_for_with_enough_room_but_not_for_ever() {
    let mut bench = Bench::new(MRG_RXBUF | GUEST_CSUM | GUEST_TSO4);
    bench.give(4, &[4096]);
    assert_eq!(
        bench.interest(),
        None,
        "16 KiB are not enough for any frame"
    );
    bench.arrive(tso4(), &frame(30_000));
    assert_eq!(bench.received().0, NOTHING);
    bench.give(16, &[4096]);
    assert_eq!(bench.received().0.len(), 8);

    // Now the driver has given what it has.
    bench.arrive(tso4(), &frame(16_000));
    assert_eq!(bench.received().0, NOTHING);
    bench.patience_ends();
    assert_eq!(bench.received().0.len(), 4);
    bench.arrive(tso4(), &frame(60_000));
    assert_eq!(bench.received().0, NOTHING);
    assert_eq!(bench.counters.read().received_dropped, 1);
    bench.works();
}

#[test]
fn the_driver_gets_nothing_that_it_does_not_take() {
    let mut bench = Bench::new(MRG_RXBUF);
    bench.give(4, &[2048]);
    bench.arrive(tso4(), &frame(1000));
    let partial = Header {
        flags: 1,
        ..Header::default()
    };
    bench.arrive(partial, &frame(1000));
    bench.arrive(Header::default(), &frame(13));
    assert_eq!(bench.received().0, NOTHING);
    assert_eq!(bench.counters.read().received_dropped, 3);
    let valid = Header {
        flags: 2,
        ..Header::default()
    };
    bench.arrive(valid, &frame(60));
    assert_eq!(
        bench.received().1[0],
        0,
        "what it knows nothing of is not set"
    );
}

#[test]
fn the_host_side_is_told_what_the_driver_takes() {
    let bench = Bench::new(GUEST_CSUM | GUEST_TSO4);
    let told = bench.told.lock().unwrap();
    assert_eq!(*told, [Offloads::CHECKSUM | Offloads::TSO4]);
}

#[test]
fn many_frames_are_one_interrupt() {
    let mut bench = Bench::new(MRG_RXBUF);
    bench.give(60, &[2048]);
    let packet = [[0; 12].as_slice(), &frame(60)].concat();
    // So many that there always is another one.
    for _ in 0..8 {
        bench.arrive(Header::default(), &frame(60));
    }
    let before = bench.irq.counts();
    for _ in 0..9 {
        send(&bench.hosts[0], &packet, SendFlags::DONTWAIT).unwrap();
    }
    bench.event(Event::Fd(0));
    assert_eq!(bench.received().0.len(), 17);
    assert_eq!(bench.irq.counts().queue - before.queue, 1);
}

#[test]
fn a_frame_of_several_chains_is_never_seen_in_part() {
    // With the driver on another thread, polling, on both layouts.
    for layout in [0, crate::features::RING_PACKED] {
        let memory = crate::testing::ring::ram(&[(0, 0x40_0000)]);
        let mut ring = Ring::new(&memory, 0x1000..0x40_0000, 64, layout);
        let mut queue = Queue::new(&ring.config(), Arc::clone(&memory), layout).unwrap();
        ring.disable_interrupts();
        for _ in 0..30 {
            ring.add(&[], &[16]);
        }
        let device = std::thread::spawn(move || {
            let mut kept = Vec::new();
            let mut rounds = 0;
            while rounds < 3000 {
                queue
                    .take::<crate::queue::QueueError>(|chain| {
                        kept.push((chain.token(), 1));
                        Ok(Step::Later)
                    })
                    .unwrap();
                if kept.len() >= 3 {
                    queue.complete_together(kept.drain(..3)).unwrap();
                    rounds += 1;
                }
            }
        });
        let mut seen = 0;
        while seen < 9000 {
            if ring.used().is_some() {
                assert!(
                    ring.used().is_some() && ring.used().is_some(),
                    "all or none"
                );
                for _ in 0..3 {
                    ring.add(&[], &[16]);
                }
                seen += 3;
            }
        }
        device.join().unwrap();
    }
}
