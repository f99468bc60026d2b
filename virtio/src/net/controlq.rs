//! The control queue: orders are obeyed at once, and answered when all pairs follow.

use super::card::Settings;
use super::control::{Ack, Order};
use super::{Net, features, put};
use crate::{Chain, Error, Io, Step, Token};
use std::io;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// An order that was obeyed or refused, and not answered yet.
pub(super) struct Pending {
    token: Token,
    /// Where the answer goes.
    address: GuestAddress,
    ack: Ack,
    /// It changed how many pairs are in use.
    is_of_pairs: bool,
}

impl Net {
    /// Which queue takes orders: the one behind the pairs that the driver knows of (5.1.2).
    pub(super) fn controlq(&self, features: u64) -> u16 {
        match features & features::MQ {
            0 => 2,
            _ => 2 * self.pairs,
        }
    }

    /// Takes orders, and answers those that all pairs follow.
    pub(super) fn take_orders(&mut self, io: &mut Io) -> Result<(), Error> {
        let agreed = io.features();
        let controlq = self.controlq(agreed);
        let before = self.card.settings();
        let earlier = self.pending.len();
        io.take(controlq, |chain| {
            // Who can't be answered is not obeyed.
            let Some(address) = room(chain) else {
                return Ok(Step::Done(0));
            };
            let order = Order::parse(chain, agreed);
            let is_of_pairs = matches!(order, Some(Order::Pairs(_)));
            self.pending.push(Pending {
                token: chain.token(),
                address,
                ack: order.map_or(Ack::Err, |order| self.obey(order)),
                is_of_pairs,
            });
            Ok(Step::Later)
        })?;
        let now = self.card.settings();
        if !Arc::ptr_eq(&before, &now) {
            self.first.follow(now, io)?;
            if let Err(error) = io.tell_lanes() {
                self.take_back_pairs(&before, earlier, &error, io)?;
            }
        }
        if self.card.all_follow() {
            self.answer(controlq, io)?;
        }
        io.interrupt(controlq)
    }

    /// The host can't serve the pairs that the driver wants to use, by an order behind `earlier`
    /// ones.
    fn take_back_pairs(
        &mut self,
        before: &Settings,
        earlier: usize,
        error: &Error,
        io: &mut Io,
    ) -> Result<(), Error> {
        let name = &self.spec.name;
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        log::warn!(
            "{name}: the guest can't use more than {} pairs of queues: {error}{}",
            before.in_use,
            cause.unwrap_or_default()
        );
        let orders = self.pending.iter_mut().skip(earlier);
        let orders = orders.filter(|order| order.is_of_pairs);
        orders.for_each(|order| order.ack = Ack::Err);
        self.change(|settings| settings.in_use = before.in_use);
        self.first.follow(self.card.settings(), io)?;
        io.tell_lanes()
    }

    fn answer(&mut self, controlq: u16, io: &mut Io) -> Result<(), Error> {
        for order in self.pending.drain(..) {
            io.memory()
                .write_obj(order.ack as u8, order.address)
                .map_err(|error| Error::Host {
                    what: "answering an order".to_owned(),
                    source: io::Error::other(error),
                })?;
            io.complete_together(controlq, [(order.token, 1)])?;
        }
        Ok(())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.card.settings());
        change(&mut settings);
        self.card.publish(settings);
    }

    fn obey(&self, order: Order) -> Ack {
        match order {
            Order::Mode(mode, on) => self.change(|settings| settings.filter.set(mode, on)),
            Order::Tables(unicast, multicast) => self.change(|settings| {
                settings.filter.unicast = unicast;
                settings.filter.multicast = multicast;
            }),
            Order::Address(mac) => {
                self.change(|settings| settings.filter.set_address(mac));
                let config = &self.spec.config;
                config.update(|config| put(config, 0, &mac.bytes()));
            }
            Order::Offloads(accepted) => {
                let accepted = features::guest_offloads(accepted);
                self.change(|settings| settings.to_driver = accepted);
            }
            Order::Pairs(count) if !(1..=self.pairs).contains(&count) => return Ack::Err,
            Order::Pairs(count) => self.change(|settings| settings.in_use = count),
        }
        Ack::Ok
    }
}

/// Where a chain has room for an answer.
fn room(chain: &mut Chain<'_>) -> Option<GuestAddress> {
    let writer = chain.writer();
    let mut ranges = writer.ranges().filter(|(_, len)| *len > 0);
    ranges.next().map(|(address, _)| address)
}
