//! A disk on a web server: read in ranges (RFC 9110, 14), as the guest asks for them.
//!
//! # The problem
//!
//! A server is far away, may answer with anything, and may have another file under the same name
//! tomorrow. The guest must get each byte right or an I/O error, and never wait without end.
//!
//! # The design
//!
//! ```text
//!   read --> Cache          blocks of 256 KiB, the last 32 that were used
//!              | a miss
//!            Client         GET with Range, tried again, until a deadline
//!              |
//!            Version        is this the part that was asked for, of the file that was opened?
//! ```
//!
//! * Opening asks for the size (`HEAD`, which some servers don't have) and gets the first block,
//!   which also shows that the server knows ranges.
//! * A file without an `ETag` and a `Last-Modified` is refused: one that changes could not be told
//!   from one that does not. Each request has the condition that the file is still the same
//!   (`If-Match`, `If-Unmodified-Since`), and each answer is compared as well, for not every
//!   server knows conditions. Once a file has changed, all reads fail, cached or not: what
//!   was read belongs to a file that is no more.
//! * What an answer claims to be is checked before its body is read, its body has to have exactly
//!   the length that was asked for, and a block is in the cache when all of it is there.
//! * A read has one deadline for all of its requests, retries and pauses. It is below the time
//!   that a worker has to stop ([`STOP_PATIENCE`](crate::worker::STOP_PATIENCE)), for which
//!   the server does not matter then. What came in time stays in the cache for the next try.
//! * `https` servers are who an authority says they are: one of those that the library knows, or
//!   one of a file (`authorities.rs`). Nothing switches that off, and no redirect leaves `https`.
//!
//! # What it does not do
//!
//! Write. Fetch what was not asked for, but for the rest of a block: the guest's kernel
//! reads ahead. Fetch several blocks at once, but for several queues, which may even fetch the same
//! one. Compression, and credentials.

mod authorities;
mod cache;
mod client;
#[cfg(test)]
mod tests;
mod version;

use super::{BlockStorage, Error, Properties, SECTOR};
use cache::Cache;
use client::Client;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::RootCerts;
use version::Version;
use vm_memory::VolatileSlice;

/// How much of a file is asked for and kept, and how soon again. Tests have less of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// What is asked for at once.
    pub(crate) block: u64,
    /// How many blocks are kept.
    pub(crate) blocks: usize,
    /// How long to wait before a request is made again; twice as long before each other time.
    pub(crate) back_off: Duration,
}

/// What is asked for at once.
const BLOCK: u64 = 256 << 10;

/// What users have.
const SCALE: Scale = Scale {
    block: BLOCK,
    blocks: 32,
    back_off: Duration::from_millis(50),
};

/// How long a read may take if nothing else is said.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How long opening may take if nothing else is said. Nobody waits for that but the user.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// What is wrong with a server, or with its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Not an address of a web server.
    #[error("it does not begin with http:// or https://")]
    Scheme,
    /// Authorities were given for a server that has no certificate.
    #[error("it does not begin with https://, so {ca:?} can't say who the server is")]
    NoTls {
        /// The file with the authorities' certificates.
        ca: PathBuf,
    },
    /// The file with the authorities' certificates can't be read.
    #[error("cannot read certificates from {ca:?}")]
    Authorities {
        /// Which file.
        ca: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not the certificates of authorities.
    #[error("cannot use {ca:?}, where authorities' certificates should be: {why}")]
    BadAuthorities {
        /// Which file.
        ca: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Nobody who is trusted says who the server is.
    #[error("the server's certificate is not from an authority that is trusted")]
    UnknownAuthority,
    /// It is no server for TLS, or not at this port.
    #[error("the server does not speak TLS")]
    NotTls,
    /// There is no secure connection; in the TLS library's words.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// There is no answer, or none that is whole; in the HTTP library's words.
    #[error("no whole answer: {0}")]
    Transfer(String),
    /// The answer is another one than that a part of the file follows.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// The answer is the whole file.
    #[error("the server sends files as a whole only: it ignores Range")]
    NoRanges,
    /// The answer does not say, or not in a way that can be understood, which part it is.
    #[error("bytes {first}-{last} were asked for, and the answer has Content-Range {got:?}")]
    Range {
        /// Of the part that was asked for.
        first: u64,
        /// Of the part that was asked for.
        last: u64,
        /// As the server has it; empty if it has none.
        got: String,
    },
    /// The body is not as long as its part.
    #[error("a body of {expected} bytes was expected, and {got} came")]
    Length {
        /// The length of the part.
        expected: u64,
        /// What the server said or sent. More than expected may be more than this.
        got: u64,
    },
    /// The body is compressed, though that was not asked for.
    #[error("the server sends the file with Content-Encoding {0:?}")]
    Encoding(String),
    /// The file as a whole has another size than its parts say.
    #[error("the server says that the file has {0} bytes, and then that it has {1}")]
    Sizes(u64, u64),
    /// A change could not be noticed.
    #[error("the server tells neither an ETag nor a Last-Modified, so changes can't be noticed")]
    NoValidator,
    /// It is not the file any more that was opened.
    #[error("the file changed on the server: {0}")]
    Changed(String),
    /// There was no time left for another try.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Deadline(_) => io::Error::new(io::ErrorKind::TimedOut, failure),
            _ => io::Error::other(failure),
        }
    }
}

