//! Kernels and initrds by URL: fetched into memory, with progress on a terminal.
//!
//! A server may stop in the middle, which must not look like a slow one for ever. The HTTP library
//! bounds how long all of a body takes; a pause in it is seen by reading in a thread and waiting
//! for that only so long. The thread of a fetch that failed is left behind: the process ends.

use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use vmm::loader::Source;

/// No kernel or initrd is larger; a server that sends without end stops here.
const LIMIT: u64 = 4 << 30;
/// How long a server may take.
struct Patience {
    connect: Duration,
    /// Until its answer begins.
    response: Duration,
    /// Without sending any of it.
    pause: Duration,
    /// For all of it.
    body: Duration,
}

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    response: Duration::from_secs(20),
    pause: Duration::from_secs(20),
    body: Duration::from_secs(900),
};
const REDIRECTS: u32 = 3;

/// Why a URL could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("-{option} {url:?}: the scheme {scheme} is not known; known are http, https and file")]
    Scheme {
        option: &'static str,
        url: String,
        scheme: String,
    },
    #[error("-{option} {url:?}")]
    Http {
        option: &'static str,
        url: String,
        source: Box<ureq::Error>,
    },
    #[error("-{option} {url:?}")]
    Body {
        option: &'static str,
        url: String,
        source: io::Error,
    },
    #[error("-{option} {url:?}: the server sent nothing for {pause:?}")]
    Stalled {
        option: &'static str,
        url: String,
        pause: Duration,
    },
    #[error("-{option} {url:?}: larger than {LIMIT} bytes")]
    Large { option: &'static str, url: String },
}

/// What the value of `-option` names: a path as it is, or the contents of a URL.
pub fn source(option: &'static str, value: &OsStr) -> Result<Source, Error> {
    let Some((scheme, rest)) = value.to_str().and_then(split_scheme) else {
        return Ok(Source::Path(PathBuf::from(value)));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => Ok(Source::Path(PathBuf::from(rest))),
        "http" | "https" => download(option, &value.to_string_lossy(), &PATIENCE).map(Source::from),
        _ => Err(Error::Scheme {
            option,
            url: value.to_string_lossy().into(),
            scheme: scheme.into(),
        }),
    }
}

/// Splits `scheme://rest`. A path may hold a colon, but hardly a scheme and two slashes.
fn split_scheme(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme.then_some((scheme, rest))
}

fn download(option: &'static str, url: &str, patience: &Patience) -> Result<File, Error> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.response))
            .timeout_recv_body(Some(patience.body))
            .max_redirects(REDIRECTS)
            .user_agent(concat!("hype/", env!("CARGO_PKG_VERSION")))
            .build(),
    );
    let http = |source| Error::Http {
        option,
        url: url.into(),
        source: Box::new(source),
    };
    let body = |source| Error::Body {
        option,
        url: url.into(),
        source,
    };
    let response = agent.get(url).call().map_err(http)?;
    let expected = response.body().content_length();
    let mut progress = Progress::new(option, expected);
    let chunks = read_ahead(response.into_body().into_reader()).map_err(body)?;
    let mut file =
        File::from(memfd_create(option, MemfdFlags::CLOEXEC).map_err(|error| body(error.into()))?);
    let mut got: u64 = 0;
    loop {
        let chunk = match chunks.recv_timeout(patience.pause) {
            Ok(chunk) => chunk.map_err(body)?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::Stalled {
                    option,
                    url: url.into(),
                    pause: patience.pause,
                });
            }
        };
        file.write_all(&chunk).map_err(body)?;
        got = got.saturating_add(chunk.len() as u64);
        if got > LIMIT {
            return Err(Error::Large {
                option,
                url: url.into(),
            });
        }
        progress.show(got);
    }
    file.rewind().map_err(body)?;
    Ok(file)
}

/// Reads in a thread of its own: what it gets until the end, or until the first error.
fn read_ahead(mut reader: impl Read + Send + 'static) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (sender, receiver) = sync_channel(4);
    thread::Builder::new().name("fetch".into()).spawn(move || {
        loop {
            let mut chunk = vec![0; 64 << 10];
            let result = reader.read(&mut chunk);
            if matches!(result, Ok(0)) {
                return;
            }
            let failed = result.is_err();
            let message = result.map(|count| {
                chunk.truncate(count);
                chunk
            });
            if sender.send(message).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// A line on the terminal that tells how far a download is, and is gone afterwards.
struct Progress {
    option: &'static str,
    expected: Option<u64>,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    const INTERVAL: Duration = Duration::from_millis(100);

    fn new(option: &'static str, expected: Option<u64>) -> Self {
        Progress {
            option,
            expected,
            shown: None,
            terminal: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, got: u64) {
        if !self.terminal
            || self
                .shown
                .is_some_and(|shown| shown.elapsed() < Self::INTERVAL)
        {
            return;
        }
        self.shown = Some(Instant::now());
        let of = self
            .expected
            .map(|bytes| format!(" of {} MiB", bytes >> 20))
            .unwrap_or_default();
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{}: {} MiB{of}",
            self.option,
            got >> 20
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers one connection with `answer`, whatever it is asked, and then hangs
    /// up or stays.
    fn serve(answer: &'static [u8], stays: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/bzImage", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
            if stays {
                // Until the client hangs up.
                let _ = stream.read(&mut request);
            }
        });
        url
    }

    #[test]
    fn a_body_arrives_whole() {
        let url = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false);
        let mut text = String::new();
        let mut file = download("kernel", &url, &PATIENCE).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_short_body_is_an_error() {
        let url = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false);
        assert!(download("kernel", &url, &PATIENCE).is_err());
    }

    #[test]
    fn a_server_that_goes_silent_is_given_up() {
        let short = Duration::from_millis(50);
        let long = Duration::from_secs(60);
        // It pauses, it takes too long for all of it, it never answers.
        for (pause, body, response, answer) in [
            (
                short,
                long,
                long,
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            ),
            (
                long,
                short,
                long,
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            ),
            (long, long, short, ""),
        ] {
            let patience = Patience {
                connect: long,
                response,
                pause,
                body,
            };
            let url = serve(answer.as_bytes(), true);
            let error = download("kernel", &url, &patience).unwrap_err();
            let text = crate::say::chain(&error);
            assert!(text.contains("timeout") || text.contains("50ms"), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_a_path() {
        for path in ["bzImage", "/a:b", "a/b", "file:///boot/vmlinuz"] {
            assert!(
                matches!(source("kernel", OsStr::new(path)), Ok(Source::Path(_))),
                "{path}"
            );
        }
    }

    #[test]
    fn an_unknown_scheme_is_named() {
        let error = source("kernel", OsStr::new("ftp://host/x")).unwrap_err();
        assert!(error.to_string().contains("ftp"));
    }
}
