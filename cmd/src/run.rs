//! Runs a machine: flags into a [`Config`], the terminal into its console, its end into a status.

use crate::args;
use crate::control::{Control, Machine, Request};
use crate::report::{self, Status};
use crate::spec::Stream;
use crate::streams::{self, Opened, Pty};
use crate::typed::Keyboard;
use crate::{fetch, say, term};
use std::ffi::OsString;
use std::io;
use std::time::Duration;
use vmm::loader::Payload;
use vmm::virtio::console::{Console, Resizer};
use vmm::{Config, Handle, SerialPort, Vm};

/// Why there is no machine to run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "-console and -serial can't both have stdio: give one of them off, pty=LINK or file=PATH"
    )]
    TwoOnStdio,
    #[error("-cmdline is not valid UTF-8")]
    Cmdline,
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    #[error(transparent)]
    Stream(#[from] streams::Error),
    #[error("the terminal can't be used")]
    Terminal(#[source] io::Error),
    #[error("can't listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Vmm(#[from] vmm::Error),
}

/// Runs the machine that the command line describes, to its end.
pub fn run(machine: args::Machine) -> Status {
    match Plan::new(machine).and_then(Plan::run) {
        Ok(status) => status,
        Err(Error::TwoOnStdio) => {
            say::error(&Error::TwoOnStdio);
            Status::Usage
        }
        Err(error) => report::failure(&error),
    }
}

/// The command line with its defaults filled in.
struct Plan {
    console: Stream,
    serial: Stream,
    cmdline: String,
    machine: args::Machine,
}

impl Plan {
    fn new(mut machine: args::Machine) -> Result<Self, Error> {
        let serial = machine.serial.take().unwrap_or(Stream::Off);
        let console = machine.console.take().unwrap_or(match serial {
            Stream::Stdio => Stream::Off,
            _ => Stream::Stdio,
        });
        if console == Stream::Stdio && serial == Stream::Stdio {
            return Err(Error::TwoOnStdio);
        }
        let cmdline = match machine.cmdline.take() {
            Some(cmdline) => cmdline
                .into_string()
                .map_err(|_: OsString| Error::Cmdline)?,
            None if serial == Stream::Stdio => "console=ttyS0 reboot=t".into(),
            None => "console=hvc0 reboot=t".into(),
        };
        Ok(Plan {
            console,
            serial,
            cmdline,
            machine,
        })
    }

    fn run(self) -> Result<Status, Error> {
        let mut payload =
            Payload::linux(fetch::source("kernel", &self.machine.kernel)?).cmdline(self.cmdline);
        if let Some(initrd) = &self.machine.initrd {
            payload = payload.initrd(fetch::source("initrd", initrd)?);
        }
        let mut config = Config {
            cpus: self.machine.cpus,
            memory: self.machine.mem.bytes(),
            payload: Some(payload),
            ..Config::default()
        };
        let wanted = self.console == Stream::Stdio || self.serial == Stream::Stdio;
        let keyboard = if wanted {
            Keyboard::new().map_err(Error::Terminal)?
        } else {
            None
        };
        let (keyboard, mut typed) = keyboard.unzip();
        let mut ptys = Vec::new();
        let mut resizer = None;
        if let Some(Opened { input, output, pty }) =
            streams::open_stream("console", &self.console, &mut typed)?
        {
            let console = Console::new(input, output).name("console");
            resizer = (self.console == Stream::Stdio).then(|| console.resizer());
            config.devices.push(console.into());
            ptys.extend(pty);
        }
        if let Some(Opened { input, output, pty }) =
            streams::open_stream("serial", &self.serial, &mut typed)?
        {
            config.serial = Some(SerialPort { input, output });
            ptys.extend(pty);
        }
        let vm = Vm::new(config)?;
        ptys.iter()
            .for_each(|pty: &Pty| say::line(format_args!("hype: {pty}")));
        attend(
            vm,
            Duration::from_secs(self.machine.grace.into()),
            resizer,
            keyboard,
        )
    }
}

/// Runs the machine: the terminal is the guest's, the signals are ours.
fn attend(
    vm: Vm,
    grace: Duration,
    resizer: Option<Resizer>,
    keyboard: Option<Keyboard>,
) -> Result<Status, Error> {
    let handle = vm.handle();
    if let (Some(resizer), Some((columns, rows))) = (&resizer, term::window_size()) {
        resizer.resize(columns, rows);
    }
    let control = Control::start(handle.clone(), grace, resizer).map_err(Error::Signals)?;
    let requests = control.requests();
    let on_command = move |command| {
        // Nobody takes requests any more when the machine has ended: then there is nothing to do.
        let _ = requests.send(Request::from(command));
    };
    let typed = keyboard
        .map(|keyboard| keyboard.start(on_command))
        .transpose()
        .map_err(Error::Terminal)?;
    let ended = vm.run();
    drop(typed);
    let quit = control.end();
    let outcome = ended?;
    report::unstarted(&handle.report());
    Ok(report::outcome(&outcome, quit))
}

impl Machine for Handle {
    fn press_power_button(&self) {
        if let Err(error) = self.power_button() {
            log::warn!("{}", say::chain(&error));
        }
    }

    fn power_button_taken(&self) -> bool {
        Handle::power_button_taken(self)
    }

    fn stop(&self) {
        Handle::stop(self);
    }

    fn pause(&self) {
        if let Err(error) = Handle::pause(self) {
            log::warn!("{}", say::chain(&error));
        }
    }

    fn resume(&self) {
        if let Err(error) = Handle::resume(self) {
            log::warn!("{}", say::chain(&error));
        }
    }
}
