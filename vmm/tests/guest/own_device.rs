//! The example of a device that an embedder wrote, at work.

#[path = "../../../examples/own_device/main.rs"]
mod example;

use super::*;
use crate::support::{Watchdog, deadline, initrd, kernel};
use std::sync::mpsc;
use vmm::loader::Payload;

const LINES: usize = 200;

fn line(number: usize) -> String {
    format!("line {number} of {LINES}")
}

#[test]
#[ignore = "not yet seen to its end in an emulated host"]
fn the_example_hears_each_line_of_its_guest() {
    if init::is_guest() {
        init::run(|| (0..LINES).for_each(|number| println!("{}", line(number))));
    }
    let name = "own_device::the_example_hears_each_line_of_its_guest";
    let Some(kernel) = kernel(&format!("guest::{name}")) else {
        return;
    };
    let init = format!("HYPE_GUEST=1 -- --exact {name} --nocapture --test-threads=1");
    let payload = Payload::linux(kernel)
        .initrd(initrd(&[]))
        .cmdline(format!("console=hvc0 reboot=t quiet panic=-1 {init}"));
    let (tell, told) = mpsc::channel();
    let hear = move |line: &str| tell.send(line.to_owned()).unwrap();

    let vm = example::machine(payload, hear).unwrap();
    let watchdog = Watchdog::start(vm.handle(), deadline());
    let outcome = vm.run().unwrap();
    drop(watchdog);

    let heard: Vec<_> = told.iter().collect();
    assert_eq!(outcome, Outcome::Shutdown, "{heard:?}");
    // The first stands behind what the test harness has begun.
    let lines: Vec<_> = heard
        .iter()
        .filter(|line| line.contains(" of 200"))
        .collect();
    assert_eq!(lines.len(), LINES, "{heard:?}");
    assert!(lines[0].ends_with(&line(0)), "{heard:?}");
    for (number, heard) in lines.iter().enumerate().skip(1) {
        assert_eq!(**heard, line(number));
    }
}
