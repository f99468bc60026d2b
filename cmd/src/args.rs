//! The command line: its options, and the single dash in front of them.
//!
//! clap does the parsing, so that help, completions and the man page come from one
//! description. It knows long options by two dashes only; [`double_dashes`] rewrites the one
//! dash that this command has always accepted before clap looks. Mistakes are told in one line,
//! as all of hype's errors are: clap takes five.

use crate::block::Disk;
use crate::fields::{rings, transport};
use crate::net::{Card, publish};
use crate::spec::{ByteSize, Stream, cpus, seconds};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use vmm::Transport;
use vmm::virtio::net::passt::Publish;
use vmm::virtio::transport::Rings;

/// The end of `hype --help`.
const AFTER_HELP: &str = "\
One dash does as well as two. Keys: Ctrl-A x quits, Ctrl-A h lists the others.
SIGTERM, SIGINT, SIGHUP press the power button; a second one, or SIGQUIT, stops
the guest at once. SIGUSR1 pauses it, SIGUSR2 resumes it.

Exit status: 0 power-off, 1 error, 2 reboot, 3 triple fault, 34 guest panic,
64 bad usage. HYPE_LOG=error|warn|info|debug|trace: what hype tells of itself.";

/// Boots Linux in a KVM virtual machine.
#[derive(Debug, Parser)]
#[command(
    name = "hype",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// Print help (`hype man` says more)
    #[arg(long, short, action = ArgAction::HelpShort, global = true)]
    help: Option<bool>,
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
    /// Linux kernel, a bzImage or an ELF vmlinux: a path or URL
    #[arg(long, value_name = "PATH|URL", default_value = "bzImage")]
    pub kernel: OsString,

    /// Initial ram disk; a path, or an http(s) URL
    #[arg(long, value_name = "PATH|URL")]
    pub initrd: Option<OsString>,

    /// Kernel command line [default: "console=hvc0 reboot=t"; with -serial stdio, console=ttyS0]
    #[arg(long, value_name = "TEXT")]
    pub cmdline: Option<OsString>,

    /// Memory in MiB, or with K, M, G or T behind it
    #[arg(long, value_name = "SIZE", default_value = "1024", value_parser = ByteSize::parse)]
    pub mem: ByteSize,

    /// Number of virtual CPUs
    #[arg(long, value_name = "N", default_value = "1", value_parser = cpus)]
    pub cpus: u32,

    /// The virtio console, hvc0: stdio, pty=LINK, file=PATH or off [default: stdio, unless -serial has it]
    #[arg(long, value_name = "WHERE", value_parser = Stream::parse)]
    pub console: Option<Stream>,

    /// The serial port, ttyS0: stdio, pty=LINK, file=PATH or off [default: off]
    #[arg(long, value_name = "WHERE", value_parser = Stream::parse)]
    pub serial: Option<Stream>,

    /// A disk: PATH, PATH:ro, URL or mem:SIZE, and keys as in disk.img,size=1G,serial=scratch
    ///
    /// Or path=PATH, with any of these keys, and commas doubled where they belong to the path:
    /// ro=on; size=SIZE, to create it if it is missing; format=raw|qcow2, never guessed (raw);
    /// backing=on for the backing files of a qcow2 image in its own folder, backing=any for all;
    /// direct=on, around the page cache; ca=FILE, the certificates (PEM) of the authorities that an https
    /// server is known by, instead of Mozilla's; serial=TEXT; block_size=512|4096; queues=N, each with a
    /// thread of its own, up to 16 and useful up to -cpus; transport and ring, if they are not those
    /// of the other devices.
    #[arg(long, alias = "disk", value_name = "DISK", value_parser = Disk::parse)]
    pub block: Vec<Disk>,

    /// A network card: tap=NAME, bridge=NAME, user or fd=N
    ///
    /// A tap is made if there is none of this name, which takes root; a bridge gets a new one. With
    /// user, the guest has the host's network through passt, without root, and ip=ADDRESS is its
    /// address. fd is a tap or socket that was open before. none is no card. Keys: mac=ADDRESS|random (made of
    /// this host and the tap or the first disk, so it stays the same); mtu=N; queues=N for taps;
    /// transport and ring as for disks.
    #[arg(long, alias = "networking", value_name = "NET", value_parser = Card::parse)]
    pub net: Vec<Card>,

    /// A port for the guest: HOST:GUEST or HOST:GUEST/udp
    ///
    /// For -net user. All addresses of the host lead there, or one: ADDR:HOST:GUEST.
    #[arg(long, value_name = "PORTS", value_parser = publish)]
    pub publish: Vec<Publish>,

    /// Where virtio devices are, all of them: mmio or pci
    ///
    /// If nothing is said, disks and network cards are on pci, the others on mmio.
    #[arg(long, value_name = "WHERE", value_parser = transport)]
    pub transport: Option<Transport>,

    /// Which rings they have: split or packed [default: any]
    ///
    /// Offered both, a driver takes the one that it likes better; Linux takes packed ones.
    #[arg(long, value_name = "LAYOUT", value_parser = rings)]
    pub ring: Option<Rings>,

    /// Seconds that a power-off may take
    ///
    /// Counted from when the guest has taken the power button.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub grace: u32,
}

/// What there is to say where there is nothing to do.
#[derive(Debug)]
pub enum Instead {
    /// What was asked for: help, or the version.
    Answer(clap::Error),
    /// The command line makes no sense; why, in one line.
    Mistake(String),
}

