//! What can go wrong in a device.

use crate::queue::QueueError;
use std::io;

/// An error that costs the device: its driver has to reset it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver broke the rules of the ring.
    #[error("queue {queue} is corrupt")]
    Queue {
        /// Which queue.
        queue: u16,
        /// What was wrong with it.
        source: QueueError,
    },
    /// A queue that the device can't do without was not set up by the driver.
    #[error("queue {0} was not enabled by the driver")]
    QueueMissing(u16),
    /// A chain does not have the parts that this device's requests have.
    #[error("malformed request on queue {queue}: {what}")]
    Request {
        /// Which queue.
        queue: u16,
        /// The rule that it breaks.
        what: &'static str,
    },
    /// The host failed the device, not the guest.
    #[error("{what}")]
    Host {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}
