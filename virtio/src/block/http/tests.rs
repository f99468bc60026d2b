//! A server on loopback that misbehaves: every byte is right, or there is an error, in time.

mod failing;
mod tls;

use super::*;
use crate::testing::http::{Act, Answer, Asked, Served, Server};

const LEN: usize = 3 * BLOCK as usize + 1024;
/// Less than users have, so that tests of servers that don't answer are short.
const SHORT: Duration = Duration::from_millis(900);

fn open(server: &Server) -> HttpDisk {
    let options = HttpDisk::options().patience(SHORT).open_patience(SHORT);
    options.open(&server.url).unwrap()
}

/// Reads into two buffers, as a guest's request may have them.
fn read(disk: &HttpDisk, offset: usize, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let (one, two) = bytes.split_at_mut(len / 3);
    let buffers = [VolatileSlice::from(one), VolatileSlice::from(two)];
    let count = disk.read_vectored_at(&buffers, offset as u64)?;
    assert_eq!(count, len);
    Ok(bytes)
}

/// Reads what has to be there.
fn check(disk: &HttpDisk, served: &Served, offset: usize, len: usize) {
    let bytes = read(disk, offset, len).unwrap();
    assert!(bytes == served.data[offset..offset + len], "{offset}");
}

/// Opens a disk with its first block, after which the server behaves in another way.
fn opened_then(behave: impl FnMut(&Asked, Answer) -> Act + Send + 'static) -> (HttpDisk, Served) {
    let (disk, served, _) = opened_from(behave);
    (disk, served)
}

fn opened_from(
    mut behave: impl FnMut(&Asked, Answer) -> Act + Send + 'static,
) -> (HttpDisk, Served, Server) {
    let served = Served::new(LEN);
    let server = Server::good(&served);
    let disk = open(&server);
    let file = served.clone();
    server.behave(move |asked| behave(asked, file.answer(asked)));
    (disk, served, server)
}

const SECOND: usize = BLOCK as usize;

#[test]
fn a_disk_has_the_bytes_of_the_file() {
    let served = Served::new(LEN);
    let disk = open(&Server::good(&served));

    assert_eq!(disk.properties().size, LEN as u64);
    assert!(disk.properties().read_only);
    for (offset, len) in [
        (0, 512),
        (LEN - 512, 512),
        (SECOND - 512, 1024),
        (0, LEN),
        (512, 2 * SECOND),
    ] {
        check(&disk, &served, offset, len);
    }
}

#[test]
fn what_is_cached_is_not_asked_for_again() {
    let served = Served::new(40 * SECOND);
    let server = Server::good(&served);
    let disk = open(&server);
    assert_eq!(server.gets(), 1);

    for offset in (0..SECOND).step_by(4096) {
        check(&disk, &served, SECOND + offset, 4096);
    }
    assert_eq!(server.gets(), 2);

    // More than there is room for: the first two were used least lately.
    for number in 2..=SCALE.blocks {
        check(&disk, &served, number * SECOND, 512);
    }
    assert_eq!(server.gets(), SCALE.blocks + 1);
    check(&disk, &served, 2 * SECOND, 512);
    assert_eq!(server.gets(), SCALE.blocks + 1);
    check(&disk, &served, 0, 512);
    assert_eq!(server.gets(), SCALE.blocks + 2);
}

#[test]
fn what_is_cached_does_not_wait_for_what_is_asked_for() {
    let (asked, was_asked) = std::sync::mpsc::channel();
    let (answer_now, may_answer) = std::sync::mpsc::channel();
    let (disk, served) = opened_then(move |_, answer| {
        asked.send(()).unwrap();
        may_answer.recv().unwrap();
        Act::Send(answer)
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| check(&disk, &served, SECOND, 512));
        was_asked.recv().unwrap();
        check(&disk, &served, 0, 512);
        assert!(!slow.is_finished());
        answer_now.send(()).unwrap();
    });
}

#[test]
fn several_queues_read_what_is_there_though_they_push_each_other_out_of_the_cache() {
    let served = Served::new(40 * SECOND);
    let server = Server::good(&served);
    let disk = HttpDisk::open(&server.url).unwrap();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (disk, served) = (&disk, &served);
            scope.spawn(move || {
                for number in (0..40).map(|number| (number + first * 10) % 40) {
                    check(disk, served, number * SECOND, 4096);
                }
            });
        }
    });
}

#[test]
fn a_file_smaller_than_a_block_is_a_disk() {
    let served = Served::new(1000);
    let disk = open(&Server::good(&served));
    check(&disk, &served, 0, 512);
    assert_eq!(disk.properties().size, 1000);
}

