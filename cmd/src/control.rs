//! Everything that steers a running machine from outside: signals, keys, the window's size.
//!
//! Each is a [`Request`]. Keys come from the thread that reads the terminal; signals are read by
//! a thread of this module's, which also keeps the deadline of a power-off that was asked for. A
//! guest that has no driver for the power button would never answer; so a guest that does not
//! even take the press within a second is stopped then.

use crate::signals::Signals;
use crate::{keys, say, term};
use nix::sys::signal::{Signal, raise};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vmm::virtio::console::Resizer;

/// How long a guest has for taking the press of its power button.
const TAKE: Duration = Duration::from_secs(1);

/// Something that the machine's user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
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

/// Those that ask the guest to power off; the second one of them stops it at once. `SIGHUP` comes
/// when the terminal is gone: nobody is left to type.
const POWER_OFF: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// The other signals that are requests, and what they request.
const REQUESTS: [(Signal, Request); 6] = [
    (Signal::SIGQUIT, Request::Stop),
    (Signal::SIGUSR1, Request::Pause),
    (Signal::SIGUSR2, Request::Resume),
    (Signal::SIGWINCH, Request::Resize),
    (Signal::SIGTSTP, Request::Suspend),
    (Signal::SIGCONT, Request::Continued),
];

/// All signals that steer a machine.
pub fn signals() -> impl Iterator<Item = Signal> {
    POWER_OFF
        .into_iter()
        .chain(REQUESTS.into_iter().map(|(signal, _)| signal))
}

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
pub trait Machine: Send + Sync + 'static {
    /// Whether there is one to press.
    fn press_power_button(&self) -> bool;
    /// Whether the guest has seen the last press.
    fn power_button_taken(&self) -> bool;
    fn stop(&self);
    fn pause(&self);
    fn resume(&self);
}

/// What requests are made to, from any thread.
pub struct Steering<M> {
    machine: M,
    resizer: Option<Resizer>,
    stopped: OnceLock<Stop>,
}

impl<M: Machine> Steering<M> {
    pub fn new(machine: M, resizer: Option<Resizer>) -> Self {
        Steering {
            machine,
            resizer,
            stopped: OnceLock::new(),
        }
    }