/// Reads the command line of this process.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Instead> {
    let mut command = Args::command();
    let args = double_dashes(&command, args);
    let matches = command.try_get_matches_from_mut(&args);
    let parsed = matches.and_then(|mut matches| Args::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| {
        if error.use_stderr() {
            Instead::Mistake(mistake(&error, &command, &args))
        } else {
            Instead::Answer(error)
        }
    })
}

/// Names the option, the value and the rule, or what is known where something is not.
fn mistake(error: &clap::Error, command: &clap::Command, args: &[OsString]) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let (ErrorKind::ValueValidation, Some(option), Some(value), Some(rule)) = (
        error.kind(),
        context(ContextKind::InvalidArg).and_then(|arg| arg.split(' ').next()),
        context(ContextKind::InvalidValue),
        error.source(),
    ) {
        return format!("{} {value:?}: {rule}", option.replacen("--", "-", 1));
    }
    // The first paragraph says what is wrong, the others how help is had.
    let text = error.render().to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let text: Vec<_> = text
        .trim_start_matches("error: ")
        .split_whitespace()
        .collect();
    let text = text.join(" ").replace("'--", "'-");
    match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
            format!("{text}; known are {}", known(command, args).join(", "))
        }
        _ => text,
    }
}

/// What may stand on a command line like this one: options, and commands where none was given.
fn known(command: &clap::Command, args: &[OsString]) -> Vec<String> {
    let chosen = command
        .get_subcommands()
        .find(|known| args.iter().any(|arg| arg == known.get_name()));
    let options = chosen.unwrap_or(command).get_arguments();
    let options = options.filter_map(|option| Some(format!("-{}", option.get_long()?)));
    let commands = match chosen {
        None => command.get_subcommands().collect(),
        Some(_) => Vec::new(),
    };
    let commands = commands
        .into_iter()
        .map(|command| command.get_name().into());
    options.chain(commands).collect()
}

/// Gives each option its second dash, and ties a value to its option, so that a value may begin
/// with a dash itself.
fn double_dashes(
    command: &clap::Command,
    args: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let takes_value = |name: &[u8]| {
        command
            .get_arguments()
            .filter(|arg| arg.get_action().takes_values())
            .flat_map(|arg| arg.get_long_and_visible_aliases().unwrap_or_default())
            .any(|long| long.as_bytes() == name)
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

    fn parsed(args: &[&str]) -> Result<Args, Instead> {
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
    fn a_mistake_is_told_in_one_line_with_its_essence() {
        for (args, essence) in [
            (
                ["-nonsense"].as_slice(),
                ["'-nonsense'", "-kernel, -initrd,"],
            ),
            (&["stray"], ["'stray'", "check, completions, man"]),
            (&["check", "-mem"], ["'-mem'", "known are -quiet"]),
            (&["-kernel"], ["'-kernel ", "value is required"]),
            (&["-mem", "1", "-mem", "2"], ["'-mem ", "multiple times"]),
            (&["-mem", "-1"], ["-mem \"-1\": ", "512M or 2G"]),
            (
                &["-cpus", "4294967296"],
                ["-cpus \"4294967296\": ", "1 to 254"],
            ),
            (
                &["-transport", "isa"],
                ["-transport \"isa\": ", "mmio or pci"],
            ),
            (
                &["-ring", "round"],
                ["-ring \"round\": ", "split or packed"],
            ),
            (&["-grace", "soon"], ["-grace \"soon\": ", "seconds"]),
            (&["-serial", "stdin"], ["-serial \"stdin\": ", "pty=LINK"]),
            (
                &["-block", "d,mode=1"],
                ["-block \"d,mode=1\": ", "known keys are path"],
            ),
            (&["-disk", "d,ro=1"], ["-block \"d,ro=1\": ", "on or off"]),
            (&["-net", "eth0"], ["-net \"eth0\": ", "tap=NAME"]),
            (
                &["-networking", "user,mac=1"],
                ["-net \"user,mac=1\": ", "six pairs"],
            ),
            (&["-publish", "80"], ["-publish \"80\": ", "HOST:GUEST"]),
            (&["completions", "sh"], ["'sh'", "bash"]),
        ] {
            let Err(Instead::Mistake(text)) = parsed(args) else {
                panic!("{args:?} is taken");
            };
            assert_eq!(text.lines().count(), 1, "{text}");
            for word in essence {
                assert!(text.contains(word), "{args:?}: {text}");
            }
        }
    }

    #[test]
    fn help_fits_a_screen() {
        let help = Args::command().term_width(80).render_help().to_string();
        assert!(help.lines().count() < 40, "{help}");
    }

    #[test]
    fn disks_keep_their_order_under_either_name() {
        let machine = parsed(&["-block", "a:ro", "-disk=file=b", "--block", "mem:1"]);
        let disks: Vec<_> = ["a:ro", "file=b", "mem:1"]
            .map(Disk::parse)
            .into_iter()
            .collect();
        assert_eq!(
            Ok(machine.unwrap().machine.block),
            disks.into_iter().collect()
        );
    }

    #[test]
    fn a_subcommand_has_its_own_options() {
        let args = parsed(&["check", "-quiet"]).unwrap();
        assert!(matches!(args.command, Some(Command::Check { quiet: true })));
    }
}
