//! Orders of the driver's.

use super::*;

const OK: u8 = 0;
const ERR: u8 = 1;

impl Bench {
    /// The host has a frame for a pair.
    fn arrive_at(&mut self, pair: usize, frame: &[u8]) {
        let packet = [[0; 12].as_slice(), frame].concat();
        send(&self.hosts[pair], &packet, SendFlags::DONTWAIT).unwrap();
    }

    fn order(&mut self, pieces: &[&[u8]]) -> u8 {
        let queue = self.device.controlq(self.io.features());
        let ring = &mut self.rings[usize::from(queue)];
        let id = ring.add(pieces, &[1]);
        self.device
            .handle(Event::Queue(queue), &mut self.io)
            .unwrap();
        self.tell();
        let ring = &mut self.rings[usize::from(queue)];
        assert_eq!(ring.used(), Some((id, 1)));
        ring.written(id, 1)[0]
    }

    /// Whether a frame to this address reaches the driver.
    fn hears(&mut self, to: [u8; 6]) -> bool {
        let packet = [to.as_slice(), &[0; 54]].concat();
        self.arrive(Header::default(), &packet);
        let heard = self.received().0 == [72];
        if heard {
            self.give(1, &[2048]);
        }
        heard
    }
}

const OURS: [u8; 6] = MAC.bytes();
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const ALL_OF_THEM: [u8; 6] = [0xff; 6];

#[test]
fn what_is_received_is_up_to_the_driver() {
    let mut bench = Bench::new(ALL);
    bench.give(60, &[2048]);
    let four = [OURS, OTHER, GROUP, ALL_OF_THEM];
    let heard = |bench: &mut Bench| four.map(|to| bench.hears(to));
    assert_eq!(heard(&mut bench), [true; 4], "before anything is said");
    assert_eq!(bench.order(&[&[0, 0, 0]]), OK);
    assert_eq!(heard(&mut bench), [true, false, false, true]);
    for (command, expected) in [
        (0, [true; 4]),
        (1, [true, false, true, true]),
        (2, [true, true, false, true]),
        (3, [true, false, false, true]),
        (4, [false, false, false, true]),
        (5, [true, false, false, false]),
    ] {
        assert_eq!(bench.order(&[&[0, command], &[1]]), OK);
        assert_eq!(heard(&mut bench), expected, "mode {command}");
        assert_eq!(bench.order(&[&[0, command, 0]]), OK);
    }
    let tables = [&1u32.to_le_bytes()[..], &OTHER, &1u32.to_le_bytes(), &GROUP].concat();
    assert_eq!(bench.order(&[&[1, 0], &tables]), OK);
    assert_eq!(heard(&mut bench), [true; 4]);
    let none = [0; 8];
    assert_eq!(bench.order(&[&[1, 0], &none]), OK);
    assert_eq!(heard(&mut bench), [true, false, false, true]);
    let many = [&100u32.to_le_bytes()[..], &[2; 600], &[0; 4]].concat();
    assert_eq!(bench.order(&[&[1, 0], &many]), OK);
    assert_eq!(
        heard(&mut bench),
        [true, true, false, true],
        "too many are all"
    );
    assert_eq!(bench.counters.read().received_dropped, 0);
}

#[test]
fn the_address_can_be_changed_until_a_reset() {
    let mut bench = Bench::new(ALL);
    bench.give(60, &[2048]);
    bench.order(&[&[0, 0, 0]]);
    let address = |bench: &Bench| {
        let mut bytes = [0; 6];
        bench.device.spec().config.read(0, &mut bytes);
        bytes
    };
    assert_eq!(bench.order(&[&[1, 1], &OTHER]), OK);
    assert_eq!(address(&bench), OTHER);
    assert_eq!((bench.hears(OURS), bench.hears(OTHER)), (false, true));
    for bad in [GROUP, [0; 6]] {
        assert_eq!(bench.order(&[&[1, 1], &bad]), ERR);
    }
    assert_eq!(address(&bench), OTHER);
    bench.device.quiesce(&mut bench.io).unwrap();
    bench.device.reset();
    assert_eq!(address(&bench), OURS);
}

