//! Network cards that can't be had, and what is left of those that could.

use crate::command::{FAILURE, HYPE, POWER_OFF, USAGE, finish, hype, refused};
use crate::guest::{Code, Kernel, kvm, skipped};
use crate::host::is_root;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

fn kernel() -> Kernel {
    Kernel::new(Code::new().power_off())
}

#[test]
fn what_makes_no_sense_is_bad_usage_with_what_is_known_instead() {
    for (net, word) in [
        ("", "it is tap=NAME, bridge=NAME, user, fd=N or none"),
        ("eth0", "it is tap=NAME"),
        ("tap", "it is tap=NAME"),
        ("user=passt", "user has no value"),
        ("none=", "none has no value"),
        ("none,mac=random", "none has no keys"),
        ("tap=t,bridge=b", "not two of them"),
        ("user,fd=3", "not two of them"),
        ("mtu=1500", "where frames go is missing"),
        ("fd=", "number of a descriptor"),
        ("fd=-1", "number of a descriptor"),
        ("fd=2147483648", "number of a descriptor"),
        ("fd=0x3", "number of a descriptor"),
        ("user,ip=", "no address"),
        ("user,ip=10.0.2", "no address"),
        ("user,ip=10.0.2.15/24", "no address"),
        ("user,ip=localhost", "no address"),
        ("tap=t,ip=10.0.2.15", "ip= is for user networking"),
        ("user,mac=", "six pairs"),
        ("user,mac=02:00:00:00:00", "six pairs"),
        ("user,mac=02:00:00:00:00:0g", "six pairs"),
        ("user,mac=Random", "or random"),
        ("user,mac=01:00:5e:00:00:01", "multicast"),
        ("user,mac=00:00:00:00:00:00", "zeroes"),
        ("user,mtu=", "from 68 to 65535"),
        ("user,mtu=67", "from 68 to 65535"),
        ("user,mtu=65536", "from 68 to 65535"),
        ("user,mtu=1500.5", "from 68 to 65535"),
        ("tap=t,queues=0", "from 1 to 16"),
        ("tap=t,queues=17", "from 1 to 16"),
        ("tap=t,queues=-1", "from 1 to 16"),
        ("user,queues=2", "queues= is for tap= and bridge="),
        ("tap=t,ring=round", "split or packed"),
        ("tap=t,transport=usb", "mmio or pci"),
        ("tap=t,mtu=1500,mtu=1500", "mtu is given twice"),
        ("tap=t,speed=1000", "known keys are tap"),
    ] {
        refused(&mut hype(["-net", net]), USAGE, &["-net", word]);
    }
    refused(
        &mut hype(["-networking", "tap"]),
        USAGE,
        &["it is tap=NAME"],
    );
}

#[test]
fn what_is_no_port_is_bad_usage_with_the_form_that_is() {
    for (ports, word) in [
        ("", "HOST:GUEST"),
        ("80", "HOST:GUEST"),
        ("host:80:80", "HOST:GUEST"),
        ("[::1:80:80", "HOST:GUEST"),
        ("1.2.3:80:80", "HOST:GUEST"),
        ("0:80", "1 to 65535"),
        ("80:0", "1 to 65535"),
        ("65536:80", "1 to 65535"),
        ("80:65536", "1 to 65535"),
        ("-1:80", "1 to 65535"),
        ("8000-8010:80", "1 to 65535"),
        ("80:80-90", "1 to 65535"),
        ("80:http", "1 to 65535"),
        (":80", "1 to 65535"),
        ("80:80/", "neither tcp nor udp"),
        ("80:80/TCP", "neither tcp nor udp"),
        ("80:80/sctp", "neither tcp nor udp"),
    ] {
        let mut hype = hype(["-net", "user", "-publish", ports]);
        refused(&mut hype, USAGE, &["-publish", word]);
    }
}

#[test]
fn ports_are_published_by_one_card_with_user_networking_alone() {
    for net in [
        &[][..],
        &["-net", "none"],
        &["-net", "tap=t"],
        &["-net", "user", "-net", "user"],
    ] {
        let options = [net, &["-publish", "8080:80"]].concat();
        refused(&mut hype(options), USAGE, &["-publish", "-net user"]);
    }
}

#[test]
fn a_port_that_is_taken_is_told_in_either_family_and_protocol() {
    let kernel = kernel();
    for address in ["127.0.0.1", "[::1]"] {
        let Ok(listener) = TcpListener::bind(format!("{address}:0")) else {
            skipped("a_port_that_is_taken", "there is no IPv6 here");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let _socket = UdpSocket::bind(format!("{address}:{port}")).unwrap();
        for (publish, port) in [
            (format!("{port}:80"), format!("TCP port {port} of ")),
            (format!("{port}:80/udp"), format!("UDP port {port} of ")),
            (
                format!("{address}:{port}:80"),
                format!("TCP port {port} of "),
            ),
        ] {
            let options = kernel.options(&["-net", "user", "-publish", &publish]);
            refused(&mut hype(options), FAILURE, &["-net \"user\": ", &port]);
        }
    }
}

#[test]
fn what_passt_does_not_take_is_told_in_its_words() {
    let kernel = kernel();
    for address in ["127.0.0.1", "224.0.0.1", "0.0.0.0", "::1"] {
        let net = format!("user,ip={address}");
        let ended = finish(&mut hype(kernel.options(&["-net", &net])));
        if ended.stderr.contains("apt install passt") {
            return skipped("what_passt_does_not_take", "passt is not installed");
        }
        assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(
            ended
                .stderr
                .contains(&format!("-net {net:?}: passt gave up")),
            "{ended:?}"
        );
        assert!(
            ended.stderr.contains(&format!("nvalid address: {address}")),
            "{ended:?}"
        );
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
        (
            "user,mtu=65535",
            ["an MTU of 65535 is not possible", "65520"],
        ),
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
