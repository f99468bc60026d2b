//! The command line: its options, and the single dash in front of them.
//!
//! clap does the parsing, so that help, completions and the man page come from one
//! description. It knows long options by two dashes only; [`double_dashes`] rewrites the one
//! dash that this command has always accepted before clap looks.

use crate::spec::{ByteSize, Stream};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The end of `hype --help`.
const AFTER_HELP: &str = "\
Keys on a terminal: Ctrl-A x quits, Ctrl-A h lists the others.
SIGTERM and SIGINT press the guest's power button; a second one stops it at once.

Exit status: 0 power-off, 1 error, 2 reboot, 3 triple fault, 34 guest panic, 64 bad usage.
HYPE_LOG=error|warn|info|debug|trace sets what hype tells about itself (default: warn).";

/// Boots Linux in a KVM virtual machine.
#[derive(Debug, Parser)]
#[command(
    name = "hype",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// What to do instead of running a machine.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The machine to run.
    #[command(flatten)]
    pub machine: Machine,
}

/// What to do instead of running a machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell whether KVM is here, may be used, and runs unmodified Linux
    Check {
        /// Say nothing; the exit status tells (0: Linux runs here)
        #[arg(long, short)]
        quiet: bool,
    },
    /// Print a shell's completion script
    Completions {
        /// Which shell's
        shell: Shell,
    },
    /// Print the manual page (read it with: hype man | man -l -)
    Man,
}

/// The machine to run.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// Linux kernel: a bzImage or an ELF vmlinux; a path, or an http(s) URL
    #[arg(long, value_name = "PATH|URL", default_value = "bzImage")]
    pub kernel: OsString,

    /// Initial ram disk; a path, or an http(s) URL
    #[arg(long, value_name = "PATH|URL")]
    pub initrd: Option<OsString>,

    /// Kernel command line [default: "console=hvc0 reboot=t"; with -serial stdio, console=ttyS0]
    #[arg(long, value_name = "TEXT")]
    pub cmdline: Option<OsString>,

    /// Memory: MiB, or a number with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "1024", value_parser = ByteSize::parse)]
    pub mem: ByteSize,

    /// Number of virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u32,

    /// The virtio console, hvc0: stdio, pty=LINK, file=PATH or off [default: stdio, unless -serial has it]
    #[arg(long, value_name = "WHERE", value_parser = Stream::parse)]
    pub console: Option<Stream>,

    /// The serial port, ttyS0: stdio, pty=LINK, file=PATH or off [default: off]
    #[arg(long, value_name = "WHERE", value_parser = Stream::parse)]
    pub serial: Option<Stream>,

    /// Seconds that a guest which took the power button has for its power-off
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u32,
}

/// Reads the command line of this process.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    Args::try_parse_from(double_dashes(args))
}

/// Gives each option its second dash, and ties a value to its option, so that a value may begin
/// with a dash itself.
fn double_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let command = Args::command();
    let takes_value = |name: &[u8]| {
        command
            .get_arguments()
            .filter(|arg| arg.get_action().takes_values())
            .any(|arg| arg.get_long().is_some_and(|long| long.as_bytes() == name))
    };
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let Some(name) = long_name(&arg) else {
            out.push(arg);
            continue;
        };
        let mut option = b"--".to_vec();
        option.extend_from_slice(name);
        if takes_value(name)
            && let Some(value) = args.next()
        {
            option.push(b'=');
            option.extend_from_slice(value.as_bytes());
        }
        out.push(OsString::from_vec(option));
    }
    out
}

/// What stands behind the dashes of `-name`, `--name` or `-name=value`, if `arg` is one of them.
fn long_name(arg: &OsStr) -> Option<&[u8]> {
    let bytes = arg.as_bytes();
    let name = bytes
        .strip_prefix(b"--")
        .or_else(|| bytes.strip_prefix(b"-"))?;
    (name.len() > 1).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Args, clap::Error> {
        parse(
            std::iter::once("hype")
                .chain(args.iter().copied())
                .map(OsString::from),
        )
    }

    #[test]
    fn the_description_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn one_dash_and_two_are_the_same() {
        for args in [
            ["-kernel", "k", "-mem", "512"].as_slice(),
            &["--kernel", "k", "--mem", "512"],
            &["-kernel=k", "-mem=512"],
            &["--kernel=k", "--mem=512"],
        ] {
            let machine = parsed(args).unwrap().machine;
            assert_eq!(machine.kernel, "k");
            assert_eq!(machine.mem.bytes(), 512 << 20);
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        let machine = parsed(&["-cmdline", "-x --y=z"]).unwrap().machine;
        assert_eq!(machine.cmdline.unwrap(), "-x --y=z");
    }

    #[test]
    fn unknown_repeated_and_unfinished_options_are_refused() {
        for args in [
            ["-nonsense"].as_slice(),
            &["-kernel"],
            &["-mem", "1", "-mem", "2"],
            &["-mem", "-1"],
            &["-cpus", "4294967296"],
            &["stray"],
        ] {
            let error = parsed(args).unwrap_err();
            assert!(error.use_stderr(), "{args:?}: {error}");
        }
    }

    #[test]
    fn a_subcommand_has_its_own_options() {
        let args = parsed(&["check", "-quiet"]).unwrap();
        assert!(matches!(args.command, Some(Command::Check { quiet: true })));
    }
}
