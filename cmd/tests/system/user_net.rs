//! User networking as an ordinary user has it: pages both ways, and nothing left behind.
//!
//! The world ends at the host, which is name server and web server to the guest. The guest has busybox
//! of the host, for Alpine's has no web server.

use super::stage::{ADDRESS, ADDRESS6, GATEWAY, GATEWAY6, Stage, on_stage};
use super::terminal::Terminal;
use super::{POWER_OFF, QUIET, guest};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What is published.
const PORT: u16 = 8080;
/// Where the host has a page.
const PAGES: u16 = 8000;
/// How long a page may take, or be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Brings the network up, as a distribution's scripts would.
const UP: &str = r#"#!/bin/sh
set -e
ip link set eth0 up
/tools/busybox udhcpc -q -n -t 10 -i eth0 -s /tools/lease
until ip -6 addr show dev eth0 | grep 'inet6 2001:db8:.*global' | grep -vq tentative; do usleep 50000; done
/tools/busybox httpd -p 80 -h /www
echo serving
"#;

/// What udhcpc calls with what it was told.
const LEASE: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router" dev "$interface"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
echo "leased $ip, names by $dns"
"#;

/// 200 KiB, of which a piece that is missing or in another place is noticed.
fn page() -> Vec<u8> {
    let mut state = 1_u32;
    let bytes = (0..200 << 10).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes.collect()
}

/// Where a program of the host is.
fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut folders = std::env::split_paths(&path);
    folders
        .find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
        .unwrap_or_else(|| panic!("this host has no {program}"))
}

/// An initrd with the page, and with what brings the network up, behind it.
fn with_tools(initrd: &Path) -> Vec<u8> {
    let mut archive = fs::read(initrd).unwrap();
    // Linux passes over zeroes between archives, and wants them on a boundary.
    archive.resize(archive.len().next_multiple_of(4), 0);
    let busybox = fs::read(find("busybox")).unwrap();
    let page = page();
    let files: [(&str, u32, &[u8]); 6] = [
        ("tools", 0o040_755, &[]),
        ("tools/busybox", 0o100_755, &busybox),
        ("tools/up", 0o100_755, UP.as_bytes()),
        ("tools/lease", 0o100_755, LEASE.as_bytes()),
        ("www", 0o040_755, &[]),
        ("www/page", 0o100_644, &page),
    ];
    for (name, mode, contents) in files {
        let entry = cpio::NewcBuilder::new(name).nlink(1).mode(mode);
        let mut writer = entry.write(&mut archive, contents.len() as u32);
        writer.write_all(contents).unwrap();
        writer.finish().unwrap();
    }
    cpio::newc::trailer(&mut archive).unwrap();
    archive
}

/// A guest on the user's terminal, at its prompt.
fn boot(test: &str, stage: &Stage, options: &[&str]) -> Option<Terminal> {
    boot_with_path(test, stage, &std::env::var("PATH").unwrap(), options)
}

/// The same, where programs are looked for in other folders.
fn boot_with_path(test: &str, stage: &Stage, path: &str, options: &[&str]) -> Option<Terminal> {
    let guest = guest(test)?;
    let hype = stage.copy(Path::new(env!("CARGO_BIN_EXE_hype")));
    let kernel = stage.copy(&guest.kernel);
    let initrd = stage.path("initrd");
    fs::write(&initrd, with_tools(&guest.initrd)).unwrap();
    let path = format!("PATH={path}");
    let mut words = vec!["env", &path, &hype, "-kernel", &kernel];
    words.extend(["-initrd", initrd.to_str().unwrap(), "-cmdline", QUIET]);
    words.extend(options);
    let mut terminal = stage.as_user(&words);
    terminal.expect("# ");
    Some(terminal)
}

/// The same with user networking and a port.
fn boot_published(test: &str, stage: &Stage) -> Option<Terminal> {
    let publish = format!("{PORT}:80");
    boot(test, stage, &["-net", "user", "-publish", &publish])
}

/// Asks for a page as a browser does, and gives what comes behind the header.
fn get(server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    Ok(end.map(|end| answer.split_off(end + 4)).unwrap_or_default())
}

