//! How a machine ends, and what the exit status and the last line say about it.

use crate::command::{
    CRASHED, Ended, FAILURE, PANICKED, POWER_OFF, REBOOT, end, eventually, finish, hype,
};
use crate::guest::{Code, Kernel, kvm};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

/// Runs a guest that needs nobody to end.
fn run(code: Code, options: &[&str]) -> Ended {
    let kernel = Kernel::new(code);
    let mut all = kernel.options(&["-console", "off"]);
    all.extend(options);
    finish(&mut hype(all))
}

#[test]
fn each_ending_has_its_status_and_what_is_no_orderly_end_its_line() {
    if !kvm("each_ending_has_its_status") {
        return;
    }
    let triple_fault = || Code::new().triple_fault();
    for (code, cmdline, status, line) in [
        (Code::new().power_off(), "", POWER_OFF, ""),
        (Code::new().reset(), "", REBOOT, ""),
        (triple_fault(), "reboot=t", REBOOT, ""),
        (
            triple_fault(),
            "",
            CRASHED,
            "hype: triple fault on vCPU 0 at rip ",
        ),
        (
            Code::new().panic(),
            "",
            PANICKED,
            "hype: the guest's kernel panicked\n",
        ),
    ] {
        let ended = run(code, &["-cmdline", cmdline]);

        assert_eq!(ended.code(), Some(status), "{ended:?}");
        assert!(ended.stderr.starts_with(line), "{line}: {ended:?}");
        assert_eq!(ended.stderr.is_empty(), line.is_empty(), "{ended:?}");
    }
}

#[test]
fn several_vcpus_end_with_the_one_that_ends() {
    if kvm("several_vcpus_end") {
        let ended = run(Code::new().power_off(), &["-cpus", "8"]);

        assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    }
}

#[test]
fn a_device_that_the_guest_never_started_is_named_with_what_its_kernel_lacks() {
    if kvm("a_device_that_the_guest_never_started") {
        let kernel = Kernel::new(Code::new().power_off());

        let ended = finish(&mut hype(kernel.options(&["-console", "stdio"])));

        assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
        assert!(ended.stderr.contains("never started console"), "{ended:?}");
        assert!(ended.stderr.contains("CONFIG_VIRTIO_CONSOLE"), "{ended:?}");
    }
}

/// A guest that runs, and never ends by itself.
struct Running {
    child: Child,
    _kernel: Kernel,
}

impl Running {
    fn start(code: Code, options: &[&str]) -> Self {
        let kernel = Kernel::new(code);
        let mut command = hype(kernel.options(&["-console", "off", "-grace", "60"]));
        command.args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = Running {
            child: command.spawn().unwrap(),
            _kernel: kernel,
        };
        eventually("the vCPU has a thread", || running.state("vcpu0").is_some());
        running
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What the thread called `name` does, as a letter of /proc: R running, S sleeping, ...
    fn state(&self, name: &str) -> Option<char> {
        let name = format!("({name}) ");
        fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .ok()?
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok())
            .find_map(|stat| stat.split_once(&name)?.1.chars().next())
    }

    fn end(self) -> Ended {
        end(self.child)
    }
}

#[test]
fn a_guest_that_does_not_take_the_power_button_is_stopped_soon() {
    if !kvm("a_guest_that_does_not_take_the_power_button") {
        return;
    }
    for code in [Code::new().spin(), Code::new().halt()] {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let running = Running::start(code.clone(), &[]);
            let start = Instant::now();

            running.signal(signal);
            let ended = running.end();

            assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
            let line = "hype: the guest did not power off when asked, and was stopped\n";
            assert_eq!(ended.stderr, line);
            // A second, and what a busy machine adds; not the minute of grace.
            assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        }
    }
}

#[test]
fn a_second_signal_and_sigquit_stop_at_once() {
    if !kvm("a_second_signal_and_sigquit") {
        return;
    }
    // Two of the same could become one on the way.
    for signals in [[Signal::TERM, Signal::INT].as_slice(), &[Signal::QUIT]] {
        let running = Running::start(Code::new().halt(), &[]);

        signals.iter().for_each(|signal| running.signal(*signal));
        let ended = running.end();

        assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
        assert_eq!(ended.stderr, "hype: the guest was stopped by a signal\n");
    }
}

#[test]
fn a_guest_without_a_power_button_is_stopped_at_once() {
    if !kvm("a_guest_without_a_power_button") {
        return;
    }
    let running = Running::start(Code::new().halt(), &["-cmdline", "acpi=off"]);

    running.signal(Signal::TERM);
    let ended = running.end();

    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert!(ended.stderr.contains("no power button"), "{ended:?}");
    assert!(ended.stderr.ends_with("stopped by a signal\n"), "{ended:?}");
}

#[test]
fn sigusr1_pauses_and_sigusr2_resumes() {
    if !kvm("sigusr1_pauses") {
        return;
    }
    let running = Running::start(Code::new().spin(), &[]);
    eventually("the vCPU spins", || running.state("vcpu0") == Some('R'));

    running.signal(Signal::USR1);
    eventually("the vCPU sleeps", || running.state("vcpu0") == Some('S'));
    running.signal(Signal::USR2);
    eventually("the vCPU spins again", || {
        running.state("vcpu0") == Some('R')
    });

    running.signal(Signal::QUIT);
    assert_eq!(running.end().code(), Some(FAILURE));
}

#[test]
fn a_paused_guest_can_be_stopped() {
    if !kvm("a_paused_guest") {
        return;
    }
    let running = Running::start(Code::new().spin(), &[]);
    running.signal(Signal::USR1);
    eventually("the vCPU sleeps", || running.state("vcpu0") == Some('S'));

    running.signal(Signal::TERM);

    assert_eq!(running.end().code(), Some(FAILURE));
}

#[test]
fn signals_without_a_meaning_change_nothing() {
    if !kvm("signals_without_a_meaning") {
        return;
    }
    let running = Running::start(Code::new().spin(), &[]);

    for signal in [Signal::PIPE, Signal::CHILD, Signal::WINCH, Signal::CONT] {
        running.signal(signal);
    }
    running.signal(Signal::QUIT);

    assert_eq!(running.end().code(), Some(FAILURE));
}
