//! Streams against pipes, sockets, terminals and objects that are slow, stuck, full or gone.

use super::descriptor::{Access, Descriptor, Manner};
use super::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), writer.into())
}

fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .unwrap()
        > 0
}

/// A pair of pseudo-terminal ends: master, then slave in raw mode.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    let mut mode = rustix::termios::tcgetattr(&slave).unwrap();
    mode.make_raw();
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &mode).unwrap();
    (master, slave)
}

/// Passes each write on; blocks in `write` while nobody receives.
struct Channel(mpsc::SyncSender<Vec<u8>>);

impl Write for Channel {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.send(data.to_vec()).map_err(gone)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_pushed_byte_by_byte_is_one_write() {
    let (sender, writes) = mpsc::sync_channel(8);
    let output = Output::writer(Channel(sender));
    for byte in b"login: root\n" {
        assert_eq!(output.push(&[*byte]), 1);
    }
    assert_eq!(writes.recv_timeout(LONG).unwrap(), b"login: root\n");
}

#[test]
fn an_unfinished_line_is_written_after_a_pause() {
    let (sender, writes) = mpsc::sync_channel(8);
    let output = Output::writer(Channel(sender));
    for byte in b"# " {
        output.push(&[*byte]);
    }
    assert_eq!(writes.recv_timeout(LONG).unwrap(), b"# ");
}

#[test]
fn a_line_without_end_is_written_in_chunks() {
    let (sender, writes) = mpsc::sync_channel(0);
    let output = Output::writer(Channel(sender));
    output.push(&[b'x'; 10_000]);
    assert!(writes.recv_timeout(LONG).unwrap().len() >= 4096);
}

#[test]
fn finish_hands_over_everything_and_ends_the_output() {
    let (output, captured) = Output::capture();
    output.push(b"last words");
    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"last words");
    assert_eq!(output.push(b"more"), 0);
    assert_eq!(output.dropped(), 4);
}

#[test]
fn the_last_handle_to_go_finishes_the_output() {
    let (output, captured) = Output::capture();
    output.push(b"last words");
    drop(output.clone());
    assert_eq!(output.push(b"!"), 1);
    drop(output);
    assert_eq!(captured.bytes(), b"last words!");
}

#[test]
fn finish_closes_the_descriptor_and_ends_the_thread() {
    let (reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    output.push(b"x");
    assert!(output.finish(LONG));
    let mut all = Vec::new();
    // Would wait for ever if a write end were still open.
    File::from(reader).read_to_end(&mut all).unwrap();
    assert_eq!(all, b"x");
}

#[test]
fn an_output_that_was_never_used_has_no_thread_and_closes_its_descriptor() {
    let (reader, writer) = pipe();
    drop(Output::fd(writer).unwrap());
    assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0);
}

/// The writer thread ends by itself, soon.
fn wait_for_end(output: &Output) {
    let deadline = Instant::now() + LONG;
    while !output.has_ended() {
        assert!(
            Instant::now() < deadline,
            "the writer thread is still there"
        );
        std::thread::yield_now();
    }
}

fn stuck_output_drops(fd: OwnedFd) {
    let output = Output::fd(fd).unwrap();
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut taken = 0;
    for _ in 0..256 {
        let before = Instant::now();
        taken += output.push(&[b'x'; 4096]);
        slowest = slowest.max(before.elapsed());
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "pushes took {:?}",
        started.elapsed()
    );
    assert!(taken < 1 << 20);
    assert_eq!(output.dropped(), (1 << 20) - taken as u64);
    let before = Instant::now();
    assert!(!output.finish(Duration::from_millis(20)));
    assert!(before.elapsed() < LONG);
    wait_for_end(&output);
    assert!(
        slowest < Duration::from_millis(500),
        "a push took {slowest:?}"
    );
}

#[test]
fn a_pipe_that_nobody_reads_costs_bytes_but_no_time_and_no_thread() {
    let (_reader, writer) = pipe();
    stuck_output_drops(writer);
}

