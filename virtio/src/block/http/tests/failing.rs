//! Servers that can't be used, and servers that could until now.

use super::*;
use std::error::Error as _;

/// What was logged by all tests of this process.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

type Change = fn(Answer) -> Act;

/// What no part of a file can be taken from, and the words that the failure has.
const BAD: &[(&str, Change)] = &[
    ("status 404", |_| Act::Send(Answer::status("404 Not Found"))),
    ("status 403", |_| Act::Send(Answer::status("403 Forbidden"))),
    ("status 500", |_| Act::Send(Answer::status("500 Oops"))),
    ("ignores Range", |mut answer| {
        answer.status = "HTTP/1.1 200 OK".into();
        Act::Send(answer)
    }),
    ("Content-Range \"\"", |answer| {
        Act::Send(answer.with("Content-Range", None))
    }),
    ("Content-Range \"bytes 1-262144", |answer| {
        let range = format!("bytes 1-262144/{LEN}");
        Act::Send(answer.with("Content-Range", Some(&range)))
    }),
    ("Content-Range \"bytes 0-511", |answer| {
        let range = format!("bytes 0-511/{LEN}");
        Act::Send(answer.with("Content-Range", Some(&range)))
    }),
    ("/*\"", |answer| {
        Act::Send(answer.with("Content-Range", Some("bytes 0-262143/*")))
    }),
    ("disconnected", |answer| {
        let bytes = answer.bytes();
        Act::Close(bytes[..bytes.len() - 1].to_vec())
    }),
    ("262143 came", |mut answer| {
        answer.body.pop();
        let len = answer.body.len().to_string();
        Act::Send(answer.with("Content-Length", Some(&len)))
    }),
    ("262145 came", |mut answer| {
        answer.body.push(0);
        let len = answer.body.len().to_string();
        Act::Send(answer.with("Content-Length", Some(&len)))
    }),
    ("262145 came", |mut answer| {
        answer.body.extend([0; 4096]);
        Act::Close(answer.with("Content-Length", None).bytes())
    }),
    ("262143 came", |mut answer| {
        answer.body.pop();
        Act::Close(answer.with("Content-Length", None).bytes())
    }),
    ("whole answer", |answer| {
        let mut chunked = answer.with("Content-Length", None);
        chunked.body.splice(0..0, *b"nonsense\r\n");
        Act::Send(chunked.with("Transfer-Encoding", Some("chunked")))
    }),
    ("whole answer", |answer| {
        Act::Send(answer.with("Content-Length", Some("-1")))
    }),
    ("18446744073709551615 came", |answer| {
        Act::Send(answer.with("Content-Length", Some("18446744073709551615")))
    }),
    ("whole answer", |answer| {
        Act::Send(answer.and("Content-Length", Some("5")))
    }),
    ("header", |answer| {
        Act::Send(answer.and("X-Long", Some(&"x".repeat(1 << 20))))
    }),
    ("header", |_| {
        Act::Endless(b"HTTP/1.1 206 OK\r\nX-Long: ", b"and longer")
    }),
    ("header", |_| {
        Act::Endless(b"HTTP/1.1 206 OK\r\n", b"X-Again: and again\r\n")
    }),
    ("Content-Encoding \"gzip\"", |answer| {
        Act::Send(answer.with("Content-Encoding", Some("gzip")))
    }),
    ("redirects", |_| {
        Act::Send(Answer::status("302 Found").and("Location", Some("/disk")))
    }),
    // What comes with a redirect is read to its end.
    ("timeout", |_| {
        Act::Endless(
            b"HTTP/1.1 302 Found\r\nLocation: /disk\r\n\r\n",
            b"and longer",
        )
    }),
    // The HTTP library takes what has no host for a path on the same server.
    ("redirects", |_| {
        let to = Some("file:///etc/passwd");
        Act::Send(Answer::status("302 Found").and("Location", to))
    }),
    ("scheme", |_| {
        let to = Some("file://localhost/etc/passwd");
        Act::Send(Answer::status("302 Found").and("Location", to))
    }),
    ("whole answer", |_| {
        Act::Close(b"SSH-2.0-server\r\n".to_vec())
    }),
    ("disconnected", |_| Act::Close(Vec::new())),
    ("timeout", |_| Act::Stall(Vec::new())),
    ("timeout", |answer| {
        let bytes = answer.bytes();
        Act::Stall(bytes[..bytes.len() / 2].to_vec())
    }),
    ("timeout", |answer| Act::Drip(answer.bytes())),
];

/// What an error says, and what is said of its cause.
pub(super) fn why(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| cause.to_string());
    format!("{error}: {}", cause.unwrap_or_default())
}

#[test]
fn a_bad_server_is_refused_in_time() {
    for (number, (words, change)) in BAD.iter().enumerate() {
        let served = Served::new(LEN);
        let server = Server::new(move |asked| match asked.method.as_str() {
            "HEAD" => Act::Send(served.answer(asked)),
            _ => change(served.answer(asked)),
        });
        let start = Instant::now();
        let options = HttpDisk::options().open_patience(SHORT);

        let error = options.open(&server.url).map(|_| ()).expect_err(words);

        let why = why(&error);
        assert!(why.contains(words), "{number} {words}: {why}");
        assert!(start.elapsed() < 3 * SHORT, "{number} {words}");
        assert!(server.gets() <= 4, "{number} {words}: {}", server.gets());
    }
}

