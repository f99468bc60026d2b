//! A terminal with a command on it, and somebody who types and reads.

// The guest tests of `vmm` wait for what is printed, too.
#[path = "../../../vmm/tests/common/screen.rs"]
mod screen;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use screen::Screen;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a guest has for what a test waits for. An emulated host is slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command on a pseudo-terminal of its own.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Screen>,
    seen: usize,
    patience: Duration,
    /// The terminal's attributes before the command started, as `stty -g` tells them.
    attributes: String,
    device: std::path::PathBuf,
    /// Keeps the terminal's attributes alive when the command has ended.
    _slave: Box<dyn portable_pty::SlavePty + Send>,
}

impl Terminal {
    /// Starts a command on a new terminal of 80 columns and 24 rows.
    pub fn spawn(program: &str, args: &[&str]) -> Terminal {
        let size = PtySize {
            rows: 24,
            cols: 80,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let device = pair.master.tty_name().unwrap();
        let attributes = stty(&device);
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.cwd(std::env::current_dir().unwrap());
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Screen::default());
        let mut output = pair.master.try_clone_reader().unwrap();
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                shown.add(&buffer[..count]);
            }
        });
        Terminal {
            keyboard: pair.master.take_writer().unwrap(),
            master: pair.master,
            child,
            screen,
            seen: 0,
            patience: PATIENCE,
            attributes,
            device,
            _slave: pair.slave,
        }
    }

    /// Gives the command this long for what is waited for, instead of what most guests have.
    pub fn patient(mut self, patience: Duration) -> Terminal {
        self.patience = patience;
        self
    }

    /// Waits until `text` is printed behind what was expected before.
    pub fn expect(&mut self, text: &str) {
        let patience = self.patience;
        let found = self.screen.find(text, self.seen, patience, || false);
        self.seen = found.unwrap_or_else(|| {
            let shown = self.text();
            silent(
                patience,
                &format!("no {text:?} within {patience:?} in:\n{shown}"),
            )
        });
    }

    /// Types a line, and waits for its echo so that it is not taken for the answer.
    pub fn type_line(&mut self, line: &str) {
        self.type_bytes(line.as_bytes());
        self.type_bytes(b"\r");
        self.expect("\n");
    }

    /// Types bytes as they are.
    pub fn type_bytes(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Gives the window another size.
    pub fn resize(&self, rows: u16, cols: u16) {
        self.master
            .resize(PtySize {
                rows,
                cols,
                pixel_width: 0,
                pixel_height: 0,
            })
            .unwrap();
    }

    /// Sends a signal to the command.
    pub fn signal(&self, name: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The command's exit status, once it has ended.
    pub fn wait(&mut self) -> u32 {
        let patience = self.patience;
        self.wait_for(patience).unwrap_or_else(|| {
            let text = self.text();
            silent(
                patience,
                &format!("still running after {patience:?}:\n{text}"),
            )
        })
    }

    /// The same, or None when it still runs after `limit`.
    pub fn wait_for(&mut self, limit: Duration) -> Option<u32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status.exit_code());
            }
            // A pseudo-terminal tells nothing when its command ends while we hold the other end.
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// What the process does, as a letter of /proc: R running, S sleeping, T stopped, ...
    pub fn state(&self) -> Option<char> {
        let pid = self.child.process_id()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Everything printed so far.
    pub fn text(&self) -> String {
        self.screen.text()
    }

    /// Whether the terminal's attributes are what they were before the command.
    pub fn is_as_it_was(&self) -> bool {
        stty(&self.device) == self.attributes
    }
}

/// Fails in the words by which etc/test knows a guest that fell silent from one that said
/// something wrong.
fn silent(patience: Duration, what: &str) -> ! {
    eprintln!("no answer: nothing more within {patience:?}");
    panic!("{what}");
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stty(device: &std::path::Path) -> String {
    let output = Command::new("stty")
        .arg("-g")
        .arg("-F")
        .arg(device)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "stty: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
