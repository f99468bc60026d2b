//! What an active device sees of the world: guest memory, its queues, the interrupt, and the
//! host descriptors that it watches.
//!
//! An [`Io`] needs no thread and no descriptor of its own, so a device is tested by calling
//! `device.handle(event, &mut io)` and looking at the rings. A [`worker`](crate::worker) adds
//! what it takes to wait.

#[cfg(test)]
mod tests;

use crate::poll::{Poll, Source, Watched};
use crate::queue::QueueError;
use crate::worker::{Crew, Signal};
use crate::{Chain, ConfigSpace, Error, GuestMemory, Irq, Queue, Step, Token};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

bitflags::bitflags! {
    /// What a device waits for on a descriptor. Errors and hang-ups are always reported.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Interest: u8 {
        /// There is something to read, or the end of it.
        const READ = 1;
        /// There is room to write.
        const WRITE = 2;
    }
}

/// What a device works with while it is active.
pub struct Io {
    memory: Arc<GuestMemory>,
    features: u64,
    config: Arc<ConfigSpace>,
    irq: Arc<dyn Irq>,
    queues: Vec<Slot>,
    watches: Vec<Watch>,
    poll: Option<Poll>,
    signal: Option<Arc<Signal>>,
    crew: Option<Arc<Crew>>,
}

/// A queue by its number.
struct Slot {
    /// `None`: the driver has not enabled it.
    queue: Option<Queue>,
    /// The device is to be called for it without waiting.
    due: bool,
}

/// A host descriptor that the device watches.
struct Watch {
    token: u32,
    fd: RawFd,
    interest: Interest,
    watched: Watched,
}

impl Watch {
    fn is_always_ready(&self) -> bool {
        self.watched == Watched::AlwaysReady && !self.interest.is_empty()
    }
}

impl Io {
    /// The world of a device that has negotiated `features` and enabled those of the `queues`
    /// that are `Some`; or of one of its lanes, to which the queues of others are not enabled.
    pub fn new(
        memory: Arc<GuestMemory>,
        features: u64,
        config: Arc<ConfigSpace>,
        irq: Arc<dyn Irq>,
        queues: Vec<Option<Queue>>,
    ) -> Self {
        let queues = queues
            .into_iter()
            .map(|queue| Slot { queue, due: false })
            .collect();
        Io {
            memory,
            features,
            config,
            irq,
            queues,
            watches: Vec::new(),
            poll: None,
            signal: None,
            crew: None,
        }
    }

    /// Guest memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The features that driver and device agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The configuration space.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// Changes the configuration space and tells the driver.
    pub fn update_config(&self, change: impl FnOnce(&mut [u8])) {
        self.config.update(change);
        self.irq.config();
    }

    /// Whether the driver has enabled this queue.
    pub fn has_queue(&self, queue: u16) -> bool {
        self.queue(queue).is_some()
    }

    /// The queue of this number, if the driver has enabled it.
    pub fn queue(&self, queue: u16) -> Option<&Queue> {
        self.queues.get(usize::from(queue))?.queue.as_ref()
    }

