//! The `hype` command: flags become a [`vmm::Config`], the terminal becomes the guest's console,
//! and the way the machine ends becomes an exit status.
//!
//! What it adds to the library is what a person needs: a terminal that works and is left clean,
//! signals, words for what went wrong and what would mend it. It knows nothing of ioctls.

#![forbid(unsafe_code)]

mod args;
mod block;
mod check;
mod control;
mod explain;
mod fetch;
mod fields;
mod keys;
mod net;
mod report;
mod run;
mod say;
mod signals;
mod spec;
mod streams;
mod term;
mod typed;

use args::{Args, Command, Instead};
use clap::CommandFactory;
use report::Status;
use std::io::Write;
use std::process::ExitCode;

/// The C library of the static binary maps and unmaps memory a page at a time, which is a third of
/// all system calls before the guest runs; this one takes 64 KiB.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    say::start_panic_hook();
    say::start_log();
    let mut arguments = std::env::args_os().peekable();
    if arguments.len() < 2 {
        say::line(Args::command().render_help());
        return Status::Usage.into();
    }
    let args = match args::parse(&mut arguments) {
        Ok(args) => args,
        Err(Instead::Answer(answer)) => return told(answer.print()).into(),
        Err(Instead::Mistake(text)) => {
            say::line(format_args!("hype: {text}"));
            return Status::Usage.into();
        }
    };
    match args.command {
        None => run::run(args.machine),
        Some(Command::Check { quiet }) => check::check(quiet),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "hype", &mut script);
            print(&script)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(Args::command()).render(&mut page) {
                Ok(()) => print(&page),
                Err(error) => report::failure(&error),
            }
        }
    }
    .into()
}

/// Writes what was asked for to standard output.
fn print(bytes: &[u8]) -> Status {
    told(std::io::stdout().write_all(bytes))
}

/// Whoever closes a pipe, as `head` does, has read enough.
fn told(result: std::io::Result<()>) -> Status {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => report::failure(&error),
        _ => Status::Success,
    }
}
