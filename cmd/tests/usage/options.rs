//! Mistakes on the command line.

use crate::command::{FAILURE, HYPE, USAGE, finish, hype, refused};
use crate::guest::{Code, Kernel, kvm};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

#[test]
fn without_arguments_the_help_is_shown_as_a_mistake() {
    let ended = finish(&mut hype::<&str>([]));

    assert_eq!(ended.code(), Some(USAGE));
    assert!(ended.stderr.contains("--kernel"), "{ended:?}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn unknown_unfinished_and_repeated_options_are_bad_usage() {
    refused(
        &mut hype(["-nonsense"]),
        USAGE,
        &["-nonsense", "-kernel, -initrd"],
    );
    refused(&mut hype(["stray"]), USAGE, &["stray", "-kernel", "check"]);
    refused(
        &mut hype(["-kernel"]),
        USAGE,
        &["-kernel", "value is required"],
    );
    refused(
        &mut hype(["-mem", "1", "-mem=2"]),
        USAGE,
        &["-mem", "multiple times"],
    );
}

#[test]
fn values_of_no_sense_are_bad_usage_with_option_value_and_rule() {
    for size in [
        "18446744073709551615",
        "16E",
        "99999999T",
        "1e9",
        "-1",
        "0x",
        " 64M",
        "64MB",
        "1M-1",
        "",
    ] {
        let quoted = format!("{size:?}");
        refused(&mut hype(["-mem", size]), USAGE, &["-mem", &quoted]);
    }
    refused(
        &mut hype(["-cpus", "4294967296"]),
        USAGE,
        &["-cpus", "4294967296", "1 to 254"],
    );
    refused(
        &mut hype(["-cpus", "two"]),
        USAGE,
        &["-cpus", "two", "1 to 254"],
    );
    refused(
        &mut hype(["-grace", "-1"]),
        USAGE,
        &["-grace", "-1", "seconds"],
    );
    refused(
        &mut hype(["-console", "tty"]),
        USAGE,
        &["-console", "tty", "pty=LINK"],
    );
    refused(
        &mut hype(["-serial", "file="]),
        USAGE,
        &["-serial", "file=", "path"],
    );
}

#[test]
fn two_consoles_on_stdio_are_bad_usage() {
    let options = ["-console", "stdio", "-serial", "stdio"];

    refused(
        &mut hype(options),
        USAGE,
        &["-console and -serial", "stdio"],
    );
}

#[test]
fn numbers_out_of_range_are_refused_with_the_limit() {
    let kernel = Kernel::new(Code::new().power_off());
    for (option, value, words) in [
        ("-mem", "0", ["minimum is 1048576", "4096"]),
        ("-mem", "1K", ["minimum is 1048576", "4096"]),
        ("-mem", "4095K", ["4193280 bytes", "multiple of 4096"]),
        ("-cpus", "0", ["must be", "1 to 254"]),
        ("-cpus", "1025", ["must be", "1 to 254"]),
    ] {
        // A repeated option would be a mistake of another kind.
        let mut options = kernel.options(&[]);
        if option == "-mem" {
            options.truncate(2);
        }
        options.extend([option, value]);
        let named = format!("{option} {value}: ");

        refused(&mut hype(options), FAILURE, &[&named, words[0], words[1]]);
    }
}

#[test]
fn more_memory_than_a_guest_can_address_is_refused() {
    if !kvm("more_memory_than_a_guest_can_address") {
        return;
    }
    let kernel = Kernel::new(Code::new().power_off());
    let mut options = kernel.options(&[]);
    options.truncate(2);
    options.extend(["-mem", "16777215T"]);

    refused(
        &mut hype(options),
        FAILURE,
        &["-mem 16777215T", "address bits"],
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let options = [
        "-kernel", "/nowhere", "-initrd", "/", "-mem", "5K", "-cpus", "0",
    ];

    let ended = finish(hype(options).args(["-cmdline", "a\nb"]));

    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 5, "{ended:?}");
    for option in ["-kernel", "-initrd", "-mem", "-cpus", "-cmdline"] {
        let line = format!("hype: {option}");
        assert!(ended.stderr.contains(&line), "{option}: {ended:?}");
    }
}

#[test]
fn command_lines_that_a_kernel_would_cut_short_are_refused() {
    let kernel = Kernel::new(Code::new().power_off());
    let with = |cmdline: OsString| {
        let mut command = hype(kernel.options(&["-cmdline"]));
        command.arg(cmdline);
        command
    };

    refused(
        &mut with("a\nb".into()),
        FAILURE,
        &["-cmdline", "0x0a", "offset 1"],
    );
    let bytes = OsString::from_vec(b"ab\xff".to_vec());
    refused(
        &mut with(bytes),
        FAILURE,
        &["-cmdline", "offset 2", "ASCII"],
    );
    if kvm("command_lines_that_a_kernel_would_cut_short") {
        let long = "x".repeat(2048);
        refused(
            &mut with(long.into()),
            FAILURE,
            &["-cmdline", "too long", "2047"],
        );
    }
}

#[test]
fn help_version_completions_and_manual_are_printed() {
    for (args, word) in [
        (["-help"].as_slice(), "Ctrl-A x"),
        (&["--help"], "Exit status"),
        (&["check", "-help"], "--quiet"),
        (&["-version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "zsh"], "#compdef hype"),
        (&["man"], ".SH OPTIONS"),
    ] {
        let ended = finish(&mut hype(args));

        assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
        assert!(ended.stdout.contains(word), "{args:?}: {ended:?}");
        assert_eq!(ended.stderr, "", "{args:?}");
        assert!(
            !ended.stdout.contains('\x1b'),
            "{args:?} has colours in a pipe"
        );
    }
}

#[test]
fn a_reader_that_has_seen_enough_of_the_manual_is_no_error() {
    let mut command = crate::command::shell("{ \"$@\"; echo $? >&2; } | head -n 1", ["man"]);

    let ended = finish(&mut command);

    assert_eq!(ended.stderr, "0\n", "{HYPE} man | head: {ended:?}");
}
