//! An interrupt controller for message-signalled interrupts.

use super::irq::Interrupts;
use crate::Irq;
use crate::transport::pci::{Message, Msi};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where messages are sent.
pub const ADDRESS: u64 = 0xfee0_0000;

/// Remembers what each vector sends. What is sent to [`ADDRESS`] counts as an interrupt: data 0
/// for the configuration, 1 and up for queues 0 and up. All else goes nowhere.
pub struct Messages {
    interrupts: Arc<Interrupts>,
    state: Mutex<State>,
}

struct State {
    vectors: Vec<Option<Message>>,
    programmed: u64,
}

impl Messages {
    /// A controller for this many vectors.
    pub fn new(interrupts: Arc<Interrupts>, vectors: u16) -> Arc<Self> {
        let state = State {
            vectors: vec![None; vectors.into()],
            programmed: 0,
        };
        Arc::new(Messages {
            interrupts,
            state: Mutex::new(state),
        })
    }

    /// The message that each vector sends.
    pub fn vectors(&self) -> Vec<Option<Message>> {
        self.lock().vectors.clone()
    }

    /// How often a vector was programmed.
    pub fn programmed(&self) -> u64 {
        self.lock().programmed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Msi for Messages {
    fn vectors(&self) -> u16 {
        self.lock().vectors.len() as u16
    }

    fn program(&self, vector: u16, message: Option<Message>) {
        let mut state = self.lock();
        state.vectors[usize::from(vector)] = message;
        state.programmed += 1;
    }

    fn signal(&self, vector: u16) {
        let message = self.lock().vectors[usize::from(vector)];
        match message.filter(|message| message.address == ADDRESS) {
            Some(Message { data: 0, .. }) => self.interrupts.config(),
            Some(Message { data, .. }) => self.interrupts.queue((data - 1) as u16),
            None => {}
        }
    }
}
