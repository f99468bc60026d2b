//! A machine with a device that hype does not have: `lines.rs`, a console that is heard line by line.
//!
//!     own_device KERNEL INITRD [COMMAND LINE]
//!
//! Each line that the guest prints is shown with the time since the start.

#![allow(clippy::print_stdout, reason = "it is a program, not the library")]

mod lines;

use lines::Lines;
use std::time::Instant;
use vmm::loader::Payload;
use vmm::{Config, Error, Vm};

#[allow(dead_code, reason = "a test takes the machine alone")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(kernel), Some(initrd)) = (args.next(), args.next()) else {
        return Err("usage: own_device KERNEL INITRD [COMMAND LINE]".into());
    };
    let cmdline = args
        .next()
        .unwrap_or_else(|| "console=hvc0 reboot=t panic=-1".to_owned());
    let payload = Payload::linux(kernel.as_str())
        .initrd(initrd.as_str())
        .cmdline(cmdline);

    let start = Instant::now();
    let show = move |line: &str| println!("{:8.3} {line}", start.elapsed().as_secs_f64());
    let outcome = machine(payload, show)?.run()?;
    println!("{outcome}");
    Ok(())
}

/// A small machine whose only console is heard by `each`.
pub fn machine(payload: Payload, each: impl FnMut(&str) + Send + 'static) -> Result<Vm, Error> {
    Vm::new(Config {
        memory: 256 << 20,
        payload: Some(payload),
        // Any `Device` is one of a machine's; where and with which rings can be said here as well.
        devices: vec![Lines::new(each).into()],
        ..Config::default()
    })
}