#[test]
fn nonsense_is_answered_with_an_error_and_changes_nothing() {
    let mut bench = Bench::with_lanes(!0, 2, 64);
    let huge = |count: u32, rest: usize| {
        [&[1, 0], count.to_le_bytes().as_slice(), &vec![2; rest]].concat()
    };
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0],
        vec![0, 6, 1],
        vec![1, 2, 0],
        vec![1, 1, 2, 0, 0, 0, 0],
        vec![2, 0, 1, 0],
        vec![4, 0],
        vec![4, 0, 1],
        vec![4, 0, 0, 0],
        vec![4, 0, 3, 0],
        vec![4, 0, 0xff, 0xff],
        vec![4, 1, 1, 0],
        vec![4, 2, 1, 0],
        vec![5, 0, 0, 0, 0],
        vec![5, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 0x80],
        vec![0xff, 0xff, 0xff],
        huge(u32::MAX, 8),
        huge(0x2aaa_aaab, 8),
        huge(2, 6),
        huge(1, 6),
        huge(1, 9),
    ];
    for case in cases {
        assert_eq!(bench.order(&[&case]), ERR, "{case:x?}");
    }
    assert!(bench.device.card.settings().filter.is_open());
    assert_eq!(bench.device.card.settings().in_use, 1);
    // Nobody could be told.
    let id = bench.rings[4].add(&[&[4, 0, 2, 0]], &[]);
    bench.event(Event::Queue(4));
    assert_eq!(bench.rings[4].used(), Some((id, 0)));
    assert_eq!(bench.device.card.settings().in_use, 1);
    bench.works();
}

#[test]
fn orders_of_features_that_were_not_agreed_on_are_refused() {
    let mut bench = Bench::new(features::CTRL_VQ);
    for order in [
        &[0, 0, 0][..],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 9],
        &[4, 0, 1, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(bench.order(&[order]), ERR, "{order:?}");
    }
}

#[test]
fn the_driver_may_take_less_than_it_has_agreed_on() {
    let mut bench = Bench::new(ALL);
    bench.give(60, &[2048]);
    assert_eq!(bench.order(&[&[5, 0], &GUEST_CSUM.to_le_bytes()]), OK);
    assert_eq!(bench.told.lock().unwrap().last(), Some(&Offloads::CHECKSUM));
    bench.arrive(tso4(), &frame(1000));
    assert_eq!(bench.received().0, NOTHING);
    // A pause does not bring back what the driver has given up.
    bench.device.quiesce(&mut bench.io).unwrap();
    bench.device.activate(&mut bench.io).unwrap();
    assert_eq!(bench.told.lock().unwrap().last(), Some(&Offloads::CHECKSUM));
}

#[test]
fn pairs_are_used_when_the_driver_says_so() {
    let mut bench = Bench::with_lanes(!0, 3, 64);
    bench.rings[3].add(&[&[0; 12], &frame(60)], &[]);
    bench.lane_event(1, Event::Queue(3));
    assert_eq!(bench.rings[3].used(), None, "only the first pair is in use");
    assert_eq!(bench.device.controlq(bench.io.features()), 6);
    assert_eq!(bench.order(&[&[4, 0, 2, 0]]), OK);
    assert!(bench.rings[3].used().is_some(), "what was there is sent");
    let mut bytes = [0; 100];
    assert!(recv(&bench.hosts[1], &mut bytes, RecvFlags::DONTWAIT).is_ok());
    let pass = |bench: &mut Bench| {
        bench.arrive_at(1, &frame(60));
        bench.lane_event(1, Event::Fd(0));
        bench.rings[2].used().is_some()
    };
    for _ in 0..40 {
        bench.rings[2].add(&[], &[4096]);
    }
    bench.lane_event(1, Event::Queue(2));
    assert!(pass(&mut bench));
    assert_eq!(bench.order(&[&[4, 0, 1, 0]]), OK);
    assert_eq!(bench.lane_interest(1), None);
    assert!(!pass(&mut bench), "not in use any more");
    assert_eq!(bench.order(&[&[4, 0, 3, 0]]), OK);
    assert!(bench.rings[2].used().is_some(), "it has waited");
    let counts: Vec<_> = bench.counters.by_pair().map(|pair| pair.received).collect();
    assert_eq!(counts, [0, 2, 0]);
    bench.works();
}

