//! Message-signalled interrupts: a route and an irqfd for each vector of a device.
//!
//! The problem: a line of the I/O APIC has its number from the start, while what a message says is
//! up to the guest, which changes it at will. KVM knows messages as *routes*, numbered like the
//! lines and behind them; a change of one route hands over the whole table, and takes KVM up to
//! milliseconds. The design:
//!
//! - A vector owns a number and nothing else until it is first told a message: most vectors of most
//!   devices never are. Then it gets its route, and an irqfd.
//! - The table is kept once per VM, with the lines' routes (KVM's defaults, which the call would
//!   drop) in front. A message that is what it was is no call.
//! - A vector that ends leaves its route: nothing triggers it, and the next change drops it.
//!
//! What it does not do: masking, pending bits and everything else that PCI says of vectors.

use crate::error::Error;
use crate::vm::{Inner, PIC_AND_IOAPIC_GSIS};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{Cap, VmFd};
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Lines that reach one of the two PICs as well.
const PIC_GSIS: u32 = 16;
/// Inputs of one PIC.
const PIC_PINS: u32 = 8;
/// Routes of the lines: one for each input of a controller.
const LINE_ROUTES: u32 = PIC_GSIS + PIC_AND_IOAPIC_GSIS;

/// What an interrupt says: a write that goes to local APICs instead of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// Where to: which APIC, in the processors' own terms.
    pub address: u64,
    /// What: the vector, and how it is delivered.
    pub data: u32,
}

impl MsiMessage {
    /// Where local APICs listen (Intel SDM volume 3, 11.11.1).
    const APICS: std::ops::Range<u64> = 0xfee0_0000..0xfef0_0000;

    fn checked(self) -> Result<Self, Error> {
        if Self::APICS.contains(&self.address) {
            Ok(self)
        } else {
            Err(Error::MsiAddress {
                address: self.address,
            })
        }
    }
}

/// A vector: an interrupt that says what the guest wants it to say.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct MsiVector {
    vm: Arc<Inner>,
    gsi: u32,
    /// Bound when there is first something to say.
    event: OnceLock<EventFd>,
}

impl MsiVector {
    pub(crate) fn new(vm: Arc<Inner>) -> Result<Self, Error> {
        let gsi = lock(&vm).reserve(|| vm.fd.check_extension_int(Cap::IrqRouting))?;
        Ok(Self {
            vm,
            gsi,
            event: OnceLock::new(),
        })
    }

    /// From now on the vector says this. An error, be it because of the address or of KVM: it
    /// says nothing until it is told something else.
    pub fn route(&self, message: MsiMessage) -> Result<(), Error> {
        // Held to the end, so that the event is bound once.
        let mut routes = lock(&self.vm);
        let routed = message
            .checked()
            .and_then(|message| routes.change(self.gsi, Some(message), &self.vm.fd));
        match routed {
            Ok(()) if self.event.get().is_none() => self.bind(),
            Ok(()) => Ok(()),
            Err(error) => {
                // The first error is the one to tell.
                let _ = routes.change(self.gsi, None, &self.vm.fd);
                Err(error)
            }
        }
    }

    fn bind(&self) -> Result<(), Error> {
        let event =
            EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(|source| Error::Call {
                call: "eventfd",
                source,
            })?;
        self.vm
            .fd
            .register_irqfd(&event, self.gsi)
            .map_err(|errno| Error::IrqFd {
                gsi: self.gsi,
                source: errno.into(),
            })?;
        // Nobody else sets it: the lock on the routes is held.
        let _ = self.event.set(event);
        Ok(())
    }

    /// Interrupts the guest, if the vector has something to say. Never blocks.
    pub fn trigger(&self) {
        if let Some(event) = self.event.get() {
            // The only failure is a counter that is full: then the interrupt is pending anyway.
            let _ = event.write(1);
        }
    }

    /// The event behind it, for someone else to trigger (a vhost device, say); absent until the
    /// vector was told a message.
    #[must_use]
    pub fn event(&self) -> Option<&EventFd> {
        self.event.get()
    }
}

impl Drop for MsiVector {
    fn drop(&mut self) {
        if let Some(event) = self.event.get() {
            // It was bound with these values, so this can't fail; and nobody could be told.
            let _ = self.vm.fd.unregister_irqfd(event, self.gsi);
        }
        lock(&self.vm).give_back(self.gsi);
    }
}

/// The table of a VM. It is what KVM has, but for routes that nothing triggers any more.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// How many there may be; asked for once.
    limit: Option<u32>,
    /// How many numbers were ever taken.
    taken: u32,
    /// Numbers that were given back.
    free: Vec<u32>,
    messages: BTreeMap<u32, MsiMessage>,
}

impl Routes {
    fn reserve(&mut self, ask: impl FnOnce() -> i32) -> Result<u32, Error> {
        // KVM counts routes, and wants each number below the same limit; lines have more routes
        // than numbers, so the first is what ends first.
        let limit = *self.limit.get_or_insert_with(|| {
            u32::try_from(ask())
                .unwrap_or(0)
                .saturating_sub(LINE_ROUTES)
        });
        if let Some(gsi) = self.free.pop() {
            return Ok(gsi);
        }
        if self.taken >= limit {
            return Err(Error::MsiVectors { limit });
        }
        let gsi = PIC_AND_IOAPIC_GSIS + self.taken;
        self.taken += 1;
        Ok(gsi)
    }

    fn give_back(&mut self, gsi: u32) {
        self.messages.remove(&gsi);
        self.free.push(gsi);
    }

    /// Tells KVM, unless it knows. The table stays as it was if KVM refuses.
    fn change(&mut self, gsi: u32, message: Option<MsiMessage>, fd: &VmFd) -> Result<(), Error> {
        let before = self.messages.get(&gsi).copied();
        if before == message {
            return Ok(());
        }
        self.set(gsi, message);
        let told = KvmIrqRouting::from_entries(&self.entries())
            .map_err(|_| Error::MsiVectors {
                limit: self.limit.unwrap_or(0),
            })
            .and_then(|table| {
                fd.set_gsi_routing(&table)
                    .map_err(Error::call("KVM_SET_GSI_ROUTING"))
            });
        if told.is_err() {
            self.set(gsi, before);
        }
        told
    }

    fn set(&mut self, gsi: u32, message: Option<MsiMessage>) {
        match message {
            Some(message) => self.messages.insert(gsi, message),
            None => self.messages.remove(&gsi),
        };
    }

    /// The lines as KVM routes them by itself, and the messages.
    fn entries(&self) -> Vec<kvm_irq_routing_entry> {
        let pics = (0..PIC_GSIS).map(|gsi| {
            let chip = if gsi < PIC_PINS {
                KVM_IRQCHIP_PIC_MASTER
            } else {
                KVM_IRQCHIP_PIC_SLAVE
            };
            line(gsi, chip, gsi % PIC_PINS)
        });
        let io_apic = (0..PIC_AND_IOAPIC_GSIS).map(|gsi| line(gsi, KVM_IRQCHIP_IOAPIC, gsi));
        let messages = self.messages.iter().map(|(gsi, at)| message(*gsi, *at));
        pics.chain(io_apic).chain(messages).collect()
    }
}

fn line(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..Default::default()
    }
}

fn message(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: message.address as u32,
                address_hi: (message.address >> 32) as u32,
                data: message.data,
                ..Default::default()
            },
        },
        ..Default::default()
    }
}

/// A panic in the middle leaves a table that is at worst not what KVM has, for one number.
fn lock(vm: &Inner) -> MutexGuard<'_, Routes> {
    vm.routes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