/// How to open a disk on a web server.
#[derive(Debug, Clone)]
pub struct Options {
    patience: Duration,
    open_patience: Duration,
    ca: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            patience: PATIENCE,
            open_patience: OPEN_PATIENCE,
            ca: None,
        }
    }
}

impl Options {
    /// Sets how long one read may take with all its retries before it is an I/O error: 2.5 s if
    /// this is not called. With more than a worker has to stop
    /// ([`STOP_PATIENCE`](crate::worker::STOP_PATIENCE)), a server that does not answer can
    /// make a pause fail and a reset end the machine.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets how long opening may take: 10 s if this is not called.
    #[must_use]
    pub fn open_patience(mut self, patience: Duration) -> Self {
        self.open_patience = patience;
        self
    }

    /// Sets the file with the certificates (PEM) of the authorities that an `https` server may
    /// have its certificate from, and of no others: those that Mozilla trusts if this is not
    /// called. The file is read when the disk is opened.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Asks the server for the file.
    pub fn open(&self, url: &str) -> Result<HttpDisk, Error> {
        self.open_by(url, SCALE, Agent::new_with_config)
    }

    /// Asks the server for the file by the agent that is made of a disk's configuration.
    pub(crate) fn open_by(
        &self,
        url: &str,
        scale: Scale,
        agent: impl FnOnce(Config) -> Agent,
    ) -> Result<HttpDisk, Error> {
        let failed = |source| Error::Http {
            url: url.to_owned(),
            source: Box::new(source),
        };
        if !is_url(url) {
            return Err(failed(Failure::Scheme));
        }
        let roots = match &self.ca {
            Some(ca) if !is_secure(url) => return Err(failed(Failure::NoTls { ca: ca.clone() })),
            Some(ca) => authorities::read(ca).map_err(failed)?,
            None => RootCerts::WebPki,
        };
        let client = Client::new(agent(client::config(url, roots)), url, scale);
        let until = Deadline::after(self.open_patience);
        let announced = client.size(&until).map_err(failed)?;
        if let Some(size) = announced.filter(|size| *size < SECTOR) {
            // Of nothing there is no first block to ask for.
            return Err(too_small(url, size));
        }
        let mut first = Vec::new();
        let version = client.first(&mut first, &until).map_err(failed)?;
        if let Some(size) = announced.filter(|size| *size != version.size) {
            return Err(failed(Failure::Sizes(size, version.size)));
        }
        if version.size < SECTOR {
            return Err(too_small(url, version.size));
        }
        let mut cache = Cache::new(scale.blocks);
        cache.put(0, first);
        Ok(HttpDisk {
            name: name(url),
            client,
            version,
            patience: self.patience,
            state: Mutex::new(State {
                cache,
                changed: None,
            }),
        })
    }
}

fn too_small(url: &str, size: u64) -> Error {
    Error::Small {
        path: url.into(),
        size,
        block: SECTOR as u32,
    }
}

