//! On a terminal: keys, signals, and that the terminal is afterwards what it was before.

use crate::command::{FAILURE, HYPE, POWER_OFF, eventually};
use crate::guest::{Code, Kernel, kvm};
use crate::terminal::Terminal;

fn start(kernel: &Kernel) -> Terminal {
    let options = kernel.options(&["-serial", "stdio"]);
    let mut terminal = Terminal::spawn(HYPE, &options);
    terminal.expect("ready");
    terminal
}

/// Says that it runs, then sends back what is typed, up to a `q`.
fn echo() -> Kernel {
    Kernel::new(Code::new().print("ready\n").echo().power_off())
}

#[track_caller]
fn assert_ended(mut terminal: Terminal, status: i32) {
    assert_eq!(
        i64::from(terminal.wait()),
        i64::from(status),
        "{}",
        terminal.text()
    );
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

#[test]
fn what_is_typed_reaches_the_guest_raw_and_control_a_twice_is_one() {
    if !kvm("what_is_typed_reaches_the_guest") {
        return;
    }
    let kernel = echo();
    let mut terminal = start(&kernel);
    assert!(!terminal.is_as_it_was(), "the terminal is not raw");

    terminal.type_bytes(b"a\x03b\x01\x01c\x1a.");
    // Nobody but the guest echoes.
    terminal.expect("a\x03b\x01c\x1a.");
    terminal.type_bytes(b"q");

    assert_ended(terminal, POWER_OFF);
}

#[test]
fn control_a_x_quits_a_guest_that_does_not_listen_and_control_a_h_helps() {
    if !kvm("control_a_x_quits_a_guest") {
        return;
    }
    let kernel = Kernel::new(Code::new().print("ready\n").spin());
    let mut terminal = start(&kernel);

    // More than the guest's side takes must not hide the keys behind it.
    terminal.type_bytes(&[b'x'; 200_000]);
    terminal.type_bytes(b"\x01h");
    terminal.expect("Ctrl-A x");
    terminal.type_bytes(b"\x01x");

    assert_ended(terminal, POWER_OFF);
}

#[test]
fn the_terminal_is_restored_after_each_signal() {
    if !kvm("the_terminal_is_restored_after_each_signal") {
        return;
    }
    let kernel = Kernel::new(Code::new().print("ready\n").halt());
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let terminal = start(&kernel);

        terminal.signal(signal);

        assert_ended(terminal, FAILURE);
    }
}

#[test]
fn the_terminal_is_restored_after_each_ending() {
    if !kvm("the_terminal_is_restored_after_each_ending") {
        return;
    }
    let begin = || Code::new().print("ready\n");
    for (code, status) in [
        (begin().power_off(), crate::command::POWER_OFF),
        (begin().reset(), crate::command::REBOOT),
        (begin().triple_fault(), crate::command::CRASHED),
        (begin().panic(), crate::command::PANICKED),
    ] {
        let kernel = Kernel::new(code);
        let options = kernel.options(&["-serial", "stdio", "-cmdline", ""]);

        assert_ended(Terminal::spawn(HYPE, &options), status);
    }
}

#[test]
fn an_error_leaves_the_terminal_alone() {
    let options = ["-kernel", "/nowhere"];

    assert_ended(Terminal::spawn(HYPE, &options), FAILURE);
}

#[test]
fn a_suspended_process_gives_the_terminal_back_and_takes_it_again() {
    if !kvm("a_suspended_process") {
        return;
    }
    let kernel = echo();
    let mut terminal = start(&kernel);

    terminal.signal("TSTP");
    eventually("it is stopped", || terminal.state() == Some('T'));
    assert!(
        terminal.is_as_it_was(),
        "the terminal is raw while it is stopped"
    );
    terminal.signal("CONT");
    eventually("the terminal is raw again", || !terminal.is_as_it_was());
    terminal.type_bytes(b"still here, q");
    terminal.expect("still here, q");

    assert_ended(terminal, POWER_OFF);
}

#[test]
fn a_storm_of_window_changes_passes() {
    if !kvm("a_storm_of_window_changes") {
        return;
    }
    let kernel = echo();
    let mut terminal = start(&kernel);

    for size in 1..500 {
        terminal.resize(size, 2 * size);
    }
    terminal.resize(0, 0);
    terminal.type_bytes(b"calm again, q");
    terminal.expect("calm again, q");

    assert_ended(terminal, POWER_OFF);
}

#[test]
fn help_has_colours_on_a_terminal_unless_they_are_not_wanted() {
    for (setting, coloured) in [("CLICOLOR=1", true), ("NO_COLOR=1", false)] {
        let mut terminal = Terminal::spawn(
            "env",
            &["--unset=NO_COLOR", setting, "TERM=xterm", HYPE, "-help"],
        );

        terminal.expect("Exit status");

        assert_eq!(terminal.text().contains('\x1b'), coloured, "{setting}");
        assert_ended(terminal, POWER_OFF);
    }
}
