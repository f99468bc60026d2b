//! Everything that steers a running machine from outside: signals, keys, the window's size.
//!
//! Each comes as a [`Request`] over one channel to one thread, which also keeps the deadline of a
//! power-off that was asked for. A guest that has no driver for the power button would never
//! answer; so a guest that does not even take the press within a second is stopped then.

use crate::{keys, say, term};
use signal_hook::consts::signal::{
    SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
};
use signal_hook::iterator::{Handle as SignalsHandle, Signals};
use signal_hook::low_level::emulate_default_handler;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vmm::virtio::console::Resizer;

/// How long a guest has for taking the press of its power button.
const TAKE: Duration = Duration::from_secs(1);

/// Something that the machine's user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Ask the guest to power off; when asked again, stop it at once.
    PowerOff,
    /// Stop the guest at once.
    Stop,
    /// The same, by the user's own hand: no failure.
    Quit,
    /// Press the power button, and leave it at that.
    PowerButton,
    Pause,
    Resume,
    /// The terminal's window has another size.
    Resize,
    /// This process is to be suspended.
    Suspend,
    /// This process goes on after it was suspended.
    Continued,
    /// List the keys.
    Help,
    /// The machine has ended.
    End,
}

impl From<keys::Command> for Request {
    fn from(command: keys::Command) -> Self {
        match command {
            keys::Command::Quit => Request::Quit,
            keys::Command::PowerButton => Request::PowerButton,
            keys::Command::Help => Request::Help,
        }
    }
}

/// The signals that are requests, and what they request. `SIGHUP` comes when the terminal is
/// gone: nobody is left to type, so the guest powers off as with `SIGTERM`.
const SIGNALS: [(i32, Request); 9] = [
    (SIGTERM, Request::PowerOff),
    (SIGINT, Request::PowerOff),
    (SIGHUP, Request::PowerOff),
    (SIGQUIT, Request::Stop),
    (SIGUSR1, Request::Pause),
    (SIGUSR2, Request::Resume),
    (SIGWINCH, Request::Resize),
    (SIGTSTP, Request::Suspend),
    (SIGCONT, Request::Continued),
];

/// Why a machine was stopped from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The user quit.
    Quit,
    /// A signal said so.
    Signal,
    /// It did not power off when it was asked to.
    Overdue,
}

/// What is steered.
pub trait Machine: Send + 'static {
    /// Whether there is one to press.
    fn press_power_button(&self) -> bool;
    /// Whether the guest has seen the last press.
    fn power_button_taken(&self) -> bool;
    fn stop(&self);
    fn pause(&self);
    fn resume(&self);
}

/// The threads that listen and steer; dropping it ends them.
pub struct Control {
    requests: Sender<Request>,
    signals: SignalsHandle,
    stopped: Arc<OnceLock<Stop>>,
    threads: Vec<JoinHandle<()>>,
}

impl Control {
    /// Starts to listen for signals and requests.
    pub fn start(
        machine: impl Machine,
        grace: Duration,
        resizer: Option<Resizer>,
    ) -> io::Result<Self> {
        let (requests, received) = channel();
        let mut signals = Signals::new(SIGNALS.map(|(signal, _)| signal))?;
        let stopped = Arc::new(OnceLock::new());
        let mut control = Control {
            requests: requests.clone(),
            signals: signals.handle(),
            stopped: Arc::clone(&stopped),
            threads: Vec::new(),
        };
        control.spawn("signals", move || {
            for signal in signals.forever() {
                let known = SIGNALS.iter().find(|(known, _)| *known == signal);
                if known.is_some_and(|(_, request)| requests.send(*request).is_err()) {
                    return;
                }
            }
        })?;
        let mut steering = Steering {
            machine,
            grace,
            resizer,
            deadline: None,
            stopped,
        };
        control.spawn("control", move || steering.run(&received))?;
        Ok(control)
    }

    /// Ends the listening, and tells why the machine was stopped from here, if it was.
    pub fn end(self) -> Option<Stop> {
        let stopped = Arc::clone(&self.stopped);
        drop(self);
        stopped.get().copied()
    }

