//! What an option has between commas: a first word, and keys with values.
//!
//! ```text
//!   disk.img,ro=on,serial=scratch        path=a,,b.img,size=1G
//! ```
//!
//! A comma that belongs to a value is doubled. What the keys mean is for whoever has the option to
//! say; that each is given once is seen to here.

use vmm::virtio::Device;
use vmm::virtio::transport::Rings;
use vmm::{Transport, VirtioDevice};

/// The keys of an option.
pub struct Syntax {
    /// All of them, for messages.
    pub known: &'static str,
    /// The key that the first word stands for.
    pub first: &'static str,
    /// Other names, and the keys that they are for.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// What a value of an option says.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields {
    /// What stands first without a key.
    pub first: Option<String>,
    /// Keys and values, each key once.
    pub pairs: Vec<(String, String)>,
}

impl Syntax {
    /// Takes a value apart.
    pub fn parse(&self, text: &str) -> Result<Fields, String> {
        let mut fields = Fields {
            first: None,
            pairs: Vec::new(),
        };
        for (number, part) in parts(text).into_iter().enumerate() {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) if number > 0 || is_key(key) => (self.key(key), value),
                _ if number == 0 => {
                    fields.first = Some(part);
                    continue;
                }
                _ => {
                    let known = self.known;
                    return Err(format!(
                        "{part:?} is no key with a value; known keys are {known}"
                    ));
                }
            };
            let as_first = fields.first.is_some() && key == self.first;
            if as_first || fields.pairs.iter().any(|(given, _)| given == key) {
                return Err(format!("{key} is given twice"));
            }
            fields.pairs.push((key.to_owned(), value.to_owned()));
        }
        Ok(fields)
    }

    /// Why a key is refused that the option does not have.
    pub fn unknown(&self, key: &str) -> String {
        format!("unknown key {key:?}; known keys are {}", self.known)
    }

    fn key<'k>(&self, name: &'k str) -> &'k str {
        let alias = self.aliases.iter().find(|(alias, _)| *alias == name);
        alias.map_or(name, |(_, key)| key)
    }
}

impl Fields {
    /// Whether a key is given.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(given, _)| given == key)
    }
}

/// What stands between the commas; two of them are one that belongs to the text.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// Whether the first part names a key; a path may well hold an equals sign.
fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Reads `on` or `off`.
pub fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key}={value}: it is on or off")),
    }
}

/// Reads a number within limits.
pub fn number(key: &str, value: &str, min: u16, max: u16) -> Result<u16, String> {
    let number = value.parse().ok().filter(|number| *number <= max);
    let number = number.filter(|number| *number >= min);
    number.ok_or_else(|| format!("{key}={value}: it is a number from {min} to {max}"))
}

/// The keys that all virtio devices have: `transport` and `ring`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attachment {
    transport: Option<Transport>,
    rings: Option<Rings>,
}

impl Attachment {
    /// Takes a key, if it is one of these.
    pub fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        let told = |error: String| format!("{key}={value}: {error}");
        let result = match key {
            "transport" => transport(value).map(|found| self.transport = Some(found)),
            "ring" => rings(value).map(|found| self.rings = Some(found)),
            _ => return None,
        };
        Some(result.map_err(told))
    }

    /// The device as it is to be attached: with `rings`, if it has not its own.
    pub fn attach(self, device: impl Device, rings: Rings) -> VirtioDevice {
        let device = VirtioDevice::from(device).rings(self.rings.unwrap_or(rings));
        match self.transport {
            Some(transport) => device.transport(transport),
            None => device,
        }
    }
}

/// Reads where virtio devices are to be.
pub fn transport(text: &str) -> Result<Transport, String> {
    match text {
        "mmio" => Ok(Transport::Mmio),
        "pci" => Ok(Transport::Pci),
        _ => Err("virtio devices are on mmio or pci".into()),
    }
}

/// Reads which rings virtio devices are to have.
pub fn rings(text: &str) -> Result<Rings, String> {
    match text {
        "split" => Ok(Rings::Split),
        "packed" => Ok(Rings::Packed),
        _ => Err("rings are split or packed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: Syntax = Syntax {
        known: "path (or file) and ro",
        first: "path",
        aliases: &[("file", "path")],
    };

    #[test]
    fn commas_separate_and_two_of_them_are_one() {
        for (text, first, pairs) in [
            ("", Some(""), vec![]),
            ("a", Some("a"), vec![]),
            ("a,,b,ro=on", Some("a,b"), vec![("ro", "on")]),
            ("file=x=y,,z,ro=", None, vec![("path", "x=y,z"), ("ro", "")]),
            ("/a=b", Some("/a=b"), vec![]),
            ("a,/b=c", Some("a"), vec![("/b", "c")]),
        ] {
            let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
            let pairs = pairs.into_iter().map(owned).collect();
            let first = first.map(str::to_owned);
            assert_eq!(SYNTAX.parse(text), Ok(Fields { first, pairs }), "{text}");
        }
    }

    #[test]
    fn a_key_is_given_once_under_all_its_names() {
        for (text, reason) in [
            ("a,path=b", "path is given twice"),
            ("file=a,path=b", "path is given twice"),
            ("a,ro=on,ro=on", "ro is given twice"),
            ("a,ro", "known keys are path (or file) and ro"),
            ("a,", "known keys are"),
        ] {
            let error = SYNTAX.parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(number("queues", "16", 1, 16), Ok(16));
        for text in ["", "0", "17", "-1", "+", "1.0", "99999999999"] {
            let error = number("queues", text, 1, 16).expect_err(text);
            assert_eq!(error, format!("queues={text}: it is a number from 1 to 16"));
        }
    }

    #[test]
    fn attachments_know_two_keys() {
        let mut attachment = Attachment::default();
        assert_eq!(attachment.set("serial", "x"), None);
        assert_eq!(attachment.set("ring", "split"), Some(Ok(())));
        assert_eq!(attachment.set("transport", "pci"), Some(Ok(())));
        let (transport, rings) = (Some(Transport::Pci), Some(Rings::Split));
        assert_eq!(attachment, Attachment { transport, rings });
        for (key, reason) in [("ring", "split or packed"), ("transport", "mmio or pci")] {
            let error = attachment.set(key, "x").unwrap().unwrap_err();
            assert!(error.starts_with(&format!("{key}=x: ")) && error.contains(reason));
        }
    }
}
