//! What the consoles are connected to: nothing, files, pipes that end or are stuck, terminals.

use crate::command::{Ended, FAILURE, POWER_OFF, end, eventually, finish, hype, refused, shell};
use crate::guest::{Code, Kernel, kvm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SERIAL: [&str; 2] = ["-serial", "stdio"];

/// A guest that says when it runs, and then does nothing.
fn idle() -> Code {
    Code::new().print("ready\n").halt()
}

/// A guest that says when it runs, sends back what it is sent, and goes with a `q`.
fn echo() -> Code {
    Code::new().print("ready\n").echo().power_off()
}

/// Starts it, and waits until its guest runs.
fn start(kernel: &Kernel, stdin: Stdio) -> Child {
    let mut command = hype(kernel.options(&SERIAL));
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    assert_eq!(&ready, b"ready\n");
    child
}

fn stop(child: Child) -> Ended {
    kill_process(Pid::from_child(&child), Signal::QUIT).unwrap();
    end(child)
}

#[test]
fn a_file_on_standard_input_is_read_to_its_end() {
    if !kvm("a_file_on_standard_input") {
        return;
    }
    let kernel = Kernel::new(echo());
    let text = "some text, and more of it than a receive FIFO holds; q";
    let file = kernel.folder().join("input");
    fs::write(&file, text).unwrap();

    let ended = finish(hype(kernel.options(&SERIAL)).stdin(File::open(&file).unwrap()));

    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    assert_eq!(ended.stdout, format!("ready\n{text}"));
}

#[test]
fn the_end_of_standard_input_costs_no_time() {
    if !kvm("the_end_of_standard_input") {
        return;
    }
    let kernel = Kernel::new(idle());
    let child = start(&kernel, Stdio::null());
    let before = cpu_ticks(&child);
    let window = Instant::now();

    // What is measured here is a stretch of time.
    std::thread::sleep(Duration::from_millis(500));

    let ticks = cpu_ticks(&child) - before;
    let share = ticks as f64 * 10.0 / window.elapsed().as_millis() as f64;
    assert!(
        share < 0.2,
        "{ticks} ticks of 10 ms in {:?}",
        window.elapsed()
    );
    stop(child);
}

/// The processor time of the process so far, in units of 10 ms.
fn cpu_ticks(child: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    // Fields 14 and 15; the second, a name in parentheses, is the only one that may hold blanks.
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn closed_standard_streams_are_no_trouble_and_no_other_file_takes_their_place() {
    if !kvm("closed_standard_streams") {
        return;
    }
    let kernel = Kernel::new(Code::new().print("hello\n").power_off());
    let log = kernel.folder().join("log");
    let serial = format!("file={}", log.display());
    let options = kernel.options(&["-serial", &serial, "-console", "stdio"]);
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"] {
        let _ = fs::remove_file(&log);

        let ended = finish(&mut shell(&format!("exec \"$@\" {closed}"), &options));

        assert_eq!(ended.code(), Some(POWER_OFF), "{closed}: {ended:?}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "hello\n", "{closed}");
    }
}

#[test]
fn output_that_goes_nowhere_is_the_hosts_loss_and_not_the_guests() {
    if !kvm("output_that_goes_nowhere") {
        return;
    }
    let line = "so many bytes on a line\n";
    let kernel = Kernel::new(
        Code::new()
            .repeat(1000, Code::new().print(line))
            .power_off(),
    );
    for broken in ["exec \"$@\" >/dev/full", "exec \"$@\" >&-"] {
        let ended = finish(&mut shell(broken, kernel.options(&SERIAL)));
        assert_eq!(ended.code(), Some(POWER_OFF), "{broken}: {ended:?}");
    }

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = hype(kernel.options(&SERIAL));
    let child = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = end(child);
    assert_eq!(ended.code(), Some(POWER_OFF), "a closed pipe: {ended:?}");
}

#[test]
fn output_that_nobody_reads_does_not_stop_the_guest() {
    if !kvm("output_that_nobody_reads") {
        return;
    }
    // More than a pipe and all buffers hold.
    let kernel = Kernel::new(
        Code::new()
            .repeat(50_000, Code::new().print("12345678"))
            .power_off(),
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = hype(kernel.options(&SERIAL));

    let child = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = end(child);

    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    drop(reader);
}

#[test]
fn input_that_the_guest_does_not_read_is_held_back_and_not_kept() {
    if !kvm("input_that_the_guest_does_not_read") {
        return;
    }
    const OFFERED: usize = 1 << 30;
    let kernel = Kernel::new(idle());
    let log = kernel.folder().join("log");
    let to_log = format!("file={}", log.display());
    for console in [
        SERIAL.to_vec(),
        vec!["-console", "stdio", "-serial", &to_log],
    ] {
        let mut command = hype(kernel.options(&console));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if console == SERIAL {
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut [0; 6])
                .unwrap();
        } else {
            eventually("the guest runs", || {
                fs::read(&log).is_ok_and(|text| text == b"ready\n")
            });
        }
        let before = resident_kib(&child);

        let taken = offer(child.stdin.as_ref().unwrap(), OFFERED);

        let grown = resident_kib(&child).saturating_sub(before);
        assert!(taken < 1 << 20, "{console:?}: {taken} bytes were taken");
        assert!(grown < 1024, "{console:?}: grown by {grown} KiB");
        stop(child);
    }
}

/// Writes until nothing more is taken, and tells how much was.
fn offer(pipe: &std::process::ChildStdin, bytes: usize) -> usize {
    rustix::io::ioctl_fionbio(pipe, true).unwrap();
    let chunk = [b'x'; 1 << 16];
    let mut taken = 0;
    while taken < bytes {
        match rustix::io::write(pipe, &chunk).map_err(std::io::Error::from) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let limit = Timespec {
                    tv_sec: 0,
                    tv_nsec: 300_000_000,
                };
                let mut fds = [PollFd::new(pipe, PollFlags::OUT)];
                if poll(&mut fds, Some(&limit)).unwrap() == 0 {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

fn resident_kib(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_file_gets_the_output_behind_what_it_held() {
    if !kvm("a_file_gets_the_output") {
        return;
    }
    let kernel = Kernel::new(Code::new().print("hello\n").power_off());
    let log = kernel.folder().join("log");
    let serial = format!("file={}", log.display());

    for expected in ["hello\n", "hello\nhello\n"] {
        let ended = finish(&mut hype(kernel.options(&["-serial", &serial])));
        assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
        assert_eq!(fs::read_to_string(&log).unwrap(), expected);
    }
}

#[test]
fn a_file_that_can_not_be_written_is_refused_at_once() {
    let kernel = Kernel::new(Code::new().power_off());
    let path = |name: &str| kernel.folder().join(name).to_str().unwrap().to_owned();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    for (file, word) in [
        (path("missing/log"), "No such file"),
        (path(""), "Is a directory"),
        (path("fifo"), "No such device"),
    ] {
        let value = format!("file={file}");
        let mut command = hype(kernel.options(&["-console", &value]));
        refused(&mut command, FAILURE, &["-console file=", &file, word]);
    }
}

#[test]
fn a_start_that_fails_leaves_no_file_and_no_link() {
    let kernel = Kernel::new(Code::new().power_off());
    let (log, link) = (kernel.folder().join("log"), kernel.folder().join("link"));
    let console = format!("-console=file={}", log.display());
    let serial = format!("-serial=pty={}", link.display());
    let mut command = hype(kernel.options(&[&console, &serial, "-cpus", "0"]));

    refused(&mut command, FAILURE, &["-cpus 0"]);

    assert!(!log.exists() && !link.is_symlink());
}

/// A machine whose serial port is a pseudo-terminal, found at `link`.
fn start_with_link(kernel: &Kernel, link: &Path) -> Child {
    let serial = format!("-serial=pty={}", link.display());
    let mut command = hype(kernel.options(&[&serial, "-console", "off"]));
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_pty_is_found_by_its_link_and_works_until_the_end() {
    if !kvm("a_pty_is_found_by_its_link") {
        return;
    }
    let kernel = Kernel::new(Code::new().echo().power_off());
    let link = kernel.folder().join("link");
    // What an earlier run has left that was killed.
    symlink("/dev/pts/999999", &link).unwrap();
    let child = start_with_link(&kernel, &link);
    eventually("the link leads to a terminal", || link.exists());

    let mut terminal =
        File::from(open(&link, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    terminal.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    terminal.read_exact(&mut answer).unwrap();

    assert_eq!(&answer, b"hello");
    terminal.write_all(b"q").unwrap();
    let ended = end(child);
    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains(&format!("{} is /dev/pts/", link.display())),
        "{ended:?}"
    );
    assert!(!link.is_symlink(), "the link is left");
}

#[test]
fn the_link_of_a_pty_goes_with_a_signal_too() {
    if !kvm("the_link_of_a_pty_goes") {
        return;
    }
    let kernel = Kernel::new(Code::new().halt());
    let link = kernel.folder().join("link");
    for signal in [Signal::TERM, Signal::QUIT] {
        let child = start_with_link(&kernel, &link);
        eventually("there is a link", || link.is_symlink());

        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = end(child);

        assert_eq!(ended.code(), Some(FAILURE), "{ended:?}");
        assert!(!link.is_symlink(), "the link is left after {signal:?}");
    }
}

#[test]
fn what_is_no_link_of_ours_stays_as_it_is() {
    if !kvm("what_is_no_link_of_ours") {
        return;
    }
    let kernel = Kernel::new(Code::new().power_off());
    let link = kernel.folder().join("link");
    let serial = format!("-serial=pty={}", link.display());
    let mut command = hype(kernel.options(&[&serial]));

    fs::write(&link, "precious").unwrap();
    refused(
        &mut command,
        FAILURE,
        &["-serial pty=", "link", "File exists"],
    );
    assert_eq!(fs::read_to_string(&link).unwrap(), "precious");

    fs::remove_file(&link).unwrap();
    symlink("elsewhere", &link).unwrap();
    refused(
        &mut command,
        FAILURE,
        &["-serial pty=", "link", "File exists"],
    );
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("elsewhere"));

    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    unlockpt(&master).unwrap();
    let living = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&living, &link).unwrap();
    refused(&mut command, FAILURE, &["-serial pty=", "in use", &living]);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&living));
}
