//! Requests to the server: each of them whole, checked and in time, or a [`Failure`].

use super::version::{Part, Version, announced_size};
use super::{Deadline, Failure, Scale, is_secure};
use rustls::CertificateError::UnknownIssuer;
use rustls::Error as TlsError;
use std::io::Read;
use std::thread;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

/// How often a request is made again that may go better then.
const RETRIES: u32 = 3;
/// Which part of the time that is left a server may be silent: so there is some for another try.
const SILENCE: u32 = 3;
/// How large the header of an answer may be.
const HEADER_LIMIT: usize = 64 << 10;
const REDIRECTS: u32 = 3;

/// Who asks for one file.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
    pub scale: Scale,
}

/// How one try ended that was no success.
enum Miss {
    /// It may go better next time.
    Again(Failure),
    /// It would not.
    Final(Failure),
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Miss::Final(failure)
    }
}

/// How a file at this URL is asked for, of a server that one of these authorities knows.
pub(super) fn config(url: &str, roots: RootCerts) -> Config {
    Agent::config_builder()
        // No redirect leaves TLS. Other schemes than these two are unknown to the library.
        .https_only(is_secure(url))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .max_redirects(REDIRECTS)
        .max_response_header_size(HEADER_LIMIT)
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("hype/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Client {
    /// A client for a URL. Nothing is asked yet.
    pub fn new(agent: Agent, url: &str, scale: Scale) -> Self {
        Client {
            agent,
            url: url.to_owned(),
            scale,
        }
    }

    /// How large the server says the file is, if it does so without sending it.
    pub fn size(&self, until: &Deadline) -> Result<Option<u64>, Failure> {
        self.retrying(until, |left| {
            let request = in_time(self.agent.head(&self.url), left);
            let answer = request.call().map_err(miss)?;
            match answer.status().as_u16() {
                200 => Ok(announced_size(answer.headers())?),
                status @ 500.. if status != 501 => Err(Miss::Again(Failure::Status(status))),
                // It may be that only HEAD is not allowed: GET will tell.
                _ => Ok(None),
            }
        })
    }

    /// Gets the first block, and the version that all others have to belong to.
    pub fn first(&self, bytes: &mut Vec<u8>, until: &Deadline) -> Result<Version, Failure> {
        let version = self.get(None, 0, bytes, until)?;
        version.check_validators()?;
        Ok(version)
    }

    /// Gets the block at `first`.
    pub fn part(
        &self,
        version: &Version,
        first: u64,
        bytes: &mut Vec<u8>,
        until: &Deadline,
    ) -> Result<(), Failure> {
        self.get(Some(version), first, bytes, until).map(|_| ())
    }

    fn get(
        &self,
        version: Option<&Version>,
        first: u64,
        bytes: &mut Vec<u8>,
        until: &Deadline,
    ) -> Result<Version, Failure> {
        let last = first.saturating_add(self.scale.block - 1);
        let last = version.map_or(last, |version| last.min(version.size.saturating_sub(1)));
        self.retrying(until, |left| {
            let mut request = in_time(self.agent.get(&self.url), left);
            request = request.header("Range", format!("bytes={first}-{last}"));
            if let Some((name, value)) = version.and_then(Version::condition) {
                request = request.header(name, value);
            }
            let answer = request.call().map_err(miss)?;
            let part = part(&answer, version.is_some(), first, last)?;
            let now = Version::of(answer.headers(), part.size);
            if let Some(version) = version {
                version.check(&now)?;
            }
            read_body(answer.into_body(), part.len(), bytes)?;
            Ok(now)
        })
    }

    /// Tries until it goes well or there is no point in it, with pauses, and in time.
    fn retrying<T>(
        &self,
        until: &Deadline,
        mut attempt: impl FnMut(Duration) -> Result<T, Miss>,
    ) -> Result<T, Failure> {
        let mut retries = 0;
        loop {
            match attempt(until.left()?) {
                Ok(value) => return Ok(value),
                Err(Miss::Final(failure)) => return Err(failure),
                Err(Miss::Again(failure)) => {
                    let pause = self.scale.back_off * (1 << retries);
                    // Who has no time for another try reports what the last one came to.
                    let in_time = until.left().is_ok_and(|left| left > pause);
                    if retries == RETRIES || !in_time {
                        return Err(failure);
                    }
                    log::debug!("trying again in {pause:?}: {failure}");
                    thread::sleep(pause);
                    retries += 1;
                }
            }
        }
    }
}

/// Gives a request the time that is left.
fn in_time(request: RequestBuilder<WithoutBody>, left: Duration) -> RequestBuilder<WithoutBody> {
    let silence = Some(left / SILENCE);
    let config = request.config().timeout_global(Some(left));
    let config = config
        .timeout_connect(silence)
        .timeout_per_read(silence)
        .timeout_per_write(silence);
    config.build()
}

/// The part that an answer has, if it is one to be had.
fn part(answer: &Response<Body>, opened: bool, first: u64, last: u64) -> Result<Part, Miss> {
    match answer.status().as_u16() {
        206 => Ok(Part::of(answer.headers(), first, last)?),
        200 => Err(Failure::NoRanges.into()),
        412 if opened => Err(Failure::Changed("the condition failed".to_owned()).into()),
        416 if opened => Err(Failure::Changed("it is shorter".to_owned()).into()),
        status @ (408 | 429 | 500..) => Err(Miss::Again(Failure::Status(status))),
        status => Err(Failure::Status(status).into()),
    }
}

/// Reads a body that has `len` bytes.
fn read_body(body: Body, len: u64, bytes: &mut Vec<u8>) -> Result<(), Miss> {
    let length = |got| Failure::Length { expected: len, got };
    if let Some(got) = body.content_length().filter(|got| *got != len) {
        return Err(length(got).into());
    }
    bytes.clear();
    // One byte more shows a body that is too long, and otherwise that this is the end, after
    // which the connection can serve the next request.
    let mut reader = body.into_reader().take(len + 1);
    reader
        .read_to_end(bytes)
        .map_err(|error| miss(ureq::Error::from(error)))?;
    match bytes.len() as u64 {
        got if got == len => Ok(()),
        // A connection that is lost looks like an end where nothing says how long the body is.
        got if got < len => Err(Miss::Again(length(got))),
        got => Err(length(got).into()),
    }
}

/// Which of the library's errors may be gone next time: those of the connection.
fn miss(error: ureq::Error) -> Miss {
    if let Some(error) = tls_error(&error) {
        return Miss::Final(match error {
            TlsError::InvalidCertificate(UnknownIssuer) => Failure::UnknownAuthority,
            TlsError::InvalidMessage(_) => Failure::NotTls,
            error => Failure::Tls(error.to_string()),
        });
    }
    let failure = Failure::Transfer(error.to_string());
    match error {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::HostNotFound => Miss::Again(failure),
        _ => Miss::Final(failure),
    }
}

/// What the TLS library has against the connection. That comes as an I/O error, like a connection
/// that is lost, and nothing but the type tells the two apart.
fn tls_error(error: &ureq::Error) -> Option<&TlsError> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
