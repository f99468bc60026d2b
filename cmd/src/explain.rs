//! The library's errors in the words of the command line: which option, which value, why.
//!
//! The library speaks of vCPUs and payloads; who typed `-mem 5K` wants to read `-mem 5K`. What
//! is about no option is told as the library says it.

use crate::say::chain;
use crate::spec::ByteSize;
use std::ffi::OsString;
use vmm::loader::{self, ImageError, Role};
use vmm::{Error, Problem, kvm};

/// The values of the options that the machine may find fault with.
pub struct Values {
    pub kernel: OsString,
    pub initrd: OsString,
    pub mem: ByteSize,
}

impl Values {
    /// One line for each thing that is wrong.
    pub fn explain(&self, error: &Error) -> Vec<String> {
        match error {
            Error::Config(problems) => problems.iter().map(|each| self.problem(each)).collect(),
            Error::Memory(error) => vec![self.memory(error)],
            Error::Kvm {
                source: error @ kvm::Error::Slot { .. },
                ..
            } => vec![self.memory(error)],
            Error::Load(error) => vec![match error.downcast_ref() {
                Some(error) => self.payload(error),
                None => chain(error.as_ref()),
            }],
            error => vec![chain(error)],
        }
    }

    fn problem(&self, problem: &Problem) -> String {
        match problem {
            Problem::Cpus { cpus, max } => {
                format!("-cpus {cpus}: the number of vCPUs must be 1 to {max}")
            }
            Problem::Memory(error) => self.memory(error),
            Problem::Payload(error) => self.payload(error),
            other => chain(other),
        }
    }

    fn memory(&self, error: &(dyn std::error::Error + 'static)) -> String {
        format!("-mem {}: {}", self.mem, chain(error))
    }

    fn payload(&self, error: &loader::Error) -> String {
        use loader::Error as E;
        match error {
            E::Open { role, source, .. } => {
                format!("{}: cannot open it: {source}", self.file(*role))
            }
            E::NotRegular { role, kind, .. } => {
                format!("{}: it is {kind}, not a regular file", self.file(*role))
            }
            E::Image { role, source, .. } => {
                let more = match source {
                    ImageError::NoRoom { .. } => " (see -mem)",
                    _ => "",
                };
                format!("{}: {}{more}", self.file(*role), chain(source))
            }
            E::CommandLineLength { .. } | E::CommandLineByte { .. } => {
                format!("-cmdline: {}", chain(error))
            }
            E::NoLowMemory { .. } | E::PageTables { .. } => self.memory(error),
            other => chain(other),
        }
    }

    fn file(&self, role: Role) -> String {
        match role {
            Role::Kernel => format!("-kernel {:?}", self.kernel),
            Role::Initrd => format!("-initrd {:?}", self.initrd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::Config;
    use vmm::loader::Payload;

    #[test]
    fn every_problem_is_told_with_its_option_and_value() {
        let values = Values {
            kernel: "/nowhere/bzImage".into(),
            initrd: "/".into(),
            mem: ByteSize::parse("5K").unwrap(),
        };
        let payload = Payload::linux("/nowhere/bzImage")
            .initrd("/")
            .cmdline("a\nb");
        let config = Config {
            cpus: 0,
            memory: values.mem.bytes(),
            payload: Some(payload),
            ..Config::default()
        };

        let lines = values.explain(&config.validate().unwrap_err().into());

        let expected = [
            "-cpus 0: the number of vCPUs must be 1 to 254",
            "-mem 5K: 5120 bytes of memory are too few",
            "-cmdline: command line: byte 0x0a at offset 1",
            "-kernel \"/nowhere/bzImage\": cannot open it: No such file",
            "-initrd \"/\": it is a directory, not a regular file",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for beginning in expected {
            let found = lines.iter().any(|line| line.starts_with(beginning));
            assert!(found, "{beginning} is not in {lines:#?}");
        }
    }
}
