//! A host that runs out of something while a machine is built or started: an error that says of
//! what, nothing left behind, and a machine as soon as there is enough. A program of its own, with
//! a single test, because it changes what the whole process may have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(dead_code, reason = "the guests are shared with another test program")]

#[path = "tiny/guest.rs"]
mod guest;

use guest::{Code, config, kvm, run};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::fs;
use vmm::virtio::console::Console;
use vmm::virtio::stream::Output;
use vmm::{Config, Outcome, SerialPort, Vm};

/// Limits the process while it lives.
struct Limit {
    resource: Resource,
    before: Rlimit,
}

impl Limit {
    fn new(resource: Resource, current: u64) -> Self {
        let before = getrlimit(resource);
        let limit = Rlimit {
            current: Some(current),
            ..before
        };
        setrlimit(resource, limit).unwrap();
        Limit { resource, before }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(self.resource, self.before).unwrap();
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A machine with everything that has descriptors; its own files are open already.
fn furnished() -> Config {
    let null = || Output::fd(fs::File::create("/dev/null").unwrap().into()).unwrap();
    Config {
        cpus: 2,
        serial: Some(SerialPort {
            input: None,
            output: Some(null()),
        }),
        devices: vec![Console::new(None, Some(null())).into()],
        ..config(Code::new().power_off())
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_host_without_descriptors_or_address_space_gives_errors_and_loses_nothing() {
    if kvm("a_host_without_descriptors_or_address_space_gives_errors_and_loses_nothing") {
        assert_eq!(run(furnished()), Outcome::Shutdown);
        descriptors_run_out_at_each_step();
        address_space_runs_out();
        assert_eq!(run(furnished()), Outcome::Shutdown);
    }
}

fn descriptors_run_out_at_each_step() {
    let mut failures = 0;
    for spare in 0..64 {
        let config = furnished();
        let before = descriptors();
        let limit = Limit::new(Resource::Nofile, (before - 1 + spare) as u64);
        let result = Vm::new(config).and_then(Vm::run);
        drop(limit);
        match result {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Shutdown);
                assert!(failures > 5, "{failures} steps failed");
                return;
            }
            Err(error) => {
                let text = chain(&error);
                assert!(text.contains("os error 24"), "{text}");
                failures += 1;
            }
        }
        // The machine's own two outputs are closed as well.
        assert!(descriptors() <= before, "with {spare} to spare");
    }
    panic!("64 descriptors are not enough");
}

fn address_space_runs_out() {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = Limit::new(Resource::As, pages * 4096 + (100 << 20));
    let config = Config {
        memory: 1 << 30,
        ..furnished()
    };
    let error = Vm::new(config).err().expect("there is no room for 1 GiB");
    drop(limit);

    let text = chain(&error);
    assert!(text.contains("1073741824 bytes"), "{text}");
    assert!(text.contains("Cannot allocate memory"), "{text}");
}
