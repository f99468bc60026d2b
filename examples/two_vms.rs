//! Two machines at once in one process; one of them is stopped from another thread.
//!
//!     two_vms KERNEL INITRD [COMMAND LINE]
//!
//! Both boot the same guest, whose init must give a shell on `hvc0`. As soon as the second has
//! printed something it is paused, resumed and then stopped, as pulling its plug would. The first
//! runs on; when its shell shows a prompt, this program types `poweroff`. What the guests print is
//! told apart by a name in front.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program, not the library"
)]

use std::io::{self, PipeWriter, Write};
use std::sync::mpsc;
use std::thread;
use vmm::loader::Payload;
use vmm::virtio::console::Console;
use vmm::virtio::stream::{Input, Output};
use vmm::{Config, Error, Outcome, State, Vm};

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

    let first = machine(&payload, Screen::new("first", type_at_the_prompt)?)?;
    let (news, second_prints) = mpsc::channel();
    let tell = move |_: &str, _: &mut PipeWriter| {
        // An error means that the news is old.
        let _ = news.send(());
    };
    let second = machine(&payload, Screen::new("second", tell)?)?;
    let (first_handle, second_handle) = (first.handle(), second.handle());

    let first = thread::spawn(move || first.run());
    let second = thread::spawn(move || second.run());

    // An error means that the machine ended without printing anything.
    let _ = second_prints.recv();
    second_handle.pause()?;
    println!("the second machine is {}", second_handle.state());
    second_handle.resume()?;
    second_handle.stop();
    second_handle.wait_for(State::Stopped);
    println!("the first machine is {}", first_handle.state());

    println!("second: {}", outcome(second)?);
    println!("first: {}", outcome(first)?);
    Ok(())
}

/// A small machine with a screen and a keyboard.
fn machine(payload: &Payload, screen: (Screen, Input)) -> Result<Vm, Failure> {
    let (screen, keyboard) = screen;
    let console = Console::new(Some(keyboard), Some(Output::writer(screen)));
    Ok(Vm::new(Config {
        memory: 256 << 20,
        payload: Some(payload.clone()),
        devices: vec![console.into()],
        ..Config::default()
    })?)
}

fn outcome(machine: thread::JoinHandle<Result<Outcome, Error>>) -> Result<Outcome, Failure> {
    Ok(machine.join().map_err(|_| "a machine panicked")??)
}

fn type_at_the_prompt(line: &str, keyboard: &mut PipeWriter) {
    // The shell's line editor asks for the cursor's position (ESC [6n) behind its prompt.
    if line.ends_with("~# ") || line.ends_with("~# \x1b[6n") {
        // An error means that the machine is gone, and with it the need.
        let _ = keyboard.write_all(b"poweroff\n");
    }
}

/// Looks at a line as far as it was printed, and may type.
type Look = Box<dyn FnMut(&str, &mut PipeWriter) + Send>;

/// Prints whole lines with a name in front, and shows the line so far to somebody who may
/// type.
struct Screen {
    name: &'static str,
    line: Vec<u8>,
    keyboard: PipeWriter,
    look: Look,
}

impl Screen {
    fn new(
        name: &'static str,
        look: impl FnMut(&str, &mut PipeWriter) + Send + 'static,
    ) -> Result<(Screen, Input), Failure> {
        let (input, keyboard) = io::pipe()?;
        let screen = Screen {
            name,
            line: Vec::new(),
            keyboard,
            look: Box::new(look),
        };
        Ok((screen, Input::fd(input.into())?))
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            let text = String::from_utf8_lossy(&self.line);
            (self.look)(&text, &mut self.keyboard);
            if text.ends_with('\n') {
                print!("{}: {text}", self.name);
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