#[test]
fn a_socket_that_nobody_reads_costs_bytes_but_no_time_and_no_thread() {
    let (_reader, writer) = UnixStream::pair().unwrap();
    stuck_output_drops(writer.into());
}

#[test]
fn a_terminal_that_nobody_reads_costs_bytes_but_no_time_and_no_thread() {
    let (_master, slave) = terminal();
    stuck_output_drops(slave);
}

#[test]
fn the_master_of_a_terminal_that_nobody_reads_costs_no_thread() {
    let (master, _slave) = terminal();
    stuck_output_drops(master);
}

#[test]
fn a_writer_stuck_in_a_call_is_left_behind() {
    let (sender, writes) = mpsc::sync_channel(0);
    let output = Output::writer(Channel(sender));
    output.push(b"first\n");
    let before = Instant::now();
    assert!(!output.finish(Duration::from_millis(20)));
    assert!(before.elapsed() < LONG);
    assert_eq!(writes.recv_timeout(LONG).unwrap(), b"first\n");
}

#[test]
fn a_reader_that_is_gone_costs_the_bytes_and_the_thread() {
    let (reader, writer) = pipe();
    drop(reader);
    let output = Output::fd(writer).unwrap();
    output.push(b"nobody\n");
    output.finish(LONG);
    assert!(output.has_ended());
    assert_eq!(output.dropped(), 7);
}

#[test]
fn a_peer_that_is_gone_makes_later_pushes_drop() {
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let output = Output::fd(writer.into()).unwrap();
    output.push(b"nobody\n");
    wait_for_end(&output);
    assert_eq!(output.push(b"again\n"), 0);
    assert_eq!(output.dropped(), 13);
}

#[test]
fn a_full_disk_costs_each_write_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Output::fd(full.into()).unwrap();
    output.push(b"one\n");
    output.push(b"two\n");
    output.finish(LONG);
    assert!(output.has_ended());
    assert_eq!(output.dropped(), 8);
}

#[test]
fn a_regular_file_is_written_where_its_offset_is() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before ").unwrap();
    let output = Output::fd(file.try_clone().unwrap().into()).unwrap();
    output.push(b"after");
    assert!(output.finish(LONG));
    let mut all = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut all).unwrap();
    assert_eq!(all, "before after");
}