/// Whether this is the address of something on a web server.
pub fn is_url(text: &str) -> bool {
    has_scheme(text, "http") || is_secure(text)
}

/// Whether this is the address of something on a web server that has to show who it is.
pub fn is_secure(text: &str) -> bool {
    has_scheme(text, "https")
}

fn has_scheme(text: &str, wanted: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(wanted))
}

/// The address as it may be logged: without what may be secret, a user before the host and a
/// query behind the path.
fn name(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// Until when something has to be done.
struct Deadline {
    patience: Duration,
    at: Instant,
}

impl Deadline {
    fn after(patience: Duration) -> Self {
        let at = Instant::now() + patience;
        Deadline { patience, at }
    }

    /// The time that is left.
    fn left(&self) -> Result<Duration, Failure> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Deadline(self.patience));
        }
        Ok(left)
    }
}

/// A disk on a web server, which can only be read.
#[derive(Debug)]
pub struct HttpDisk {
    name: String,
    client: Client,
    version: Version,
    patience: Duration,
    /// Not held while the server is asked: no read waits for another one's answer, which could take
    /// as long again as its own may.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cache: Cache,
    /// The file is not the one that was opened: how that was noticed.
    changed: Option<String>,
}

impl HttpDisk {
    /// Asks the server for the file; for all else there is [`options`](HttpDisk::options).
    pub fn open(url: &str) -> Result<HttpDisk, Error> {
        HttpDisk::options().open(url)
    }

    /// How to open one.
    pub fn options() -> Options {
        Options::default()
    }

    /// Fills `buffers`.
    fn read(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> Result<usize, Failure> {
        let until = Deadline::after(self.patience);
        let mut done = 0;
        for buffer in buffers {
            let mut rest = *buffer;
            while !rest.is_empty() {
                let count = self.copy(offset.saturating_add(done as u64), &rest, &until)?;
                if count == 0 {
                    // Behind the end, where no request is.
                    return Ok(done);
                }
                done += count;
                match rest.offset(count) {
                    Ok(left) => rest = left,
                    Err(_) => break,
                }
            }
        }
        Ok(done)
    }

    /// Copies what the block at `at` has from there on, as much as there is room for: from the
    /// cache, and into that from the server.
    fn copy(&self, at: u64, to: &VolatileSlice<'_>, until: &Deadline) -> Result<usize, Failure> {
        let block = self.client.scale.block;
        let number = at / block;
        let first = number.saturating_mul(block);
        if first >= self.version.size {
            return Ok(0);
        }
        let mut state = self.state()?;
        if !state.cache.has(number) {
            let mut bytes = state.cache.vacate();
            drop(state);
            self.client.part(&self.version, first, &mut bytes, until)?;
            state = self.state()?;
            state.cache.put(number, bytes);
        }
        let bytes = state.cache.get(number).unwrap_or_default();
        let bytes = bytes.get((at - first) as usize..).unwrap_or_default();
        let count = bytes.len().min(to.len());
        to.copy_from(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// The cache, as long as it is that of the file on the server.
    fn state(&self) -> Result<MutexGuard<'_, State>, Failure> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.changed {
            Some(changed) => Err(Failure::Changed(changed.clone())),
            None => Ok(state),
        }
    }

    /// The file on the server is another one now: nobody will be given any more of this one.
    fn give_up(&self, how: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.changed.is_none() {
            log::warn!(
                "{}: changed on the server ({how}): it can't be read any more",
                self.name
            );
            state.changed = Some(how.to_owned());
            state.cache = Cache::new(0);
        }
    }
}

impl BlockStorage for HttpDisk {
    fn properties(&self) -> Properties {
        Properties {
            read_only: true,
            ..Properties::new(self.version.size)
        }
    }

    fn read_vectored_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let result = self.read(buffers, offset);
        if let Err(Failure::Changed(how)) = &result {
            self.give_up(how);
        }
        Ok(result?)
    }

    fn write_vectored_at(&self, _buffers: &[VolatileSlice<'_>], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        // There is never anything that was written.
        Ok(())
    }
}
