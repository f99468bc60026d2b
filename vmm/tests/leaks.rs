//! Machines leave nothing behind. A program of its own, with a single test, because it counts what
//! the whole process has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(dead_code, reason = "the guests are shared with another test program")]

#[path = "tiny/busy.rs"]
mod busy;
#[path = "common/dice.rs"]
mod dice;
#[path = "tiny/driven.rs"]
mod driven;
#[path = "tiny/guest.rs"]
mod guest;

use dice::{Dice, rounds};
use guest::{Code, config, kvm, run};
use std::fs;
use std::thread;
use std::time::Duration;
use vmm::virtio::console::Console;
use vmm::virtio::stream::{Input, Output};
use vmm::{Config, Guest, Outcome, SerialPort, Vm};

/// Descriptors, threads and mappings of this process. The number of mappings varies by a few, for
/// the allocator and the stacks of new threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Possessions {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

impl Possessions {
    fn count() -> Self {
        let entries = |path: &str| fs::read_dir(path).unwrap().count();
        Possessions {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings: fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .count(),
        }
    }

    /// Does `what` often, and compares.
    fn after(times: usize, mut what: impl FnMut()) {
        // The first time may load things that stay: the signal's handler, thread-locals.
        what();
        let before = Self::count();
        (0..times).for_each(|_| what());
        let after = Self::count();
        assert_eq!(after.descriptors, before.descriptors);
        assert_eq!(after.threads, before.threads);
        assert!(
            after.mappings < before.mappings + 10,
            "{before:?} {after:?}"
        );
    }
}

/// A machine with everything that has threads and descriptors.
fn furnished(code: Code) -> Config {
    let port = || {
        (
            Some(Input::reader(std::io::empty()).unwrap()),
            Some(Output::writer(std::io::sink())),
        )
    };
    let ((input, output), (console_input, console_output)) = (port(), port());
    Config {
        cpus: 2,
        serial: Some(SerialPort { input, output }),
        devices: vec![Console::new(console_input, console_output).into()],
        ..config(code)
    }
}

#[test]
fn machines_leave_nothing_behind() {
    if kvm("machines_leave_nothing_behind") {
        that_ran();
        that_were_dropped_unrun();
        whose_loader_fails();
        whose_handle_stays();
        that_are_stopped_at_work();
    }
}

fn that_ran() {
    Possessions::after(200, || {
        assert_eq!(run(furnished(Code::new().power_off())), Outcome::Shutdown);
    });
}

fn that_were_dropped_unrun() {
    Possessions::after(50, || drop(Vm::new(furnished(Code::new())).unwrap()));
}

fn whose_loader_fails() {
    Possessions::after(50, || {
        let loader = Box::new(|_: &Guest<'_>| Err("boom".into()));
        let config = Config {
            loader: Some(loader),
            ..furnished(Code::new())
        };
        assert!(Vm::new(config).is_err());
    });
}

fn whose_handle_stays() {
    let mut handles = Vec::new();
    Possessions::after(20, || {
        let vm = Vm::new(furnished(Code::new().power_off())).unwrap();
        handles.push(vm.handle());
        vm.run().unwrap();
    });
}

fn that_are_stopped_at_work() {
    let mut dice = Dice::new("that_are_stopped_at_work");
    let times = usize::try_from(rounds(50)).unwrap();
    Possessions::after(times, || {
        let vm = Vm::new(busy::machine()).unwrap();
        let handle = vm.handle();
        let machine = thread::spawn(move || vm.run());
        dice.nap(Duration::from_millis(10));
        // Fails if the machine has not started yet.
        let _ = handle.pause();
        dice.nap(Duration::from_millis(1));
        handle.stop();
        assert_eq!(machine.join().unwrap().unwrap(), Outcome::Stopped);
    });
}
