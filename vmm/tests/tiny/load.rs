//! Machines that are paused, resumed and stopped while all of their vCPUs and devices are at work.

use crate::busy::{machine, wait_for_rounds};
use crate::dice::{Dice, rounds};
use crate::kvm_test;
use std::thread;
use std::time::Duration;
use vmm::{Outcome, State, Vm};

kvm_test!(pauses_lose_no_request_of_busy_devices, {
    let mut dice = Dice::new("pauses_lose_no_request_of_busy_devices");
    let vm = Vm::new(machine()).unwrap();
    let handle = vm.handle();
    let machine = thread::spawn(move || vm.run());
    handle.wait_for(State::Running);

    for round in 0..rounds(800) {
        dice.nap(Duration::from_micros(200));
        handle.pause().unwrap();
        if round % 16 == 0 {
            let before = handle.report();
            dice.nap(Duration::from_micros(500));
            assert_eq!(handle.report(), before, "nobody runs");
        }
        handle.resume().unwrap();
        if round % 16 == 0 {
            wait_for_rounds(&handle, 2);
        }
    }

    handle.stop();
    assert_eq!(machine.join().unwrap().unwrap(), Outcome::Stopped);
});

kvm_test!(a_busy_machine_can_be_stopped_at_any_moment, {
    let mut dice = Dice::new("a_busy_machine_can_be_stopped_at_any_moment");
    for round in 0..rounds(100) {
        let vm = Vm::new(machine()).unwrap();
        let handle = vm.handle();
        let machine = thread::spawn(move || vm.run());
        dice.nap(Duration::from_millis(10));
        if round % 3 == 0 {
            // Fails if the machine has not started yet, and then there is nothing to pause.
            let _ = handle.pause();
        }
        handle.stop();
        assert_eq!(machine.join().unwrap().unwrap(), Outcome::Stopped);
    }
});