#[test]
fn a_server_without_head_is_asked_for_a_part() {
    let served = Served::new(LEN);
    let file = served.clone();
    let server = Server::new(move |asked| {
        Act::Send(match asked.method.as_str() {
            "HEAD" => Answer::status("405 Method Not Allowed"),
            _ => file.answer(asked),
        })
    });
    check(&open(&server), &served, SECOND, 512);
}

#[test]
fn requests_have_the_condition_that_the_file_is_the_same() {
    let (conditions, seen) = std::sync::mpsc::channel();
    let (disk, served) = opened_then(move |asked, answer| {
        let _ = conditions.send(asked.header("if-match").map(str::to_owned));
        Act::Send(answer)
    });
    check(&disk, &served, SECOND, 512);
    assert_eq!(seen.recv().unwrap().as_deref(), Some("\"one\""));
}

#[test]
fn a_disk_can_not_be_written() {
    let (disk, _) = opened_then(|_, answer| Act::Send(answer));
    let mut bytes = [1; 512];
    let buffers = [VolatileSlice::from(bytes.as_mut_slice())];
    assert!(disk.write_vectored_at(&buffers, 0).is_err());
    assert!(disk.flush().is_ok());
}

#[test]
fn messages_name_the_file_but_no_secrets() {
    for (url, expected) in [
        ("http://host/d?key=1#x", "http://host/d"),
        ("https://me:secret@host:1/d@e", "https://host:1/d@e"),
        ("http://host", "http://host"),
    ] {
        assert_eq!(name(url), expected);
    }
}

#[test]
fn a_redirect_is_followed() {
    let served = Served::new(LEN);
    let file = served.clone();
    let server = Server::new(move |asked| {
        Act::Send(match asked.path.as_str() {
            "/disk" => Answer::status("302 Found").and("Location", Some("/elsewhere")),
            _ => file.answer(asked),
        })
    });
    let disk = open(&server);
    check(&disk, &served, 0, LEN);
}

#[test]
fn unusual_answers_that_are_right_are_taken() {
    type Change = fn(Answer) -> Act;
    let changes: [(&str, Change); 4] = [
        ("HTTP/1.0", |mut answer| {
            answer.status = "HTTP/1.0 206 OK".into();
            Act::Close(answer.bytes())
        }),
        ("ends with the connection", |answer| {
            Act::Close(answer.with("Content-Length", None).bytes())
        }),
        ("chunked", |answer| {
            let mut chunked = answer.with("Content-Length", None);
            let size = format!("{:x}\r\n", chunked.body.len());
            let body = std::mem::take(&mut chunked.body);
            chunked.body = [size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            Act::Send(chunked.with("Transfer-Encoding", Some("chunked")))
        }),
        ("100 first", |answer| {
            let mut bytes = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
            bytes.extend(answer.bytes());
            Act::Close(bytes)
        }),
    ];
    for (name, change) in changes {
        let (disk, served) = opened_then(move |_, answer| change(answer));
        match read(&disk, SECOND, 4096) {
            Ok(bytes) => assert!(bytes == served.data[SECOND..SECOND + 4096], "{name}"),
            Err(error) => assert_eq!(name, "100 first", "{error}"),
        }
    }
}

#[test]
fn whatever_a_server_does_a_byte_is_right_or_an_error() {
    let mut state: u64 = 7;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let mut choose = random;
    let (disk, served) = opened_then(move |_, mut answer| match choose(8) {
        0 => Act::Send(Answer::status("503 Busy")),
        1 => Act::Close(Vec::new()),
        2 => {
            let bytes = answer.bytes();
            let end = choose(bytes.len() as u64) as usize;
            Act::Close(bytes[..end].to_vec())
        }
        3 => Act::Send(answer.with("Content-Range", Some("bytes 0-262143/787456"))),
        4 => {
            // The next answer begins inside of this one's rest.
            answer.body.extend(b"HTTP/1.1 206 Partial Content\r\n\r\n");
            Act::Send(answer)
        }
        _ => Act::Send(answer),
    });
    let (mut right, mut failed) = (0, 0);
    for _ in 0..60 {
        // Blocks are asked for anew, as if there were no cache.
        disk.state.lock().unwrap().cache = Cache::new(2);
        let offset = 512 * random((LEN / 512 - 8) as u64) as usize;
        match read(&disk, offset, 4096) {
            Ok(bytes) => {
                assert!(bytes == served.data[offset..offset + 4096], "{offset}");
                right += 1;
            }
            Err(_) => failed += 1,
        }
    }
    assert!(right > 6 && failed > 6, "{right} right, {failed} failed");
}
