//! Runs a machine: flags into a [`Config`], the terminal into its console, its end into a status.

use crate::args;
use crate::control::{self, Listener, Machine, Request, Steering};
use crate::explain::Values;
use crate::report::{self, Status};
use crate::signals::Signals;
use crate::spec::Stream;
use crate::streams::{self, Opened, Trace};
use crate::typed::Keyboard;
use crate::{block, fetch, net, say};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;
use vmm::loader::Payload;
use vmm::virtio::console::{Console, Resizer};
use vmm::virtio::rng::Rng;
use vmm::virtio::transport::Rings;
use vmm::{Config, Handle, SerialPort, VirtioDevice, Vm};

/// Why there is no machine to run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "-console and -serial can't both have stdio: give one of them off, pty=LINK or file=PATH"
    )]
    TwoOnStdio,
    #[error("-cmdline: the byte at offset {0} is not ASCII")]
    Cmdline(usize),
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    #[error(transparent)]
    Stream(#[from] streams::Error),
    #[error(transparent)]
    Block(#[from] block::Error),
    #[error(transparent)]
    Net(#[from] net::Error),
    #[error("-publish is for one card with -net user: others have addresses of their own")]
    Published,
    #[error("the terminal can't be used")]
    Terminal(#[source] io::Error),
    #[error("can't listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Machine(#[from] vmm::Error),
}

/// Runs the machine that the command line describes, to its end.
pub fn run(machine: args::Machine) -> Status {
    let values = Values {
        kernel: machine.kernel.clone(),
        initrd: machine.initrd.clone().unwrap_or_default(),
        mem: machine.mem.clone(),
    };
    match Plan::new(machine)
        .and_then(Plan::build)
        .and_then(Built::run)
    {
        Ok(status) => status,
        Err(error @ (Error::TwoOnStdio | Error::Published)) => {
            say::error(&error);
            Status::Usage
        }
        Err(Error::Machine(error)) => report::machine_failure(&error, &values),
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
        let users = machine.net.iter().filter(|card| card.is_user()).count();
        if users != 1 && !machine.publish.is_empty() {
            return Err(Error::Published);
        }
        let cmdline = match machine.cmdline.take() {
            Some(cmdline) => text(cmdline)?,
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

    fn build(self) -> Result<Built, Error> {
        let mut payload =
            Payload::linux(fetch::source("kernel", &self.machine.kernel)?).cmdline(self.cmdline);
        if let Some(initrd) = &self.machine.initrd {
            payload = payload.initrd(fetch::source("initrd", initrd)?);
        }
        let mut config = Config {
            cpus: self.machine.cpus,
            memory: self.machine.mem.bytes(),
            payload: Some(payload),
            transport: self.machine.transport,
            ..Config::default()
        };
        // Fetching can still be interrupted by any signal; from here on there are threads.
        let signals = Signals::block(control::signals()).map_err(Error::Signals)?;
        let wanted = self.console == Stream::Stdio || self.serial == Stream::Stdio;
        let keyboard = if wanted {
            Keyboard::new().map_err(Error::Terminal)?
        } else {
            None
        };
        let (keyboard, mut typed) = keyboard.unzip();
        let rings = self.machine.ring.unwrap_or_default();
        let mut traces = Vec::new();
        let mut resizer = None;
        if let Some(opened) = streams::open_stream("console", &self.console, &mut typed)? {
            let Opened {
                input,
                output,
                trace,
            } = opened;
            let console = Console::new(input, output).name("console");
            resizer = (self.console == Stream::Stdio).then(|| console.resizer());
            config
                .devices
                .push(VirtioDevice::from(console).rings(rings));
            traces.extend(trace);
        }
        for (number, disk) in self.machine.block.iter().enumerate() {
            let (device, trace) = disk.open(number, rings)?;
            config.devices.push(device);
            traces.extend(trace);
        }
        config.devices.extend(cards(&self.machine, rings)?);
        if let Some(opened) = streams::open_stream("serial", &self.serial, &mut typed)? {
            let Opened {
                input,
                output,
                trace,
            } = opened;
            config.serial = Some(SerialPort { input, output });
            traces.extend(trace);
        }
        // Every guest is better off with it, and one that does not know it loses nothing.
        config
            .devices
            .push(VirtioDevice::from(Rng::new()).rings(rings));
        Ok(Built {
            vm: Vm::new(config)?,
            signals,
            grace: Duration::from_secs(self.machine.grace.into()),
            resizer,
            keyboard,
            traces,
        })
    }
}

/// The network cards.
fn cards(machine: &args::Machine, rings: Rings) -> Result<Vec<VirtioDevice>, Error> {
    if machine.net.is_empty() {
        return Ok(Vec::new());
    }
    let here = std::env::current_dir().unwrap_or_default();
    let told_by = match machine.block.first() {
        Some(disk) => here.join(disk.name()),
        None => here.join(&machine.kernel),
    };
    let told_by = told_by.to_string_lossy();
    let mut devices = Vec::new();
    let mut macs = Vec::new();
    for (index, card) in machine.net.iter().enumerate() {
        if let Some((device, mac)) = card.open(index, &told_by, &machine.publish, rings)? {
            devices.push(device);
            macs.push(mac);
        }
    }
    net::warn_of_twins(&macs);
    Ok(devices)
}

/// A command line's bytes as text. Which characters may be in it is for the loader to say.
fn text(bytes: OsString) -> Result<String, Error> {
    String::from_utf8(bytes.into_vec())
        .map_err(|error| Error::Cmdline(error.utf8_error().valid_up_to()))
}

/// A machine, and what it is run with.
struct Built {
    vm: Vm,
    signals: Signals,
    grace: Duration,
    resizer: Option<Resizer>,
    keyboard: Option<Keyboard>,
    traces: Vec<Trace>,
}

impl Built {
    /// Runs the machine: the terminal is the guest's, the signals are ours.
    fn run(mut self) -> Result<Status, Error> {
        let handle = self.vm.handle();
        let steering = Arc::new(Steering::new(handle.clone(), self.resizer));
        steering.obey(Request::Resize);
        let listener = Listener::start(self.signals, Arc::clone(&steering), self.grace)
            .map_err(Error::Signals)?;
        for trace in &mut self.traces {
            if let Some(place) = trace.keep()? {
                say::line(format_args!("hype: {place}"));
            }
        }
        let keys = Arc::clone(&steering);
        let typed = self
            .keyboard
            .map(|keyboard| keyboard.start(move |command| keys.obey(command.into())))
            .transpose()
            .map_err(Error::Terminal)?;
        let ended = self.vm.run();
        drop(typed);
        drop(listener);
        let outcome = ended?;
        report::unstarted(&handle.report());
        Ok(report::outcome(&outcome, steering.stopped()))
    }
}

impl Machine for Handle {
    fn press_power_button(&self) -> bool {
        self.power_button()
            .inspect_err(|error| log::warn!("{}", say::chain(error)))
            .is_ok()
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
