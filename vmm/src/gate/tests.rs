//! The gate, with threads that play vCPUs: "KVM_RUN" is waiting for a kick.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Stands for a vCPU's `immediate_exit` and for the signal that ends `KVM_RUN`.
#[derive(Default)]
struct Guest {
    kicked: Mutex<bool>,
    signal: Condvar,
    entries: AtomicU64,
    inside: AtomicBool,
}

impl Guest {
    fn kick(&self) {
        *self.kicked.lock().unwrap() = true;
        self.signal.notify_all();
    }

    /// Comes back once kicked, however early the kick was.
    fn run(&self) {
        self.entries.fetch_add(1, Ordering::SeqCst);
        self.inside.store(true, Ordering::SeqCst);
        let mut kicked = self.kicked.lock().unwrap();
        while !*kicked {
            kicked = self.signal.wait(kicked).unwrap();
        }
        *kicked = false;
        self.inside.store(false, Ordering::SeqCst);
    }
}

fn vcpu(gate: &Gate, guest: &Arc<Guest>, id: u32) {
    let kicked = Arc::clone(guest);
    let seat = gate.enter(id, Box::new(move || kicked.kick()));
    while seat.turn() == Turn::Run {
        guest.run();
    }
}

/// Runs `test` beside vCPUs that spin until kicked, then ends the machine.
fn with_vcpus(count: u32, test: impl FnOnce(&Gate, &[Arc<Guest>])) {
    let gate = Gate::new(count as usize);
    let guests: Vec<_> = (0..count).map(|_| Arc::new(Guest::default())).collect();
    gate.advance(Step::Start).unwrap();
    thread::scope(|scope| {
        for (id, guest) in (0..).zip(&guests) {
            let gate = &gate;
            scope.spawn(move || vcpu(gate, guest, id));
        }
        test(&gate, &guests);
        gate.end(Ok(Outcome::Stopped));
    });
}

#[test]
fn hold_returns_when_no_vcpu_is_in_the_guest() {
    with_vcpus(3, |gate, guests| {
        gate.hold().unwrap();

        assert!(
            guests
                .iter()
                .all(|guest| !guest.inside.load(Ordering::SeqCst))
        );
    });
}

#[test]
fn a_held_vcpu_does_not_enter_until_released() {
    with_vcpus(1, |gate, guests| {
        gate.hold().unwrap();
        let entries = guests[0].entries.load(Ordering::SeqCst);
        guests[0].kick();
        gate.hold().unwrap();
        assert_eq!(guests[0].entries.load(Ordering::SeqCst), entries);

        gate.release().unwrap();

        while guests[0].entries.load(Ordering::SeqCst) == entries {
            thread::yield_now();
        }
    });
}

#[test]
fn a_hundred_thousand_holds_and_releases_lose_no_kick() {
    with_vcpus(2, |gate, guests| {
        for _ in 0..100_000 {
            gate.hold().unwrap();
            assert!(
                guests
                    .iter()
                    .all(|guest| !guest.inside.load(Ordering::SeqCst))
            );
            gate.release().unwrap();
        }
    });
}

#[test]
fn holds_and_releases_and_an_end_from_many_threads_all_return() {
    for _ in 0..200 {
        with_vcpus(2, |gate, _| {
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            let _ = gate.hold();
                        }
                    });
                    scope.spawn(|| {
                        for _ in 0..20 {
                            let _ = gate.release();
                        }
                        gate.end(Ok(Outcome::Stopped));
                    });
                }
            });
            assert!(gate.is_ending());
        });
    }
}

#[test]
fn an_end_before_the_vcpus_enter_keeps_them_out_of_the_guest() {
    let gate = Gate::new(1);
    let guest = Arc::new(Guest::default());
    gate.end(Ok(Outcome::Stopped));
    gate.advance(Step::Start).unwrap();

    vcpu(&gate, &guest, 0);

    assert_eq!(guest.entries.load(Ordering::SeqCst), 0);
}

#[test]
fn an_end_while_held_lets_the_vcpus_end() {
    with_vcpus(2, |gate, _| {
        gate.hold().unwrap();
        gate.advance(Step::Pause).unwrap();
    });
}

#[test]
fn the_first_cause_is_the_one_that_is_kept() {
    let gate = Gate::new(1);
    gate.end(Ok(Outcome::Shutdown));
    gate.end(Err(Error::VcpuPanicked { cpu: 0 }));

    assert!(matches!(gate.take_cause(), Some(Ok(Outcome::Shutdown))));
}

#[test]
fn holding_fails_before_the_start_and_after_the_end() {
    let gate = Gate::new(1);
    let before = gate.hold().unwrap_err().to_string();
    gate.advance(Step::Start).unwrap();
    gate.end(Ok(Outcome::Stopped));
    let after = gate.hold().unwrap_err().to_string();

    assert_eq!(before, "can't pause a machine that is created");
    assert_eq!(after, "can't pause a machine that is stopped");
}

#[test]
fn a_vcpu_thread_that_panics_ends_the_machine_and_is_named() {
    let gate = Gate::new(2);
    gate.advance(Step::Start).unwrap();
    let guest = Arc::new(Guest::default());
    thread::scope(|scope| {
        scope.spawn(|| vcpu(&gate, &guest, 0));
        let panicking = scope.spawn(|| {
            let _seat = gate.enter(1, Box::new(|| {}));
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert!(panicking.join().is_err());
    });

    let cause = gate.take_cause().unwrap().unwrap_err();
    assert_eq!(cause.to_string(), "the thread of vCPU 1 panicked");
}

#[test]
fn wait_for_returns_when_the_state_comes_and_when_it_no_longer_can() {
    let gate = Gate::new(0);
    thread::scope(|scope| {
        let running = scope.spawn(|| gate.wait_for(State::Running));
        gate.advance(Step::Start).unwrap();
        assert_eq!(running.join().unwrap(), State::Running);

        let paused = scope.spawn(|| gate.wait_for(State::Paused));
        gate.advance(Step::Stop).unwrap();
        assert_eq!(paused.join().unwrap(), State::Stopped);
    });
}
