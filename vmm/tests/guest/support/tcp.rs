//! TCP streams whose bytes tell where they are from, for both halves of a test.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// Somebody who gives no sign of life for so long is over.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is written, and looked at, at once.
pub const PIECE: usize = 1 << 14;

/// The bytes of a stream at a place.
pub fn pattern(at: usize, buffer: &mut [u8]) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        let at = at + index;
        *byte = (at ^ at >> 8 ^ at >> 17) as u8;
    }
}

/// Has the kernel keep a few pieces for this sender and not megabytes, of which it would have a third
/// on its way before the sender may go on: then the end of a call tells that bytes move.
pub fn keep_little(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_send_buffer_size(stream, 4 * PIECE).unwrap();
}

/// Sends the next piece of a stream.
pub fn send_piece(mut stream: &TcpStream, at: usize) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    pattern(at, &mut buffer);
    stream.write_all(&buffer)
}

/// Receives the next piece of a stream, which has to be right.
pub fn receive_piece(mut stream: &TcpStream, at: usize) -> io::Result<()> {
    let (mut buffer, mut expected) = (vec![0; PIECE], vec![0; PIECE]);
    stream.read_exact(&mut buffer)?;
    pattern(at, &mut expected);
    assert!(buffer == expected, "different bytes at {at}");
    Ok(())
}

pub fn send(stream: &TcpStream, len: usize) {
    (0..len)
        .step_by(PIECE)
        .for_each(|at| send_piece(stream, at).unwrap());
}

pub fn receive(stream: &TcpStream, len: usize) {
    (0..len)
        .step_by(PIECE)
        .for_each(|at| receive_piece(stream, at).unwrap());
}

/// Waits for somebody who calls.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let mut asked = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(poll(&mut asked, Some(&patience)), Ok(1), "nobody calls");
    be_patient(listener.accept().unwrap().0)
}

/// Calls somebody who may not listen yet.
pub fn connect(address: impl ToSocketAddrs + Debug) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(&address) {
            Ok(stream) => return be_patient(stream),
            Err(error) => assert!(Instant::now() < deadline, "{address:?}: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn be_patient(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Streams of `len` bytes one way, the other way, and both ways at once; then single bytes back and
/// forth. One of the two sides is the `first`.
pub fn talk(mut stream: &TcpStream, first: bool, len: usize) {
    for sends in [first, !first] {
        if sends {
            send(stream, len);
        } else {
            receive(stream, len);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| send(stream, len));
        receive(stream, len);
    });
    let mut byte = [0];
    for number in 0..200 {
        if first {
            stream.write_all(&[number]).unwrap();
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [number]);
        } else {
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
        }
    }
}