/// Serves the page to whoever asks.
fn serve_pages() {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PAGES)).unwrap();
    thread::spawn(move || -> io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            while !lines.next().transpose()?.unwrap_or_default().is_empty() {}
            let page = page();
            write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
                page.len()
            )?;
            stream.write_all(&page)?;
        }
    });
}

/// Knows two names: `four.example` has an IPv4 address, `six.example` an IPv6 one, and both are the
/// host's, as the guest sees it.
fn serve_names() {
    let socket = UdpSocket::bind(("127.0.0.1", 53)).unwrap();
    thread::spawn(move || -> io::Result<()> {
        let mut query = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut query)?;
            if let Some(answer) = query.get(..len).and_then(answer) {
                socket.send_to(&answer, from)?;
            }
        }
    });
}

/// The answer to a question about a name (RFC 1035, section 4.1).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name_len = query.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(HEADER..HEADER + name_len + 4)?;
    let (name, kind) = question.split_at(name_len);
    let address = match (name, kind) {
        (b"\x04four\x07example\0", [0, 1, ..]) => GATEWAY.octets().to_vec(),
        (b"\x03six\x07example\0", [0, 28, ..]) => GATEWAY6.octets().to_vec(),
        _ => Vec::new(),
    };
    let count = u8::from(!address.is_empty());
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    if count > 0 {
        // The name of the question, its kind, a minute.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(kind);
        answer.extend([0, 0, 0, 60, 0, address.len() as u8]);
        answer.extend(address);
    }
    Some(answer)
}

/// Ends the guest as its user would.
fn power_off(terminal: &mut Terminal) {
    terminal.type_line("poweroff");
    assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());
}

/// The network is up, and the page is served.
fn bring_up(terminal: &mut Terminal) {
    terminal.type_line("/tools/up");
    terminal.expect(&format!("leased {ADDRESS}, names by {GATEWAY}"));
    terminal.expect("serving");
}

#[test]
fn an_ordinary_user_has_addresses_names_and_pages_both_ways() {
    let test = "an_ordinary_user_has_addresses_names_and_pages_both_ways";
    on_stage(test, |stage| {
        serve_names();
        serve_pages();
        let Some(mut terminal) = boot_published(test, stage) else {
            return;
        };

        let status = format!("/proc/{}/status", process(stage, "-kernel"));
        let status = fs::read_to_string(status).unwrap();
        assert!(status.contains("\nCapPrm:\t0000000000000000\n"), "{status}");
        bring_up(&mut terminal);
        for host in [
            "127.0.0.1",
            "[::1]",
            &ADDRESS.to_string(),
            &format!("[{ADDRESS6}]"),
        ] {
            let got = get(format!("{host}:{PORT}").parse().unwrap()).unwrap();
            assert!(got == page(), "{host}: {} bytes", got.len());
        }
        for name in ["four", "six"] {
            let fetch = format!("wget -q -O /tmp/{name} http://{name}.example:{PAGES}/page");
            let compare = format!("cmp /tmp/{name} /www/page && echo {name} is $((6*7))");
            terminal.type_line(&format!("{fetch} && {compare}"));
            terminal.expect(&format!("{name} is 42"));
        }
        power_off(&mut terminal);

        stage.expect_nothing_left(PORT);
    });
}

#[test]
fn nothing_is_left_of_user_networking_after_sigterm() {
    let test = "nothing_is_left_of_user_networking_after_sigterm";
    on_stage(test, |stage| {
        let Some(mut terminal) = boot_published(test, stage) else {
            return;
        };

        terminal.signal("TERM");
        assert_eq!(terminal.wait(), POWER_OFF, "{}", terminal.text());

        stage.expect_nothing_left(PORT);
    });
}

#[test]
fn nothing_is_left_of_user_networking_after_a_kill_amid_a_connection() {
    let test = "nothing_is_left_of_user_networking_after_a_kill_amid_a_connection";
    on_stage(test, |stage| {
        let Some(mut terminal) = boot_published(test, stage) else {
            return;
        };
        bring_up(&mut terminal);
        let mut stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        assert!(stage.processes().len() >= 2, "{:?}", stage.processes());

        terminal.signal("KILL");
        terminal.wait();

        stage.expect_nothing_left(PORT);
    });
}

