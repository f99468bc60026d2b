//! A machine in a process of its own, which may be killed.
//!
//! A test runs itself again as that process, which it tells by a variable of its environment. The guest's
//! console is that process's standard output (`Plan::echo`).

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

pub struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs the test of this name in another process, with more in its environment.
    pub fn start(name: &str, environment: &[(&str, &OsStr)]) -> Process {
        let (_, test) = name.split_once("::").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// The next line that begins so: what follows. None at the end.
    pub fn line(&mut self, start: &str) -> Option<String> {
        self.lines
            .find_map(|line| Some(line.unwrap().strip_prefix(start)?.trim().to_owned()))
    }

    /// Kills it, by the signal that can't be handled. What it printed before can still be read.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its own end.
    pub fn wait(mut self) -> ExitStatus {
        // A full pipe would keep it.
        self.lines.by_ref().for_each(drop);
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