    /// Where requests can be sent from elsewhere.
    pub fn requests(&self) -> Sender<Request> {
        self.requests.clone()
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads
            .push(thread::Builder::new().name(name.into()).spawn(body)?);
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.signals.close();
        // A thread that is gone already needs no telling.
        let _ = self.requests.send(Request::End);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Steering<M: Machine> {
    machine: M,
    grace: Duration,
    resizer: Option<Resizer>,
    deadline: Option<Deadline>,
    stopped: Arc<OnceLock<Stop>>,
}

/// When a power-off that was asked for has taken too long.
#[derive(Clone, Copy)]
enum Deadline {
    /// The guest has to take the press until then.
    Take(Instant),
    /// The guest has to be off until then.
    Off(Instant),
}

impl<M: Machine> Steering<M> {
    fn run(&mut self, requests: &Receiver<Request>) {
        loop {
            let request = match self.deadline {
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(Deadline::Take(at) | Deadline::Off(at)) => {
                    requests.recv_timeout(at.saturating_duration_since(Instant::now()))
                }
            };
            match request {
                Ok(Request::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(request) => self.obey(request),
                Err(RecvTimeoutError::Timeout) => self.overdue(),
            }
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::PowerOff if self.deadline.is_none() && self.machine.press_power_button() => {
                self.deadline = Some(Deadline::Take(Instant::now() + TAKE));
            }
            Request::PowerOff | Request::Stop => self.stop(Stop::Signal),
            Request::Quit => self.stop(Stop::Quit),
            Request::PowerButton => drop(self.machine.press_power_button()),
            Request::Pause => self.machine.pause(),
            Request::Resume => self.machine.resume(),
            Request::Resize => self.resize(),
            Request::Suspend => self.suspend(),
            Request::Continued => self.take_terminal(),
            Request::Help => say::line(format_args!("\n{}", keys::HELP.trim_end())),
            Request::End => {}
        }
    }

    fn overdue(&mut self) {
        match self.deadline {
            Some(Deadline::Take(at)) if self.machine.power_button_taken() => {
                self.deadline = Some(Deadline::Off(at + self.grace));
            }
            _ => {
                self.deadline = None;
                self.stop(Stop::Overdue);
            }
        }
    }

    /// Whoever asks first is the reason.
    fn stop(&self, why: Stop) {
        let _ = self.stopped.set(why);
        self.machine.stop();
    }

    fn resize(&self) {
        if let (Some(resizer), Some((columns, rows))) = (&self.resizer, term::window_size()) {
            resizer.resize(columns, rows);
        }
    }

    fn suspend(&self) {
        term::restore();
        // This stops the process; it returns when the process is continued.
        if let Err(error) = emulate_default_handler(SIGTSTP) {
            log::warn!("cannot suspend: {error}");
        }
        self.take_terminal();
    }

    fn take_terminal(&self) {
        if let Err(error) = term::make_raw() {
            log::warn!("cannot make the terminal raw again: {error}");
        }
        self.resize();
    }
}

impl<M: Machine> Drop for Steering<M> {
    /// A machine that nobody can stop any more must not go on.
    fn drop(&mut self) {
        if thread::panicking() {
            self.machine.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Fake {
        calls: Arc<Mutex<Vec<&'static str>>>,
        takes: bool,
        has_no_button: bool,
    }

    impl Fake {
        fn call(&self, name: &'static str) {
            self.calls.lock().unwrap().push(name);
        }
    }

    impl Machine for Fake {
        fn press_power_button(&self) -> bool {
            self.call("press");
            !self.has_no_button
        }
        fn power_button_taken(&self) -> bool {
            self.takes
        }
        fn stop(&self) {
            self.call("stop");
        }
        fn pause(&self) {
            self.call("pause");
        }
        fn resume(&self) {
            self.call("resume");
        }
    }

    fn steering(machine: Fake) -> Steering<Fake> {
        Steering {
            machine,
            grace: Duration::from_secs(30),
            resizer: None,
            deadline: None,
            stopped: Arc::default(),
        }
    }

    /// What the machine is told when `requests` come, and then time passes `timeouts` times.
    fn told(takes: bool, requests: &[Request], timeouts: usize) -> Vec<&'static str> {
        let machine = Fake {
            takes,
            ..Fake::default()
        };
        let calls = Arc::clone(&machine.calls);
        let mut steering = steering(machine);
        requests.iter().for_each(|request| steering.obey(*request));
        (0..timeouts).for_each(|_| steering.overdue());
        let calls = calls.lock().unwrap();
        calls.clone()
    }

    #[test]
    fn a_machine_without_a_power_button_is_stopped_at_once() {
        let machine = Fake {
            has_no_button: true,
            ..Fake::default()
        };
        let calls = Arc::clone(&machine.calls);

        steering(machine).obey(Request::PowerOff);

        assert_eq!(*calls.lock().unwrap(), ["press", "stop"]);
    }

    #[test]
    fn a_machine_whose_steering_panics_is_stopped() {
        let machine = Fake::default();
        let calls = Arc::clone(&machine.calls);

        let panicked = thread::spawn(move || {
            let _steering = steering(machine);
            panic!("on purpose");
        })
        .join();

        assert!(panicked.is_err());
        assert_eq!(*calls.lock().unwrap(), ["stop"]);
    }

    #[test]
    fn the_first_reason_for_a_stop_is_the_one_that_is_told() {
        let mut steering = steering(Fake::default());

        steering.obey(Request::Quit);
        steering.obey(Request::Stop);

        assert_eq!(steering.stopped.get(), Some(&Stop::Quit));
    }

    #[test]
    fn a_power_off_asks_first() {
        assert_eq!(told(true, &[Request::PowerOff], 0), ["press"]);
    }

    #[test]
    fn a_second_power_off_stops_at_once() {
        assert_eq!(
            told(true, &[Request::PowerOff, Request::PowerOff], 0),
            ["press", "stop"]
        );
    }

    #[test]
    fn a_guest_that_does_not_take_the_press_is_stopped() {
        assert_eq!(told(false, &[Request::PowerOff], 1), ["press", "stop"]);
    }

    #[test]
    fn a_guest_that_takes_it_has_its_grace() {
        assert_eq!(told(true, &[Request::PowerOff], 1), ["press"]);
        assert_eq!(told(true, &[Request::PowerOff], 2), ["press", "stop"]);
    }

    #[test]
    fn the_power_button_alone_has_no_deadline() {
        assert_eq!(
            told(
                false,
                &[Request::PowerButton, Request::Pause, Request::Resume],
                0
            ),
            ["press", "pause", "resume"]
        );
    }
}
