//! A host that stops, goes away or comes back.

use super::*;

/// Fills the way to the host.
fn clog(bench: &mut Bench) -> u64 {
    let mut count = 0;
    loop {
        bench.rings[1].add(&[&[0; 12], &frame(1500)], &[]);
        bench.event(Event::Queue(TX));
        if bench.rings[1].used().is_none() {
            return count;
        }
        count += 1;
        assert!(count < 10_000, "a socket has an end");
    }
}

#[test]
fn a_blocked_host_is_waited_for_and_nothing_is_lost() {
    let mut bench = Bench::new(ALL);
    let before = clog(&mut bench);
    assert_eq!(bench.interest(), Some(Interest::WRITE));
    bench.event(Event::Queue(TX));
    assert_eq!(bench.rings[1].used(), None);
    let mut count = 0;
    while bench.sent().is_some() {
        count += 1;
        bench.event(Event::Fd(0));
    }
    assert_eq!(count, before + 1);
    assert!(bench.rings[1].used().is_some());
    assert_eq!(bench.interest(), None);
    assert_eq!(bench.counters.read().sent_dropped, 0);
}

#[test]
fn a_host_that_stays_blocked_costs_frames_and_not_the_guest() {
    let mut bench = Bench::new(ALL);
    clog(&mut bench);
    bench.patience_ends();
    assert!(bench.rings[1].used().is_some(), "given back");
    for _ in 0..100 {
        bench.transmit(&[&[0; 12], &frame(60)]);
    }
    assert_eq!(bench.counters.read().sent_dropped, 101);
    assert!(bench.link_is_up());
    // Called for nothing: it goes on as before.
    bench.event(Event::Fd(0));
    bench.transmit(&[&[0; 12], &frame(60)]);
    assert_eq!(bench.counters.read().sent_dropped, 102);

    while bench.sent().is_some() {}
    bench.event(Event::Fd(0));
    bench.works();
}

#[test]
fn a_host_that_is_gone_costs_the_link() {
    let mut bench = Bench::new(ALL);
    bench.give(48, &[2048]);
    let before = bench.irq.counts().config;
    bench.hosts.clear();
    bench.event(Event::Fd(0));
    assert!(!bench.link_is_up());
    assert_eq!(bench.irq.counts().config, before + 1);
    assert_eq!(
        bench.interest(),
        None,
        "nothing to be called for again and again"
    );
    for _ in 0..10 {
        bench.transmit(&[&[0; 12], &frame(60)]);
    }
    assert_eq!(bench.counters.read().sent_dropped, 10);
    assert_eq!(bench.irq.counts().config, before + 1, "said once");
}

#[test]
fn a_host_that_goes_while_we_send_costs_the_link() {
    let mut bench = Bench::new(ALL);
    bench.hosts.clear();
    bench.transmit(&[&[0; 12], &frame(60)]);
    assert!(!bench.link_is_up());
    assert_eq!(bench.interest(), None);
}

#[test]
fn a_host_that_goes_while_it_is_waited_for_costs_the_link() {
    let mut bench = Bench::new(ALL);
    clog(&mut bench);
    bench.hosts.clear();
    bench.event(Event::Fd(0));
    assert!(!bench.link_is_up());
    assert_eq!(bench.interest(), None);
    assert!(bench.rings[1].used().is_some());
}

#[test]
fn the_link_is_what_it_is_after_a_reset() {
    let mut bench = Bench::new(ALL);
    bench.hosts.clear();
    bench.transmit(&[&[0; 12], &frame(60)]);
    bench.device.quiesce(&mut bench.io).unwrap();
    bench.device.reset();
    assert!(!bench.link_is_up());
    bench.device.activate(&mut bench.io).unwrap();
    assert!(!bench.link_is_up());
}

#[test]
fn a_pause_keeps_buffers_and_goes_on_with_them() {
    let mut bench = Bench::new(ALL);
    bench.give(48, &[2048]);
    bench.device.quiesce(&mut bench.io).unwrap();
    assert_eq!((bench.interest(), bench.io.interest(1)), (None, None));
    bench.device.activate(&mut bench.io).unwrap();
    bench.event(Event::Queue(RX));
    bench.arrive(Header::default(), &frame(60));
    assert_eq!(bench.received().0, [72]);
}

#[test]
fn pairs_that_are_not_used_keep_their_links_over_pauses_and_resets() {
    let mut bench = Bench::with_lanes(!0, 3, 64);
    for round in 0..3 {
        bench.device.quiesce(&mut bench.io).unwrap();
        if round == 1 {
            bench.device.reset();
        }
        bench.device.activate(&mut bench.io).unwrap();
    }
    let order: &[u8] = &[4, 0, 3, 0];
    bench.rings[6].add(&[order], &[1]);
    bench.event(Event::Queue(6));
    bench.tell();
    assert!(bench.link_is_up());
    // The first lane's four times, and then the others'.
    assert_eq!(bench.told.lock().unwrap().len(), 4 + 2);
}
