//! A web server without a socket: what answers say is up to whoever plays it.
//!
//! The HTTP library takes this for its connections. Nothing waits: where a server would be silent,
//! the time is over at once.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

/// The library's buffers, which are allocated for each connection.
const INPUT: usize = 16 << 10;
const OUTPUT: usize = 1 << 10;
/// Nobody who keeps to the bounds of a disk takes more than this of what never ends.
const ENDLESS: usize = 256 << 10;

/// What comes back for a request.
pub struct Answer {
    /// At first.
    pub bytes: Vec<u8>,
    /// And then.
    pub then: Then,
}

/// How an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Not at all: the connection waits for the next request.
    Wait,
    /// The connection ends.
    Close,
    /// With this byte, over and over.
    Endless(u8),
}

/// Who plays the server.
pub trait Serve: Send + 'static {
    /// Answers a request, which is a whole header.
    fn answer(&mut self, request: &str) -> Answer;
}

/// A server that is shared with its connections.
pub struct Web<S>(Arc<Mutex<S>>);

impl<S> Clone for Web<S> {
    fn clone(&self) -> Self {
        Web(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Web<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Web")
    }
}

impl<S: Serve> Web<S> {
    /// A web of this one server: all addresses are its own.
    pub fn new(server: S) -> Self {
        Web(Arc::new(Mutex::new(server)))
    }

    /// Who asks there.
    pub fn agent(&self, config: Config) -> Agent {
        Agent::with_parts(config, self.clone(), Nowhere)
    }

    /// The server.
    pub fn server(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives every name an address that nobody connects to.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut all = self.empty();
        all.push(SocketAddr::from(([127, 0, 0, 1], 80)));
        Ok(all)
    }
}

impl<S: Serve> Connector for Web<S> {
    type Out = Connection<S>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Connection<S>>, Error> {
        Ok(Some(Connection {
            web: self.clone(),
            buffers: LazyBuffers::new(INPUT, OUTPUT),
            request: Vec::new(),
            answer: Vec::new(),
            sent: 0,
            then: Then::Wait,
        }))
    }
}

/// One connection.
pub struct Connection<S> {
    web: Web<S>,
    buffers: LazyBuffers,
    /// What there is of the next request.
    request: Vec<u8>,
    answer: Vec<u8>,
    /// How much of the answer was taken.
    sent: usize,
    then: Then,
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl<S: Serve> Transport for Connection<S> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), Error> {
        self.request.extend(&self.buffers.output()[..amount]);
        if self.request.ends_with(b"\r\n\r\n") {
            let request = String::from_utf8_lossy(&self.request);
            let answer = self.web.server().answer(&request);
            self.request.clear();
            self.answer.drain(..self.sent);
            self.sent = 0;
            self.answer.extend(answer.bytes);
            self.then = answer.then;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let room = self.buffers.input_append_buf();
        let rest = self.answer.get(self.sent..).unwrap_or_default();
        let count = match self.then {
            Then::Endless(byte) if rest.is_empty() => {
                room.fill(byte);
                room.len()
            }
            Then::Wait if rest.is_empty() && !room.is_empty() => {
                return Err(Error::Timeout(timeout.reason));
            }
            _ => {
                let count = rest.len().min(room.len());
                room[..count].copy_from_slice(&rest[..count]);
                count
            }
        };
        self.sent += count;
        if self.sent > ENDLESS {
            // The library reads what comes with a redirect for as long as there is time.
            assert!(redirects(&self.answer), "what never ends is read on and on");
            return Err(Error::Timeout(timeout.reason));
        }
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // What comes before it was asked for is no answer.
        self.then == Then::Wait && self.sent == self.answer.len()
    }
}

/// Whether any of these answers has a status that redirects.
fn redirects(answers: &[u8]) -> bool {
    let mut statuses = answers.windows(10);
    statuses.any(|line| line.starts_with(b"HTTP/1.") && line.ends_with(b" 3"))
}
