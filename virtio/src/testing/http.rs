//! A web server on loopback that does what it is told to, good or bad.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// How many GETs there were before.
    pub number: usize,
    /// As GET.
    pub method: String,
    /// What is behind the host in the URL.
    pub path: String,
    headers: HashMap<String, String>,
}

impl Asked {
    /// The value of a header; its name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn read(stream: &mut impl BufRead) -> Option<Asked> {
        let mut line = || {
            let mut line = String::new();
            let count = stream.read_line(&mut line).ok()?;
            (count > 0).then(|| line.trim_end().to_owned())
        };
        let first = line()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let text = line()?;
            if text.is_empty() {
                break;
            }
            let (name, value) = text.split_once(": ")?;
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Some(Asked {
            number: 0,
            method,
            path,
            headers,
        })
    }

    /// The range that was asked for.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

/// An answer, in parts that a test can change.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The first line.
    pub status: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Answer {
    /// One without a body.
    pub fn status(status: &str) -> Self {
        Answer {
            status: format!("HTTP/1.1 {status}"),
            headers: vec![("Content-Length".into(), "0".into())],
            body: Vec::new(),
        }
    }

    /// Sets a header, or removes it.
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.retain(|(had, _)| had != name);
        self.and(name, value)
    }

    /// Adds a header.
    pub fn and(mut self, name: &str, value: Option<&str>) -> Self {
        let value = value.map(|value| (name.to_owned(), value.to_owned()));
        self.headers.extend(value);
        self
    }

    /// All of it, as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

/// A file as a good server has it.
#[derive(Debug, Clone)]
pub struct Served {
    /// The file.
    pub data: Arc<Vec<u8>>,
    /// Its ETag, with the quotes.
    pub etag: String,
    /// Its Last-Modified.
    pub modified: String,
}

impl Served {
    /// A file of so many bytes, which differ from place to place.
    pub fn new(len: usize) -> Self {
        let data = (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 17)) as u8);
        Served::file(data.collect())
    }

    /// A file with these bytes.
    pub fn file(data: Vec<u8>) -> Self {
        Served {
            data: Arc::new(data),
            etag: "\"one\"".into(),
            modified: "Sun, 06 Nov 1994 08:49:37 GMT".into(),
        }
    }

    /// What a good server says.
    pub fn answer(&self, asked: &Asked) -> Answer {
        let len = self.data.len();
        let all = Answer::status("200 OK")
            .with("Content-Length", Some(&len.to_string()))
            .and("ETag", Some(&self.etag))
            .and("Last-Modified", Some(&self.modified));
        if asked.method == "HEAD" {
            return all.and("Accept-Ranges", Some("bytes"));
        }
        if asked.header("if-match").is_some_and(|tag| tag != self.etag) {
            return Answer::status("412 Precondition Failed");
        }
        let Some((first, last)) = asked.range() else {
            return Answer {
                body: self.data.to_vec(),
                ..all
            };
        };
        if first >= len {
            return Answer::status("416 Range Not Satisfiable");
        }
        let last = last.min(len - 1);
        let body = self.data[first..=last].to_vec();
        let range = format!("bytes {first}-{last}/{len}");
        Answer {
            status: "HTTP/1.1 206 Partial Content".into(),
            body,
            ..all
        }
        .with("Content-Length", Some(&(last + 1 - first).to_string()))
        .and("Content-Range", Some(&range))
    }
}

/// What the server does with a request.
#[derive(Debug)]
pub enum Act {
    /// An answer, after which the connection serves the next request.
    Send(Answer),
    /// These bytes, and the end of the connection.
    Close(Vec<u8>),
    /// These bytes, and then nothing until the client hangs up.
    Stall(Vec<u8>),
    /// A byte, and another one, slowly.
    Drip(Vec<u8>),
    /// The first, and the second over and over until the client hangs up.
    Endless(&'static [u8], &'static [u8]),
}

type Behave = Box<dyn FnMut(&Asked) -> Act + Send>;

/// A server; its threads end with the process, or with their connection.
pub struct Server {
    /// Where the file is.
    pub url: String,
    gets: Arc<AtomicUsize>,
    behave: Arc<Mutex<Behave>>,
}

impl Server {
    /// A server that does with each request what a function says.
    pub fn new(behave: impl FnMut(&Asked) -> Act + Send + 'static) -> Server {
        Server::over(|stream| stream, behave)
    }

    /// A server that speaks over what is made of each connection. Its URL is that of one that speaks
    /// over the connection itself.
    pub fn over<S: Read + Write>(
        layer: impl Fn(TcpStream) -> S + Send + Sync + 'static,
        behave: impl FnMut(&Asked) -> Act + Send + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            url: format!("http://{}/disk", listener.local_addr().unwrap()),
            gets: Arc::default(),
            behave: Arc::new(Mutex::new(Box::new(behave))),
        };
        let (gets, behave) = (Arc::clone(&server.gets), Arc::clone(&server.behave));
        let layer = Arc::new(layer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (gets, behave) = (Arc::clone(&gets), Arc::clone(&behave));
                let layer = Arc::clone(&layer);
                thread::spawn(move || connection(layer(stream.unwrap()), &gets, &behave));
            }
        });
        server
    }

    /// A server that does all right.
    pub fn good(served: &Served) -> Server {
        let served = served.clone();
        Server::new(move |asked| Act::Send(served.answer(asked)))
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, behave: impl FnMut(&Asked) -> Act + Send + 'static) {
        *self.behave.lock().unwrap() = Box::new(behave);
    }

    /// The number of GETs so far.
    pub fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }
}

fn connection(stream: impl Read + Write, gets: &AtomicUsize, behave: &Mutex<Behave>) {
    let mut reader = BufReader::new(stream);
    while let Some(mut asked) = Asked::read(&mut reader) {
        let stream = reader.get_mut();
        let get = usize::from(asked.method == "GET");
        asked.number = gets.fetch_add(get, Ordering::SeqCst);
        let act = behave.lock().unwrap()(&asked);
        let done = match act {
            Act::Send(answer) => {
                let mut bytes = answer.bytes();
                if asked.method == "HEAD" {
                    bytes.truncate(bytes.len() - answer.body.len());
                }
                stream.write_all(&bytes)
            }
            Act::Close(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Act::Stall(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.read(&mut [0]);
                return;
            }
            Act::Drip(bytes) => bytes.iter().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(20));
                stream.write_all(&[*byte])
            }),
            Act::Endless(first, again) => {
                let _ = stream.write_all(first);
                while stream.write_all(again).is_ok() {}
                return;
            }
        };
        if done.is_err() {
            return;
        }
    }
}
