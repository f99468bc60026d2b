//! What users write as the values of options, as types.

use std::fmt;
use std::path::PathBuf;
use vmm::MAX_CPUS;

/// A number of bytes: `512` is MiB, `512K`, `512M`, `2G` and `1T` say it themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteSize {
    text: String,
    bytes: u64,
}

impl ByteSize {
    /// The number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a size. Whole decimal numbers only, and what does not fit 64 bits is an error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rule =
            "a size is a whole number of MiB, or has one of K, M, G, T behind it, as in 512M or 2G";
        let (digits, shift) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
            Some(digits) if text.ends_with('K') => (digits, 10),
            Some(digits) if text.ends_with('G') => (digits, 30),
            Some(digits) if text.ends_with('T') => (digits, 40),
            Some(digits) => (digits, 20),
            None => (text, 20),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(rule.into());
        }
        let number: u64 = digits
            .parse()
            .map_err(|_| "more than 2^64 bytes".to_string())?;
        let bytes = number
            .checked_mul(1 << shift)
            .ok_or("more than 2^64 bytes")?;
        Ok(ByteSize {
            text: text.into(),
            bytes,
        })
    }
}

impl fmt::Display for ByteSize {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a number of vCPUs; whether there can be as many is for the machine to say.
pub fn cpus(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("the number of vCPUs is a whole number, 1 to {MAX_CPUS}"))
}

/// Reads a duration.
pub fn seconds(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "a whole number of seconds is wanted".into())
}

/// Where a console's bytes come from and go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// This process's standard input and output.
    Stdio,
    /// A new pseudo-terminal; the path becomes a symbolic link to it.
    Pty(PathBuf),
    /// Output only, appended to a file.
    File(PathBuf),
    /// Nowhere: the device is left out.
    Off,
}

impl Stream {
    /// Reads the value of `-console` or `-serial`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = |path: &str| match path {
            "" => Err("a path is missing behind the ="),
            _ => Ok(PathBuf::from(path)),
        };
        Ok(match text.split_once('=') {
            None if text == "stdio" => Stream::Stdio,
            None if text == "off" => Stream::Off,
            Some(("pty", link)) => Stream::Pty(path(link)?),
            Some(("file", file)) => Stream::File(path(file)?),
            _ => return Err("known are stdio, pty=LINK, file=PATH and off".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mib_or_carry_their_unit() {
        for (text, bytes) in [
            ("1", 1 << 20),
            ("4K", 4096),
            ("64M", 64 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(
                ByteSize::parse(text).map(|size| size.bytes()),
                Ok(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1e9",
            "0x10",
            " 64M",
            "64M ",
            "64MB",
            "64m",
            "1.5G",
            "16E",
            "99999999T",
            "18446744073709551615",
            "٣",
        ] {
            assert!(ByteSize::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn streams_are_read() {
        assert_eq!(Stream::parse("stdio"), Ok(Stream::Stdio));
        assert_eq!(Stream::parse("off"), Ok(Stream::Off));
        assert_eq!(Stream::parse("pty=a=b"), Ok(Stream::Pty("a=b".into())));
        assert_eq!(Stream::parse("file=log"), Ok(Stream::File("log".into())));
        for text in ["", "stdin", "pty", "pty=", "file=", "stdio=x", "off="] {
            assert!(Stream::parse(text).is_err(), "{text:?}");
        }
    }
}
