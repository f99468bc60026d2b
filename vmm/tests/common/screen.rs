//! What a machine or a command has printed, and waiting for more of it.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long to wait before asking again whether anybody still prints.
const POLL: Duration = Duration::from_millis(200);

/// Everything that was printed so far.
#[derive(Default)]
pub struct Screen {
    bytes: Mutex<Vec<u8>>,
    changed: Condvar,
}

impl Screen {
    /// Prints more.
    pub fn add(&self, bytes: &[u8]) {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        self.changed.notify_all();
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Waits until `text` is printed behind the first `seen` bytes, and tells how many bytes there
    /// are up to its end. None once `patience` or everything `is_over`.
    pub fn find(
        &self,
        text: &str,
        seen: usize,
        patience: Duration,
        is_over: impl Fn() -> bool,
    ) -> Option<usize> {
        let deadline = Instant::now() + patience;
        let mut shown = self.bytes.lock().unwrap();
        loop {
            // Asked before looking, so that last words count.
            let left = deadline.saturating_duration_since(Instant::now());
            let over = left.is_zero() || is_over();
            let mut places = shown[seen..].windows(text.len());
            if let Some(at) = places.position(|window| window == text.as_bytes()) {
                return Some(seen + at + text.len());
            }
            if over {
                return None;
            }
            let wait = self.changed.wait_timeout(shown, left.min(POLL));
            shown = wait.unwrap().0;
        }
    }
}