/// What a process has used of processors, in hundredths of a second.
fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The process of the user whose command line has this in it.
fn process(stage: &Stage, word: &str) -> u32 {
    let processes = stage.processes();
    let found = processes.iter().find(|(_, command)| command.contains(word));
    found
        .unwrap_or_else(|| panic!("no {word} among {processes:?}"))
        .0
}

/// The guest sleeps for three seconds, and so does hype.
fn expect_quiet(stage: &Stage, terminal: &mut Terminal) {
    let hype = process(stage, "-kernel");
    let before = ticks(hype);
    terminal.type_line("sleep 3; echo slept $((6*7))");
    terminal.expect("slept 42");
    let used = ticks(hype) - before;
    assert!(used < 150, "{used} ticks in three seconds");
}

#[test]
fn a_passt_that_stops_is_waited_for_and_one_that_is_killed_costs_the_link_alone() {
    let test = "a_passt_that_stops_is_waited_for_and_one_that_is_killed_costs_the_link_alone";
    on_stage(test, |stage| {
        let Some(mut terminal) = boot_published(test, stage) else {
            return;
        };
        bring_up(&mut terminal);
        let passt = process(stage, "--quiet").to_string();
        let signal = |name: &str| {
            let sent = Command::new("kill").args(["-s", name, &passt]).status();
            assert!(sent.unwrap().success());
        };

        signal("STOP");
        // More than the socket takes.
        let send = format!("ping -q -c 8 -s 60000 {GATEWAY}; echo sent $((6*7))");
        terminal.type_line(&send);
        terminal.expect("sent 42");
        signal("CONT");
        let got = get(SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap();
        assert!(got == page(), "{} bytes", got.len());

        signal("KILL");
        terminal.expect("the link is down for good");
        terminal
            .type_line("until grep 0 /sys/class/net/eth0/carrier; do :; done; echo off $((6*7))");
        terminal.expect("off 42");
        expect_quiet(stage, &mut terminal);
        power_off(&mut terminal);
        stage.expect_nothing_left(PORT);
    });
}

/// Programs that say they are passt. Which one it is is told by the address.
const PRETENDERS: &str = r#"#!/bin/bash
[ "$1 $2 $4" = "--quiet --fd --address" ] || exit 9
case $5 in
*.11) what='\0\0\0\0' ;;
*.12) what='\377\377\377\377' ;;
*.13) what='HTTP/1.1 400 Bad Request\r\n\r\n' ;;
# Says nothing at all.
*.14) what= ;;
esac
{
	printf "$what" >&"$3"
	exec cat <&"$3" >/dev/null
} 2>/dev/null &
"#;

#[test]
fn a_passt_that_talks_nonsense_costs_the_link_alone() {
    let test = "a_passt_that_talks_nonsense_costs_the_link_alone";
    on_stage(test, |stage| {
        let folder = stage.path("bin");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("passt"), PRETENDERS).unwrap();
        let pretender = folder.join("passt");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(pretender, mode).unwrap();
        let cards = [11, 12, 13, 14].map(|host| format!("user,ip=192.0.2.{host}"));
        let options: Vec<_> = cards.iter().flat_map(|card| ["-net", card]).collect();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let Some(mut terminal) = boot_with_path(test, stage, &path, &options) else {
            return;
        };

        for card in 0..4 {
            terminal.type_line(&format!("ip link set eth{card} up"));
        }
        for card in 0..3 {
            let file = format!("/sys/class/net/eth{card}/carrier");
            terminal.type_line(&format!(
                "until grep 0 {file}; do :; done; echo off $((6*7))"
            ));
            terminal.expect("off 42");
        }
        terminal.type_line("echo carrier $(cat /sys/class/net/eth3/carrier)");
        terminal.expect("carrier 1");
        expect_quiet(stage, &mut terminal);
        power_off(&mut terminal);
        stage.expect_nothing_left(PORT);
    });
}
