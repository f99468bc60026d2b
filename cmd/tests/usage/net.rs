//! Network cards that can't be had, and what is left of those that could.

use crate::command::{FAILURE, HYPE, POWER_OFF, USAGE, finish, hype, refused};
use crate::guest::{Code, Kernel, kvm, skipped};
use crate::host::is_root;
use std::process::Command;

fn kernel() -> Kernel {
    Kernel::new(Code::new().power_off())
}

#[test]
fn what_makes_no_sense_is_bad_usage_with_the_forms_that_are_known() {
    for (net, word) in [
        ("", "it is tap=NAME, bridge=NAME, user, fd=N or none"),
        ("eth0", "it is tap=NAME"),
        ("user,mac=01:00:5e:00:00:01", "multicast"),
        ("user,mac=02:00:00:00:00", "six pairs"),
        ("tap=t,queues=99", "from 1 to 16"),
        ("tap=t,speed=1000", "known keys are tap"),
    ] {
        refused(&mut hype(["-net", net]), USAGE, &["-net", word]);
        refused(&mut hype(["-networking", net]), USAGE, &["-net", word]);
    }
    for ports in ["80", "0:80", "80:80/sctp", "host:80:80"] {
        refused(&mut hype(["-publish", ports]), USAGE, &["-publish"]);
    }
}

#[test]
fn ports_are_published_by_user_networking_alone() {
    for net in [&[][..], &["-net", "none"], &["-net", "tap=t"]] {
        let options = [net, &["-publish", "8080:80"]].concat();
        refused(&mut hype(options), USAGE, &["-publish", "-net user"]);
    }
}

#[test]
fn what_is_no_card_is_told_with_what_to_do() {
    let kernel = kernel();
    for (net, words) in [
        ("tap=a-name-that-is-too-long", ["1 to 15 characters", ""]),
        ("tap=lo", ["opening tap lo", "hint: "]),
        (
            "bridge=no-such",
            ["looking for bridge", "hint: bridges are made by"],
        ),
        ("fd=987", ["taking descriptor 987", "hint: fd=N"]),
        ("fd=0", ["the descriptor is no tap", ""]),
    ] {
        let ended = finish(&mut hype(kernel.options(&["-net", net])));
        assert_eq!(ended.code(), Some(FAILURE), "{net}: {ended:?}");
        for word in words.into_iter().chain(["-net "]) {
            assert!(ended.stderr.contains(word), "{net}: {ended:?}");
        }
    }
}

#[test]
fn a_missing_passt_is_told_with_what_to_do() {
    let kernel = kernel();
    let mut command = hype(kernel.options(&["-net", "user"]));
    let ended = finish(command.env("PATH", "/nonexistent"));
    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("hint: user networking is done by passt"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("apt install passt"), "{ended:?}");
}

#[test]
fn a_tap_for_others_is_told_with_what_to_do() {
    if !is_root() {
        return skipped("a_tap_for_others", "needs root, to be somebody else");
    }
    let kernel = kernel();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", HYPE]);
    command.args(kernel.options(&["-net", "tap=hypeusage0"]));
    let ended = finish(&mut command);
    if ended.stderr.contains("/dev/net/tun") {
        return skipped("a_tap_for_others", "there is no /dev/net/tun");
    }
    assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
    assert!(ended.stderr.contains("user $USER"), "{ended:?}");
}

/// Whether a passt runs whose command line has this in it.
fn runs(port: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .map(|process| std::fs::read(process.path().join("cmdline")).unwrap_or_default())
        .any(|line| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("passt\0--quiet") && line.contains(port)
        })
}

#[test]
fn nothing_is_left_of_user_networking() {
    if !kvm("nothing_is_left_of_user_networking") {
        return;
    }
    let kernel = kernel();
    let options = ["-net", "user", "-publish", "127.0.0.1:18099:80"];
    let ended = finish(&mut hype(kernel.options(&options)));
    if ended
        .stderr
        .contains("hint: user networking is done by passt")
    {
        return skipped(
            "nothing_is_left_of_user_networking",
            "passt is not installed",
        );
    }
    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    let deadline = std::time::Instant::now() + crate::command::PATIENCE;
    while runs("18099") {
        assert!(std::time::Instant::now() < deadline, "passt is still there");
        std::thread::yield_now();
    }
}