#[test]
fn a_writer_that_panics_costs_its_bytes() {
    struct Bomb;
    impl Write for Bomb {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("as the test wants it")
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let output = Output::writer(Bomb);
    output.push(b"x\n");
    output.finish(LONG);
    assert!(output.has_ended());
    assert_eq!(output.dropped(), 2);
}

#[test]
fn the_flags_of_a_shared_description_stay_as_they_are() {
    let (reader, writer) = pipe();
    let (master, slave) = terminal();
    for (fd, access) in [
        (reader, Access::Read),
        (writer, Access::Write),
        (slave, Access::Write),
    ] {
        let theirs = fd.try_clone().unwrap();
        let ours = Descriptor::new(fd, access).unwrap();
        assert!(
            !rustix::fs::fcntl_getfl(&theirs)
                .unwrap()
                .contains(OFlags::NONBLOCK)
        );
        assert_eq!(ours.manner(), Manner::Nonblocking);
    }
    drop(master);
}

#[test]
fn a_descriptor_that_is_open_the_other_way_is_refused() {
    let (reader, writer) = pipe();
    assert_eq!(
        Output::fd(reader).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        Input::fd(writer).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn an_empty_input_says_would_block_and_its_end_is_an_end() {
    let (reader, writer) = pipe();
    let input = Input::fd(reader).unwrap();
    let mut data = [0; 8];
    assert_eq!(
        input.read(&mut data).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert!(!is_readable(&input));
    rustix::io::write(&writer, b"hi").unwrap();
    assert!(is_readable(&input));
    assert_eq!(input.read(&mut data).unwrap(), 2);
    drop(writer);
    assert_eq!(input.read(&mut data).unwrap(), 0);
}

#[test]
fn a_fifo_without_a_writer_is_not_at_its_end_and_is_after_its_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
    let input = Input::fd(fd).unwrap();
    let mut data = [0; 8];
    assert_eq!(
        input.read(&mut data).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    std::fs::write(&path, b"hi").unwrap();
    assert_eq!(input.read(&mut data).unwrap(), 2);
    assert_eq!(input.read(&mut data).unwrap(), 0);
}

#[test]
fn a_socket_input_says_would_block() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let input = Input::fd(ours.into()).unwrap();
    let mut data = [0; 8];
    assert_eq!(
        input.read(&mut data).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    theirs.write_all(b"hi").unwrap();
    assert_eq!(input.read(&mut data).unwrap(), 2);
}

#[test]
fn a_terminal_that_hangs_up_is_the_end_of_the_input() {
    let (master, slave) = terminal();
    let input = Input::fd(slave).unwrap();
    drop(master);
    assert_eq!(input.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn dev_null_is_at_its_end() {
    let input = Input::fd(File::open("/dev/null").unwrap().into()).unwrap();
    assert_eq!(input.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_pipe_in_polled_manner_says_would_block_too() {
    let (reader, writer) = pipe();
    let ours = Descriptor::polled_for_test(reader, Access::Read);
    assert_eq!(
        ours.read(&mut [0; 8]).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    let ours = Descriptor::polled_for_test(writer, Access::Write);
    let mut written = 0;
    let full = loop {
        match ours.write(&[0; 65_536]) {
            Ok(size) => written += size,
            Err(error) => break error,
        }
        assert!(written <= 1 << 20);
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn an_embedders_reader_arrives_and_ends() {
    let input = Input::reader(&b"from memory"[..]).unwrap();
    let mut all = Vec::new();
    let mut data = [0; 4];
    loop {
        poll(&mut [PollFd::new(&input, PollFlags::IN)], None).unwrap();
        match input.read(&mut data) {
            Ok(0) => break,
            Ok(size) => all.extend_from_slice(&data[..size]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert_eq!(all, b"from memory");
}

#[test]
fn an_endless_reader_is_read_no_further_than_a_pipe_holds_and_ends_with_the_input() {
    struct Endless(mpsc::Sender<usize>);
    impl Read for Endless {
        fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
            data.fill(b'y');
            let _ = self.0.send(data.len());
            Ok(data.len())
        }
    }
    let (sender, reads) = mpsc::channel();
    let input = Input::reader(Endless(sender)).unwrap();
    let mut total = 0;
    while let Ok(size) = reads.recv_timeout(Duration::from_millis(200)) {
        total += size;
        assert!(total <= 1 << 20);
    }
    drop(input);
    // The sender lives in the thread: its end is the thread's.
    assert!(matches!(
        reads.recv_timeout(LONG),
        Err(mpsc::RecvTimeoutError::Disconnected)
    ));
}

#[test]
fn a_congested_output_announces_room_when_it_is_read() {
    let (reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    output.room().unwrap();
    assert!(!output.is_congested());
    while output.push(&[b'x'; 4096]) == 4096 && !output.is_congested() {}
    assert!(output.is_congested());
    let mut reader = File::from(reader);
    let mut data = vec![0; 65_536];
    while !is_readable(output.room().unwrap()) {
        assert!(reader.read(&mut data).unwrap() > 0);
    }
    output.room_event();
    assert!(!is_readable(output.room().unwrap()));
}

#[test]
fn an_output_that_nobody_reads_is_congested_for_a_moment_only() {
    let (_reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    let room = output.room().unwrap();
    while output.push(&[b'x'; 4096]) == 4096 {}
    assert!(output.is_congested());
    poll(&mut [PollFd::new(&room, PollFlags::IN)], None).unwrap();
    output.room_event();
    assert!(!output.is_congested());
}