    /// Takes chains from a queue until none is left, the queue had its turn, or `each` says
    /// [`Step::Stop`]; then interrupts the driver once if it wants that. If the turn ended first,
    /// the worker calls the device again. A queue that is not enabled has no chains.
    ///
    /// When the device is to stop, the rest of the ring is left to when it goes on: it may take long.
    pub fn drain(
        &mut self,
        queue: u16,
        each: impl FnMut(&mut Chain<'_>) -> Result<Step, Error>,
    ) -> Result<(), Error> {
        self.take(queue, each)?;
        self.interrupt(queue)
    }

    /// Does the same as [`drain`](Self::drain), but leaves the driver alone until the next
    /// [`interrupt`](Self::interrupt): for a device that has more to give back.
    pub fn take(
        &mut self,
        queue: u16,
        mut each: impl FnMut(&mut Chain<'_>) -> Result<Step, Error>,
    ) -> Result<(), Error> {
        let Some(Slot {
            queue: Some(ring),
            due,
        }) = self.queues.get_mut(usize::from(queue))
        else {
            return Ok(());
        };
        let signal = self.signal.as_deref();
        let mut interrupted = false;
        let more = ring
            .take(|chain| {
                if signal.is_some_and(Signal::is_stop_wanted) {
                    interrupted = true;
                    return Ok(Step::Stop);
                }
                each(chain).map_err(Failure::Device)
            })
            .map_err(|failure| failure.on(queue))?;
        *due = more || interrupted;
        Ok(())
    }

    /// Completes a chain that was kept with [`Step::Later`], and interrupts the driver if it
    /// wants that.
    pub fn complete(&mut self, queue: u16, token: Token, written: u32) -> Result<(), Error> {
        let Some((slot, _)) = self.enabled(queue) else {
            return Ok(());
        };
        if slot
            .complete(token, written)
            .map_err(|source| Error::Queue { queue, source })?
        {
            self.irq.queue(queue);
        }
        Ok(())
    }

    /// Completes chains that were kept, each with the number of bytes written to it, so that the
    /// driver finds all of them or none. It is left alone until the next
    /// [`interrupt`](Self::interrupt).
    pub fn complete_together(
        &mut self,
        queue: u16,
        chains: impl IntoIterator<Item = (Token, u32)>,
    ) -> Result<(), Error> {
        let Some((slot, _)) = self.enabled(queue) else {
            return Ok(());
        };
        slot.complete_together(chains)
            .map_err(|source| Error::Queue { queue, source })
    }

    /// Interrupts the driver, if it wants that, for all that was given back since it was last
    /// asked.
    pub fn interrupt(&mut self, queue: u16) -> Result<(), Error> {
        let Some((slot, _)) = self.enabled(queue) else {
            return Ok(());
        };
        if slot
            .take_interrupt()
            .map_err(|source| Error::Queue { queue, source })?
        {
            self.irq.queue(queue);
        }
        Ok(())
    }

    /// Calls the device with [`Event::Fd`](crate::Event::Fd) whenever the descriptor is ready
    /// (level-triggered). The same token again changes the interest. The device keeps the
    /// descriptor open until it unwatches it or is quiesced. Regular files are always ready.
    pub fn watch(
        &mut self,
        token: u32,
        fd: BorrowedFd<'_>,
        interest: Interest,
    ) -> Result<(), Error> {
        self.add_watch(token, fd.as_raw_fd(), interest)
            .map_err(|source| Error::Host {
                what: format!("watching descriptor {}", fd.as_raw_fd()),
                source,
            })
    }

    fn add_watch(&mut self, token: u32, fd: RawFd, interest: Interest) -> io::Result<()> {
        match self.watches.iter_mut().find(|watch| watch.token == token) {
            Some(watch) if watch.fd == fd => {
                if let Some(poll) = &self.poll
                    && watch.watched == Watched::Reported
                    && watch.interest != interest
                {
                    poll.change_host(token, fd, interest)?;
                }
                watch.interest = interest;
                return Ok(());
            }
            Some(_) => self.unwatch(token),
            None => {}
        }
        let watched = match &self.poll {
            Some(poll) => poll.add_host(token, fd, interest)?,
            None => Watched::Reported,
        };
        self.watches.push(Watch {
            token,
            fd,
            interest,
            watched,
        });
        Ok(())
    }

    /// Ends a watch. A token that is not watched is ignored.
    pub fn unwatch(&mut self, token: u32) {
        if let Some(at) = self.watches.iter().position(|watch| watch.token == token) {
            let watch = self.watches.swap_remove(at);
            if let (Some(poll), Watched::Reported) = (&self.poll, watch.watched) {
                poll.remove_host(watch.fd);
            }
        }
    }

    /// What the lanes of the device share has changed: all others are called with
    /// [`Event::Shared`](crate::Event::Shared), on their threads, and those that
    /// [need not sleep](crate::Lane::is_asleep) any more are activated.
    ///
    /// An error means that the host has no means for the latter; the others were not told.
    pub fn tell_lanes(&self) -> Result<(), Error> {
        match (&self.crew, &self.signal) {
            (Some(crew), Some(signal)) => crew.tell(signal),
            // Nobody serves them.
            _ => Ok(()),
        }
    }

    /// What the device waits for under this token, if it does.
    pub fn interest(&self, token: u32) -> Option<Interest> {
        self.watches
            .iter()
            .find(|watch| watch.token == token)
            .map(|watch| watch.interest)
    }

    fn enabled(&mut self, queue: u16) -> Option<(&mut Queue, &mut bool)> {
        let slot = self.queues.get_mut(usize::from(queue))?;
        Some((slot.queue.as_mut()?, &mut slot.due))
    }
}

/// The worker's side.
impl Io {
    /// From now on, watching a descriptor means waiting for it. All enabled queues are due.
    pub(crate) fn attach(&mut self, poll: Poll, signal: Arc<Signal>) {
        self.poll = Some(poll);
        self.signal = Some(signal);
        self.set_all_due();
    }

    /// The lane has others beside it.
    pub(crate) fn join(&mut self, crew: Arc<Crew>) {
        self.crew = Some(crew);
    }

    /// All enabled queues may have chains that nobody tells of any more.
    pub(crate) fn set_all_due(&mut self) {
        for slot in &mut self.queues {
            slot.due = slot.queue.is_some();
        }
    }

    /// Ends all watches.
    pub(crate) fn detach(&mut self) {
        self.watches.clear();
        self.poll = None;
        self.signal = None;
        self.crew = None;
    }

    /// Waits for something to do, if `block` and there is nothing to do yet. The sources that
    /// are ready are appended to `ready`.
    pub(crate) fn wait(&mut self, block: bool, ready: &mut Vec<Source>) -> io::Result<()> {
        let idle = !self.queues.iter().any(|slot| slot.due);
        let files = self.watches.iter().filter(|watch| watch.is_always_ready());
        ready.extend(files.map(|watch| Source::Host(watch.token)));
        match &mut self.poll {
            Some(poll) => poll.wait(block && idle && ready.is_empty(), ready),
            None => Ok(()),
        }
    }

    /// The doorbell of this queue was rung.
    pub(crate) fn set_due(&mut self, queue: u16) {
        if let Some((_, due)) = self.enabled(queue) {
            *due = true;
        }
    }

    /// Whether the device is to be called for this queue; if so, it counts as called.
    pub(crate) fn take_due(&mut self, queue: u16) -> bool {
        self.enabled(queue)
            .is_some_and(|(_, due)| std::mem::take(due))
    }

    pub(crate) fn queue_count(&self) -> u16 {
        // There are at most as many as a spec may have.
        self.queues.len() as u16
    }
}

/// What ended a drain: the ring, or the device's own code.
enum Failure {
    Ring(QueueError),
    Device(Error),
}

impl From<QueueError> for Failure {
    fn from(source: QueueError) -> Self {
        Failure::Ring(source)
    }
}

impl Failure {
    fn on(self, queue: u16) -> Error {
        match self {
            Failure::Ring(source) => Error::Queue { queue, source },
            Failure::Device(error) => error,
        }
    }
}