#[test]
fn an_order_is_answered_when_all_pairs_follow_it() {
    let mut bench = Bench::with_lanes(!0, 3, 64);
    assert_eq!(bench.order(&[&[4, 0, 3, 0]]), OK);
    let first = bench.rings[6].add(&[&[0, 0, 0]], &[1]);
    let second = bench.rings[6].add(&[&[4, 0, 1, 0]], &[1]);
    bench.event(Event::Queue(6));
    bench.lane_event(1, Event::Shared);
    assert_eq!(bench.rings[6].used(), None, "the third does not know it");
    bench.lane_event(2, Event::Shared);
    assert_eq!(bench.rings[6].used(), Some((first, 1)));
    assert_eq!(bench.rings[6].used(), Some((second, 1)));
    assert_eq!(bench.rings[6].written(first, 1), [OK]);
    assert_eq!(bench.rings[6].written(second, 1), [OK]);
}

#[test]
fn an_order_amid_a_pause_is_answered_after_it() {
    let mut bench = Bench::with_lanes(!0, 2, 64);
    assert_eq!(bench.order(&[&[4, 0, 2, 0]]), OK);
    let id = bench.rings[4].add(&[&[4, 0, 1, 0]], &[1]);
    bench.event(Event::Queue(4));
    assert_eq!(bench.rings[4].used(), None);
    bench.device.quiesce(&mut bench.io).unwrap();
    let (lane, io, is_active) = &mut bench.lanes[0];
    lane.quiesce(io).unwrap();
    *is_active = false;
    assert!(lane.is_asleep(), "it need not come back");
    bench.device.activate(&mut bench.io).unwrap();
    bench.event(Event::Queue(4));
    assert_eq!(bench.rings[4].used(), Some((id, 1)));
    bench.works();
}

#[test]
fn all_pairs_follow_what_the_driver_orders() {
    let mut bench = Bench::with_lanes(!0, 2, 64);
    assert_eq!(bench.order(&[&[4, 0, 2, 0]]), OK);
    for _ in 0..40 {
        bench.rings[2].add(&[], &[4096]);
    }
    bench.lane_event(1, Event::Queue(2));
    let told = bench.told.lock().unwrap().len();
    // A filter is nothing that the host would have to know.
    assert_eq!(bench.order(&[&[0, 0, 0]]), OK);
    assert_eq!(bench.told.lock().unwrap().len(), told);
    assert_eq!(bench.order(&[&[5, 0], &GUEST_CSUM.to_le_bytes()]), OK);
    assert_eq!(
        bench.told.lock().unwrap()[told..],
        [Offloads::CHECKSUM, Offloads::CHECKSUM]
    );
    bench.arrive_at(1, &[OTHER.as_slice(), &[0; 54]].concat());
    bench.lane_event(1, Event::Fd(0));
    assert_eq!(bench.rings[2].used(), None);
    bench.arrive_at(1, &frame(60));
    bench.lane_event(1, Event::Fd(0));
    assert!(bench.rings[2].used().is_some());
}

#[test]
fn the_link_is_that_of_all_pairs_in_use() {
    let mut bench = Bench::with_lanes(!0, 3, 64);
    bench.hosts.pop();
    assert_eq!(bench.order(&[&[4, 0, 3, 0]]), OK);
    assert!(bench.link_is_up());
    bench.rings[5].add(&[&[0; 12], &frame(60)], &[]);
    bench.lane_event(2, Event::Queue(5));
    assert!(!bench.link_is_up(), "the third pair's is gone");
    assert_eq!(bench.order(&[&[4, 0, 2, 0]]), OK);
    assert!(bench.link_is_up(), "and not in use");
}

#[test]
fn without_multiqueue_the_control_queue_is_the_third() {
    let mut bench = Bench::with_lanes(ALL, 3, 64);
    assert_eq!(bench.device.controlq(bench.io.features()), 2);
    assert_eq!(bench.order(&[&[0, 0, 0]]), OK);
    bench.works();
}
