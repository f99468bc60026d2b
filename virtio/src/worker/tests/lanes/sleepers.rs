//! Lanes that have nothing to do until another one says so, and lanes that tell each other.

use super::*;

impl Rig {
    /// Its further lanes sleep.
    fn asleep(mode: Mode) -> Self {
        let mut rig = Self::new(mode);
        rig.asleep.store(true, Ordering::SeqCst);
        rig.driver.start(0);
        let lanes: Vec<u16> = rig.take_notes(1).iter().map(|note| note.0).collect();
        assert_eq!(lanes, [0]);
        rig
    }

    /// The lanes of the next notes, all of which are activations.
    fn activated(&self, count: usize) -> Vec<u16> {
        let notes = self.take_notes(count);
        let is_activation = |note: &Note| matches!(note.1, Call::Activate(_));
        assert!(notes.iter().all(is_activation), "{notes:?}");
        notes.iter().map(|note| note.0).collect()
    }
}

#[test]
fn a_lane_that_sleeps_is_not_activated_until_it_is_woken() {
    let mut rig = Rig::asleep(Mode::Thread);
    let waiting = rig.order(2, b"-");
    rig.order(0, b"t");
    rig.driver.receive(0);
    rig.works(0);
    assert_eq!(
        rig.other_notes(),
        [],
        "told of a change, but not of that one"
    );
    rig.order(0, b"a");
    assert_eq!(rig.activated(2), [1, 2]);
    assert_eq!(rig.driver.receive(2).0, waiting, "what was in its queue");
    rig.driver.receive(0);
    (0..LANES).for_each(|queue| rig.works(queue));
}

#[test]
fn what_a_lane_tells_reaches_all_others_and_not_itself() {
    let mut rig = Rig::started();
    rig.order(1, b"t");
    let told = || Call::Handle(Event::Shared);
    assert_eq!(rig.take_notes(2), [(0, told()), (2, told())]);
    rig.driver.transport.pause().unwrap();
    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
}

#[test]
fn a_lane_that_slept_is_stopped_with_the_others_and_wakes_with_them() {
    let mut rig = Rig::asleep(Mode::Thread);
    rig.driver.transport.pause().unwrap();
    assert_eq!(rig.take_notes(1), [(0, Call::Quiesce)]);
    rig.driver.transport.resume().unwrap();
    assert_eq!(rig.activated(1), [0], "it still sleeps");
    rig.order(0, b"a");
    assert_eq!(rig.activated(2), [1, 2]);
    rig.driver.transport.pause().unwrap();
    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
    rig.driver.transport.resume().unwrap();
    assert_eq!(rig.activated(3), [0, 1, 2]);
    rig.driver.reset();
    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
    rig.driver.start(0);
    assert_eq!(rig.activated(3), [0, 1, 2]);
}

#[test]
fn lanes_that_wake_while_all_are_stopped_stop_too() {
    for round in 0..200 {
        let mut rig = Rig::asleep(Mode::Thread);
        rig.order(0, b"a");
        match round % 4 {
            0 => rig.driver.transport.stop(),
            1 => rig.driver.reset(),
            2 => rig.driver.transport.pause().unwrap(),
            _ => {
                rig.driver.transport.pause().unwrap();
                rig.driver.transport.resume().unwrap();
                rig.driver.receive(0);
                (0..LANES).for_each(|queue| rig.works(queue));
                rig.driver.transport.pause().unwrap();
            }
        }
        let notes = rig.other_notes();
        let idle = notes.iter().filter(|note| note.1 == Call::Quiesce).count();
        assert_eq!(2 * idle, notes.len() + 1, "round {round}: {notes:?}");
        assert_eq!(rig.driver.machine.failures(), []);
    }
}

#[test]
fn a_lane_that_fails_takes_those_with_it_that_were_woken() {
    for order in [b"f", b"p"] {
        let mut rig = Rig::asleep(Mode::Thread);
        rig.order(0, b"a");
        rig.activated(2);
        rig.order(1, order);
        let ended = if order == b"f" { 3 } else { 2 };
        let quiesced = rig.take_notes(ended);
        assert!(quiesced.iter().all(|note| note.1 == Call::Quiesce));
    }
}

#[test]
fn a_pause_that_can_not_be_had_leaves_lanes_that_woke_meanwhile_at_work() {
    let mut rig = Rig::asleep(Mode::Thread);
    let first = rig.order(0, b"w");
    rig.order(0, b"a");
    rig.gate.until_waiting(1);
    assert!(rig.driver.transport.pause().is_err());
    rig.gate.open();
    assert_eq!(rig.driver.receive(0).0, first);
    assert_eq!(rig.activated(2), [1, 2]);
    rig.driver.receive(0);
    (0..LANES).for_each(|queue| rig.works(queue));
}

#[test]
fn lanes_without_threads_wake_in_the_turn_that_wakes_them() {
    let mut rig = Rig::asleep(Mode::Inline);
    let ids = [(0, b"a"), (1, b"-"), (2, b"-")].map(|(queue, order)| rig.order(queue, order));
    rig.driver.transport.turn();
    assert_eq!(rig.activated(2), [1, 2]);
    let used = [0, 1, 2].map(|queue: usize| rig.driver.rings[queue].used());
    assert_eq!(used, ids.map(|id| Some((id, 0))));
    rig.driver.transport.stop();
    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
}
