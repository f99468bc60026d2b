//! Two machines at once in one process; one of them is stopped from another thread.
//!
//!     two_vms KERNEL INITRD [COMMAND LINE]
//!
//! Both boot the same guest. As soon as the first has printed something, the second is paused,
//! resumed and then stopped, as pulling its plug would. The first runs on, until its guest
//! switches itself off or half a minute is over. What they print is told apart by a prefix.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use vmm::loader::Payload;
use vmm::virtio::console::Console;
use vmm::virtio::stream::Output;
use vmm::{Config, Error, Outcome, State, Vm};

/// How long the first guest may take; the command line below ends it much sooner.
const PATIENCE: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let (Some(kernel), Some(initrd)) = (args.next(), args.next()) else {
        return Err("usage: two_vms KERNEL INITRD [COMMAND LINE]".into());
    };
    let cmdline = args
        .next()
        .unwrap_or_else(|| "console=hvc0 reboot=t panic=-1".to_owned());
    let payload = Payload::linux(kernel.as_str())
        .initrd(initrd.as_str())
        .cmdline(cmdline);

    let (first, first_prints) = machine("first", &payload)?;
    let (second, second_prints) = machine("second", &payload)?;
    let (one, two) = (first.handle(), second.handle());

    let first = thread::spawn(move || first.run());
    let second = thread::spawn(move || second.run());

    // Each machine tells once that it prints; an error means that it ended without.
    let _ = second_prints.recv();
    two.pause()?;
    println!("the second machine is {}", two.state());
    two.resume()?;
    two.stop();
    two.wait_for(State::Stopped);
    println!("second: {}", outcome(second)?);

    let _ = first_prints.recv_timeout(PATIENCE);
    println!("the first machine is {}", one.state());
    one.power_button()?;
    let watchdog = one.clone();
    let (over, is_over) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if is_over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            watchdog.stop();
        }
    });
    println!("first: {}", outcome(first)?);
    drop(over);
    watchdog.join().map_err(|_| "the watchdog panicked")?;
    Ok(())
}

/// A machine whose console prints with a prefix, and the news that it has printed something.
fn machine(name: &'static str, payload: &Payload) -> Result<(Vm, mpsc::Receiver<()>), Failure> {
    let (sender, receiver) = mpsc::channel();
    let console = Prefixed {
        name,
        line: Vec::new(),
        started: Some(sender),
    };
    let mut config = Config {
        memory: 256 << 20,
        payload: Some(payload.clone()),
        ..Config::default()
    };
    config
        .devices
        .push(Console::new(None, Some(Output::writer(console))).into());
    Ok((Vm::new(config)?, receiver))
}

fn outcome(machine: thread::JoinHandle<Result<Outcome, Error>>) -> Result<Outcome, Failure> {
    Ok(machine.join().map_err(|_| "a machine panicked")??)
}

/// Prints whole lines, each with a name in front.
struct Prefixed {
    name: &'static str,
    line: Vec<u8>,
    started: Option<mpsc::Sender<()>>,
}

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(started) = self.started.take() {
            // Nobody listens any more if the other machine was quicker.
            let _ = started.send(());
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                print!("{}: {}", self.name, String::from_utf8_lossy(&self.line));
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
