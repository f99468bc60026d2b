//! Boots a kernel and shows its consoles on standard output: the shortest useful program.
//!
//!     boot KERNEL INITRD [COMMAND LINE]
//!
//! `console=ttyS0` on the command line goes to the serial port, `console=hvc0` to the virtio
//! console, which also reads standard input. At the end it says what happened, and how often the
//! guest came out to user space; with `EXITS=1` in the environment also for which address.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program, not the library"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Instant;
use vmm::loader::Payload;
use vmm::virtio::console::Console;
use vmm::virtio::stream::{Input, Output};
use vmm::{Config, SerialPort, Vm};

/// Counts the vCPUs' exits by kind and address, as they are logged on trace level.
struct Tally(Mutex<BTreeMap<String, u64>>);

static TALLY: Tally = Tally(Mutex::new(BTreeMap::new()));

impl log::Log for Tally {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "vmm::exits"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            // "vcpu0 out 0x3f8 [68]": the kind and the address.
            let line = record.args().to_string();
            let key: Vec<_> = line.split(' ').skip(1).take(2).collect();
            if let Ok(mut tally) = self.0.lock() {
                *tally.entry(key.join(" ")).or_default() += 1;
            }
        }
    }

    fn flush(&self) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(kernel), Some(initrd)) = (args.next(), args.next()) else {
        return Err("usage: boot KERNEL INITRD [COMMAND LINE]".into());
    };
    let cmdline = args.next().unwrap_or_else(|| "console=hvc0".to_owned());

    if std::env::var_os("EXITS").is_some() {
        log::set_logger(&TALLY)?;
        log::set_max_level(log::LevelFilter::Trace);
    }

    let mut config = Config {
        payload: Some(
            Payload::linux(kernel.as_str())
                .initrd(initrd.as_str())
                .cmdline(cmdline),
        ),
        serial: Some(SerialPort {
            input: None,
            output: Some(Output::writer(io::stdout())),
        }),
        ..Config::default()
    };
    let input = Some(Input::reader(io::stdin())?);
    config
        .devices
        .push(Console::new(input, Some(Output::writer(io::stdout()))).into());

    let start = Instant::now();
    let vm = Vm::new(config)?;
    let handle = vm.handle();
    let built = start.elapsed();
    let outcome = vm.run()?;

    let report = handle.report();
    eprintln!(
        "{outcome} (built in {built:?}, ran {:?})",
        start.elapsed() - built
    );
    eprintln!("{}", report.total_exits());
    if let Ok(tally) = TALLY.0.lock() {
        tally
            .iter()
            .for_each(|(what, times)| eprintln!("  {times:6} {what}"));
    }
    for device in report.unstarted() {
        eprintln!("the guest never started {}", device.name);
    }
    Ok(())
}