#[test]
fn a_server_that_turns_bad_fails_reads_until_it_is_good_again() {
    for (number, (words, change)) in BAD.iter().enumerate() {
        let (disk, served, server) = opened_from(move |_, answer| change(answer));
        let start = Instant::now();

        let result = read(&disk, SECOND, 4096);

        assert!(result.is_err(), "{number} {words}");
        assert!(start.elapsed() < 3 * SHORT, "{number} {words}");
        // What was there is there, and the rest comes back.
        check(&disk, &served, 0, SECOND);
        let file = served.clone();
        server.behave(move |asked| Act::Send(file.answer(asked)));
        check(&disk, &served, SECOND, 4096);
    }
}

#[test]
fn what_fails_now_and_then_is_tried_again() {
    let misses: [Change; 5] = [
        |_| Act::Send(Answer::status("503 Busy")),
        |_| Act::Close(Vec::new()),
        |answer| Act::Close(answer.bytes()[..1000].to_vec()),
        |answer| Act::Stall(answer.bytes()[..1000].to_vec()),
        |_| Act::Send(Answer::status("429 Slow Down")),
    ];
    for (number, miss) in misses.into_iter().enumerate() {
        let mut missed = false;
        let (disk, served, server) = opened_from(move |_, answer| {
            missed = !missed;
            if missed {
                miss(answer)
            } else {
                Act::Send(answer)
            }
        });
        check(&disk, &served, SECOND, 4096);
        check(&disk, &served, 2 * SECOND, 4096);
        // The library itself makes no second try that we don't know of.
        assert_eq!(server.gets(), 5, "{number}");
    }
}

#[test]
fn a_file_that_changes_fails_for_good() {
    let changes: [(&str, Change); 6] = [
        ("ETag", |answer| {
            Act::Send(answer.with("ETag", Some("\"two\"")))
        }),
        ("ETag", |answer| Act::Send(answer.with("ETag", None))),
        ("Last-Modified", |answer| {
            let later = Some("Sun, 06 Nov 1994 08:49:38 GMT");
            Act::Send(answer.with("Last-Modified", later))
        }),
        ("size", |answer| {
            let range = format!("bytes 262144-524287/{}", LEN + 1);
            Act::Send(answer.with("Content-Range", Some(&range)))
        }),
        ("condition", |_| Act::Send(Answer::status("412 Changed"))),
        ("shorter", |_| Act::Send(Answer::status("416 Too Far"))),
    ];
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    for (words, change) in changes {
        let (disk, served, server) = opened_from(move |_, answer| change(answer));
        check(&disk, &served, 0, 512);

        let error = read(&disk, SECOND, 512).unwrap_err().to_string();

        assert!(error.contains("changed on the server"), "{error}");
        assert!(error.contains(words), "{words}: {error}");
        // Also if it should be the old one again, also for what is known of it.
        let file = served.clone();
        server.behave(move |asked| Act::Send(file.answer(asked)));
        for offset in [0, SECOND] {
            let error = read(&disk, offset, 512).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        assert_eq!(server.gets(), 2, "{words}");
        // The port in its name tells it from the disks of other tests.
        let logged = LOGGED.lock().unwrap();
        let lines = logged.iter().filter(|line| line.contains(&disk.name));
        assert_eq!(lines.count(), 1, "{words}");
    }
}

#[test]
fn a_file_that_could_change_unnoticed_is_refused() {
    let served = Served::new(LEN);
    let server = Server::new(move |asked| {
        let answer = served.answer(asked);
        Act::Send(answer.with("ETag", None).with("Last-Modified", None))
    });
    let error = HttpDisk::open(&server.url).unwrap_err();
    assert!(why(&error).contains("changes can't be noticed"));
}

#[test]
fn a_server_that_says_it_has_no_ranges_is_refused() {
    let served = Served::new(LEN);
    let server = Server::new(move |asked| {
        Act::Send(served.answer(asked).with("Accept-Ranges", Some("none")))
    });
    let error = HttpDisk::open(&server.url).unwrap_err();
    assert!(why(&error).contains("ignores Range"));
    assert_eq!(server.gets(), 0);
}

#[test]
fn two_sizes_are_refused() {
    let served = Served::new(LEN);
    let server = Server::new(move |asked| {
        let answer = served.answer(asked);
        Act::Send(match asked.method.as_str() {
            "HEAD" => answer.with("Content-Length", Some("4096")),
            _ => answer,
        })
    });
    let error = HttpDisk::open(&server.url).unwrap_err();
    assert!(why(&error).contains("has 4096 bytes, and then"), "{error}");
}

#[test]
fn a_file_without_a_block_is_refused() {
    for len in [0, 1, 511] {
        let server = Server::good(&Served::new(len));
        let error = HttpDisk::open(&server.url).unwrap_err().to_string();
        assert!(error.contains(&format!("has {len} bytes")), "{error}");
    }
}

#[test]
fn a_place_without_a_server_is_refused_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    // It does not speak TLS.
    let plain = Server::good(&Served::new(LEN));
    for (url, words) in [
        (format!("http://{gone}/disk"), "refused"),
        (plain.url.replace("http:", "https:"), "whole answer"),
        ("http://".to_owned(), "whole answer"),
        ("http://no such host/".to_owned(), "whole answer"),
        ("http://127.0.0.1:99999/".to_owned(), "whole answer"),
        ("ftp://127.0.0.1/disk".to_owned(), "http:// or https://"),
        ("file:///etc/passwd".to_owned(), "http:// or https://"),
    ] {
        let start = Instant::now();
        let options = HttpDisk::options().open_patience(SHORT);
        let error = options.open(&url).unwrap_err();
        let why = why(&error);
        assert!(why.contains(words), "{url}: {why}");
        assert!(start.elapsed() < 2 * SHORT, "{url}");
        assert!(error.source().is_some());
    }
}