    /// Why the machine was stopped from here, if it was.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped.get().copied()
    }

    /// Does what is requested.
    pub fn obey(&self, request: Request) {
        match request {
            Request::Stop => self.stop(Stop::Signal),
            Request::Quit => self.stop(Stop::Quit),
            Request::PowerButton => drop(self.machine.press_power_button()),
            Request::Pause => self.machine.pause(),
            Request::Resume => self.machine.resume(),
            Request::Resize => self.resize(),
            Request::Suspend => self.suspend(),
            Request::Continued => self.take_terminal(),
            Request::Help => say::line(format_args!("\n{}", keys::HELP.trim_end())),
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
        if let Err(error) = raise(Signal::SIGSTOP) {
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

/// The thread that listens for signals; dropping it ends it.
pub struct Listener {
    /// Hangs up.
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to listen. A guest that takes the press of its power button has `grace` to power off.
    pub fn start<M: Machine>(
        signals: Signals,
        steering: Arc<Steering<M>>,
        grace: Duration,
    ) -> io::Result<Self> {
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut ear = Ear {
            signals,
            ended,
            power_off: PowerOff {
                steering,
                grace,
                deadline: None,
            },
        };
        let thread = thread::Builder::new().name("signals".into());
        let thread = thread.spawn(move || {
            if let Err(error) = ear.listen() {
                log::warn!("signals are not heeded any more: {error}");
            }
        })?;
        Ok(Listener {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been told by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Ear<M: Machine> {
    signals: Signals,
    /// Hangs up when the thread is to end.
    ended: OwnedFd,
    power_off: PowerOff<M>,
}

impl<M: Machine> Ear<M> {
    fn listen(&mut self) -> io::Result<()> {
        loop {
            // One that does not fit would be later than anybody waits.
            let left = self.power_off.time_left();
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [
                PollFd::new(&self.ended, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            let count = match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let [ended, _] = fds;
            if !ended.revents().is_empty() {
                return Ok(());
            }
            if count == 0 {
                self.power_off.overdue();
            }
            while let Some(signal) = self.signals.next()? {
                self.power_off.heed(signal);
            }
        }
    }
}

/// What signals do, and the deadline of a power-off.
struct PowerOff<M: Machine> {
    steering: Arc<Steering<M>>,
    grace: Duration,
    deadline: Option<Deadline>,
}

/// When a power-off that was asked for has taken too long.
#[derive(Clone, Copy)]
enum Deadline {
    /// The guest has to take the press until then.
    Take(Instant),
    /// The guest has to be off until then.
    Off(Instant),
}

impl<M: Machine> PowerOff<M> {
    fn time_left(&self) -> Option<Duration> {
        let (Deadline::Take(at) | Deadline::Off(at)) = self.deadline?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    fn heed(&mut self, signal: Signal) {
        if POWER_OFF.contains(&signal) {
            if self.deadline.is_none() && self.steering.machine.press_power_button() {
                self.deadline = Some(Deadline::Take(Instant::now() + TAKE));
            } else {
                self.steering.stop(Stop::Signal);
            }
        } else if let Some((_, request)) = REQUESTS.iter().find(|(known, _)| *known == signal) {
            self.steering.obey(*request);
        }
    }

    fn overdue(&mut self) {
        match self.deadline {
            Some(Deadline::Take(at)) if self.steering.machine.power_button_taken() => {
                self.deadline = Some(Deadline::Off(at + self.grace));
            }
            _ => {
                self.deadline = None;
                self.steering.stop(Stop::Overdue);
            }
        }
    }
}

impl<M: Machine> Drop for PowerOff<M> {
    /// A machine that nobody can stop any more must not go on.
    fn drop(&mut self) {
        if thread::panicking() {
            self.steering.machine.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Signal::{SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
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

    fn power_off(machine: Fake) -> PowerOff<Fake> {
        PowerOff {
            steering: Arc::new(Steering::new(machine, None)),
            grace: Duration::from_secs(30),
            deadline: None,
        }
    }

    /// What the machine is told when `signals` come, and then time passes `timeouts` times.
    fn told(takes: bool, signals: &[Signal], timeouts: usize) -> Vec<&'static str> {
        let machine = Fake {
            takes,
            ..Fake::default()
        };
        let calls = Arc::clone(&machine.calls);
        let mut power_off = power_off(machine);
        signals.iter().for_each(|signal| power_off.heed(*signal));
        (0..timeouts).for_each(|_| power_off.overdue());
        let calls = calls.lock().unwrap();
        calls.clone()
    }

    #[test]
    fn a_power_off_asks_first() {
        assert_eq!(told(true, &[SIGTERM], 0), ["press"]);
    }

    #[test]
    fn a_second_power_off_stops_at_once() {
        assert_eq!(told(true, &[SIGTERM, SIGINT], 0), ["press", "stop"]);
    }

    #[test]
    fn a_guest_that_does_not_take_the_press_is_stopped() {
        assert_eq!(told(false, &[SIGTERM], 1), ["press", "stop"]);
    }

    #[test]
    fn a_guest_that_takes_it_has_its_grace() {
        assert_eq!(told(true, &[SIGTERM], 1), ["press"]);
        assert_eq!(told(true, &[SIGTERM], 2), ["press", "stop"]);
    }

    #[test]
    fn other_signals_set_no_deadline() {
        let machine = Fake::default();
        let calls = Arc::clone(&machine.calls);
        let mut power_off = power_off(machine);

        for signal in [SIGUSR1, SIGUSR2, SIGQUIT] {
            power_off.heed(signal);
        }

        assert_eq!(*calls.lock().unwrap(), ["pause", "resume", "stop"]);
        assert_eq!(power_off.time_left(), None);
    }

    #[test]
    fn a_machine_without_a_power_button_is_stopped_at_once() {
        let machine = Fake {
            has_no_button: true,
            ..Fake::default()
        };
        let calls = Arc::clone(&machine.calls);

        power_off(machine).heed(SIGTERM);

        assert_eq!(*calls.lock().unwrap(), ["press", "stop"]);
    }

    #[test]
    fn a_machine_whose_signals_nobody_heeds_any_more_is_stopped() {
        let machine = Fake::default();
        let calls = Arc::clone(&machine.calls);

        let panicked = thread::spawn(move || {
            let _power_off = power_off(machine);
            panic!("on purpose");
        })
        .join();

        assert!(panicked.is_err());
        assert_eq!(*calls.lock().unwrap(), ["stop"]);
    }

    #[test]
    fn the_first_reason_for_a_stop_is_the_one_that_is_told() {
        let steering = Steering::new(Fake::default(), None);

        steering.obey(Request::Quit);
        steering.obey(Request::Stop);

        assert_eq!(steering.stopped(), Some(Stop::Quit));
    }
}
