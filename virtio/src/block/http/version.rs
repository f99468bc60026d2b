//! What tells one version of a file from another, and the parts of a file that answers carry.

use super::Failure;
use ureq::http::HeaderMap;
use ureq::http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED,
};

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// The number of bytes.
    pub size: u64,
    etag: Option<String>,
    modified: Option<String>,
}

impl Version {
    /// The version that a part belongs to.
    pub fn of(headers: &HeaderMap, size: u64) -> Self {
        Version {
            size,
            etag: text(headers, ETAG.as_str()),
            modified: text(headers, LAST_MODIFIED.as_str()),
        }
    }

    /// Whether a change could be noticed. The size alone does not tell.
    pub fn check_validators(&self) -> Result<(), Failure> {
        match (&self.etag, &self.modified) {
            (None, None) => Err(Failure::NoValidator),
            _ => Ok(()),
        }
    }

    /// The header that asks a server to answer only if the file is still this one. `If-Match`
    /// knows no weak tags (RFC 9110, 13.1.1).
    pub fn condition(&self) -> Option<(&'static str, &str)> {
        let strong = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        match (strong, &self.modified) {
            (Some(tag), _) => Some(("If-Match", tag)),
            (None, Some(date)) => Some(("If-Unmodified-Since", date)),
            (None, None) => None,
        }
    }

    /// Compares with what a later answer says. One that does not repeat a validator has lost it:
    /// then it can't be known.
    pub fn check(&self, now: &Version) -> Result<(), Failure> {
        let changed = |what: &str, before: &str, now: &str| {
            let how = format!("its {what} was {before}, and is {now}");
            Err(Failure::Changed(how))
        };
        if self.size != now.size {
            return changed("size", &self.size.to_string(), &now.size.to_string());
        }
        if self.etag != now.etag {
            return changed("ETag", &shown(&self.etag), &shown(&now.etag));
        }
        if self.modified != now.modified {
            let (before, now) = (shown(&self.modified), shown(&now.modified));
            return changed("Last-Modified", &before, &now);
        }
        Ok(())
    }
}

/// The size of a file that the answer to a `HEAD` describes; none if it does not tell.
pub(super) fn announced_size(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    if text(headers, ACCEPT_RANGES.as_str()).is_some_and(|unit| unit == "none") {
        return Err(Failure::NoRanges);
    }
    check_encoding(headers)?;
    Ok(text(headers, CONTENT_LENGTH.as_str()).and_then(|size| decimal(&size)))
}

/// The part of a file that an answer has, as `Content-Range: bytes FIRST-LAST/SIZE` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub first: u64,
    pub last: u64,
    pub size: u64,
}

impl Part {
    /// Reads the header; none if it is not whole, or makes no sense.
    pub fn parse(text: &str) -> Option<Part> {
        let (unit, rest) = text.split_once(' ')?;
        let (range, size) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let part = Part {
            first: decimal(first)?,
            last: decimal(last)?,
            size: decimal(size)?,
        };
        let sensible = part.first <= part.last && part.last < part.size;
        (unit.eq_ignore_ascii_case("bytes") && sensible).then_some(part)
    }

    /// The part that an answer has, which has to be the one from `first` to `last` or to the end of
    /// the file.
    pub fn of(headers: &HeaderMap, first: u64, last: u64) -> Result<Part, Failure> {
        check_encoding(headers)?;
        let got = text(headers, CONTENT_RANGE.as_str()).unwrap_or_default();
        match Part::parse(&got) {
            Some(part) if part.first == first && part.last == last.min(part.size - 1) => Ok(part),
            _ => Err(Failure::Range {
                first,
                last,
                got: short(&got),
            }),
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.last - self.first + 1
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    match text(headers, CONTENT_ENCODING.as_str()) {
        Some(encoding) if encoding != "identity" => Err(Failure::Encoding(short(&encoding))),
        _ => Ok(()),
    }
}

/// The value of a header; all of them if there are several, so that they don't pass for one.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
    let values: Vec<String> = values.collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// As much of what a server says as belongs in a message.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A validator for a message: without characters that a terminal would obey.
fn shown(validator: &Option<String>) -> String {
    match validator {
        Some(text) => format!("{:?}", short(text)),
        None => "missing".to_owned(),
    }
}

/// A number of digits alone: `parse` would also take a sign.
fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read() {
        let part = Part::parse("bytes 0-511/1024").unwrap();
        assert_eq!((part.first, part.last, part.size), (0, 511, 1024));
        assert_eq!(part.len(), 512);
        assert!(Part::parse("Bytes 5-5/6").is_some());
    }

    #[test]
    fn a_content_range_that_makes_no_sense_is_none() {
        for text in [
            "",
            "bytes",
            "bytes 0-1",
            "bytes 0-1/*",
            "bytes */10",
            "bytes 2-1/10",
            "bytes 0-10/10",
            "bytes +0-1/10",
            "bytes -1-1/10",
            "bytes 0-1/-10",
            "bytes 0-1/18446744073709551616",
            "octets 0-1/10",
            "bytes 0-1/10, bytes 2-3/10",
        ] {
            assert_eq!(Part::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_message_has_little_of_what_a_server_says_and_nothing_that_a_terminal_obeys() {
        let version = |etag: &str| Version {
            size: 1,
            etag: Some(etag.to_owned()),
            modified: None,
        };
        let now = version(&"\u{9b}31m".repeat(1000));
        let message = version("a").check(&now).unwrap_err().to_string();
        assert!(
            message.len() < 300 && !message.contains('\u{9b}'),
            "{message}"
        );
    }

    #[test]
    fn the_strongest_condition_is_asked_for() {
        for (etag, modified, condition) in [
            (Some("\"a\""), Some("then"), Some(("If-Match", "\"a\""))),
            (
                Some("W/\"a\""),
                Some("then"),
                Some(("If-Unmodified-Since", "then")),
            ),
            (Some("W/\"a\""), None, None),
        ] {
            let version = Version {
                size: 1,
                etag: etag.map(str::to_owned),
                modified: modified.map(str::to_owned),
            };
            assert_eq!(version.condition(), condition);
        }
    }
}
