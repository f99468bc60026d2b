//! What a transport and the worker of its device share, and what a failure costs.

use super::signal::event;
use crate::{Error, Irq};
use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// Told that a device has failed the machine, which has to end: which device, and how. Called on
/// the thread that panicked, or on the one that wants to stop the device; must not wait for either.
pub type Failed = Arc<dyn Fn(&str, Fault<'_>) + Send + Sync>;

/// How a device fails its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault<'a> {
    /// Its code panicked, and said this.
    Panicked(&'a str),
    /// It waits for the host, and so can't be reset.
    Stuck,
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Panicked(what) => write!(f, "panicked: {what}"),
            Fault::Stuck => f.write_str("waits for the host, and can't be reset"),
        }
    }
}

/// How many failures of one device are logged. A driver can bring about any number of them.
const LOGGED_FAILURES: u32 = 10;

/// What a transport and the worker of its device share for as long as the device exists.
pub struct Link {
    name: String,
    irq: Arc<dyn Irq>,
    failed: Failed,
    doorbells: Vec<Arc<EventFd>>,
    needs_reset: AtomicBool,
    failures: AtomicU32,
}

impl Link {
    /// The link of a device with this many queues.
    pub fn new(name: &str, queues: usize, irq: Arc<dyn Irq>, failed: Failed) -> io::Result<Self> {
        let doorbells = (0..queues)
            .map(|_| event().map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Link {
            name: name.to_owned(),
            irq,
            failed,
            doorbells,
            needs_reset: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        })
    }

    /// How messages call the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the device interrupts its driver.
    pub fn irq(&self) -> &Arc<dyn Irq> {
        &self.irq
    }

    /// The doorbell of each queue.
    pub fn doorbells(&self) -> &[Arc<EventFd>] {
        &self.doorbells
    }

    /// Whether the device failed since its driver last reset it.
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The driver has reset the device, and no worker has it.
    pub fn clear_needs_reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
    }

    /// The device can't go on: `DEVICE_NEEDS_RESET` and a configuration interrupt (2.1.2). Only
    /// for use after `DRIVER_OK`.
    pub fn fail(&self, error: &Error) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED_FAILURES {
            let cause = std::error::Error::source(error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            log::warn!(
                "{}: stopped until its driver resets it: {error}{cause}",
                self.name
            );
        }
        // Lanes may fail together, which is one failure of the device.
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.irq.config();
        }
    }

    /// Runs code of the device and decides what its failure costs: an error the device, a panic
    /// the machine. `None`: it panicked, and its state is not to be trusted.
    pub fn settle(&self, code: impl FnOnce() -> Result<(), Error>) -> Option<()> {
        match catch_unwind(AssertUnwindSafe(code)) {
            Ok(Ok(())) => Some(()),
            Ok(Err(error)) => {
                self.fail(&error);
                Some(())
            }
            Err(panic) => {
                self.needs_reset.store(true, Ordering::Release);
                (self.failed)(&self.name, Fault::Panicked(message(&*panic)));
                None
            }
        }
    }

    /// The device can't be stopped, and its driver must not go on.
    pub fn fail_machine(&self) {
        self.needs_reset.store(true, Ordering::Release);
        (self.failed)(&self.name, Fault::Stuck);
    }
}

/// What a panic said, if it said it in words.
fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "panic without a message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let said: [Box<dyn Any + Send>; 3] =
            [Box::new("words"), Box::new("more".to_owned()), Box::new(7)];
        let messages = said.each_ref().map(|panic| message(&**panic));
        assert_eq!(messages, ["words", "more", "panic without a message"]);
    }
}
