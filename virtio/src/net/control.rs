//! What the driver orders on the control queue (virtio 1.2, 5.1.6.5).
//!
//! A command is parsed as a whole before anything of it is done, so one that is refused has changed
//! nothing.

use super::filter::{MAX_ADDRESSES, Mode, Table};
use super::{Mac, features};
use crate::Chain;
use crate::queue::Reader;
use vm_memory::{Le16, Le32, Le64};

/// Classes of commands.
const RX: u8 = 0;
const MAC: u8 = 1;
const MQ: u8 = 4;
const GUEST_OFFLOADS: u8 = 5;

/// Commands of the class [`MAC`].
const TABLE_SET: u8 = 0;
const ADDR_SET: u8 = 1;
/// Commands of the classes [`MQ`] and [`GUEST_OFFLOADS`].
const VQ_PAIRS_SET: u8 = 0;
const OFFLOADS_SET: u8 = 0;

/// How an order was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ack {
    Ok = 0,
    Err = 1,
}

/// What the driver orders.
#[derive(Debug)]
pub(super) enum Order {
    /// A mode of the filter.
    Mode(Mode, bool),
    /// The addresses that are let through: unicast, multicast.
    Tables(Table, Table),
    /// The address of the card.
    Address(Mac),
    /// How many pairs are in use.
    Pairs(u16),
    /// What the driver takes from now on, as features.
    Offloads(u64),
}

impl Order {
    /// Reads an order. `None`: it is none, or of a feature that was not agreed on.
    pub(super) fn parse(chain: &mut Chain<'_>, agreed: u64) -> Option<Order> {
        let mut reader = chain.reader();
        let [class, command] = bytes(&mut reader)?;
        let has = |feature| agreed & feature != 0;
        match (class, command) {
            (RX, _) => {
                let mode = Mode::from_command(command)?;
                let feature = match mode {
                    Mode::Promiscuous | Mode::AllMulticast => features::CTRL_RX,
                    _ => features::CTRL_RX_EXTRA,
                };
                let [on] = bytes(&mut reader)?;
                has(feature).then_some(Order::Mode(mode, on != 0))
            }
            // The table comes with the modes, 5.1.6.5.2.
            (MAC, TABLE_SET) if has(features::CTRL_RX) => {
                let unicast = table(&mut reader)?;
                let multicast = table(&mut reader)?;
                Some(Order::Tables(unicast, multicast))
            }
            (MAC, ADDR_SET) if has(features::CTRL_MAC_ADDR) => {
                let address = Mac::new(bytes(&mut reader)?).check().ok()?;
                Some(Order::Address(address))
            }
            (MQ, VQ_PAIRS_SET) if has(features::MQ) => {
                let pairs = reader.read_obj::<Le16>().ok()?;
                Some(Order::Pairs(pairs.to_native()))
            }
            (GUEST_OFFLOADS, OFFLOADS_SET) if has(features::CTRL_GUEST_OFFLOADS) => {
                let wanted = reader.read_obj::<Le64>().ok()?.to_native();
                let allowed = agreed & features::GUEST_OFFLOADS;
                (wanted & !allowed == 0).then_some(Order::Offloads(wanted))
            }
            _ => None,
        }
    }
}

fn bytes<const N: usize>(reader: &mut Reader<'_>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// A number of addresses, and the addresses. There are no more than are in the chain, whatever the
/// number says.
fn table(reader: &mut Reader<'_>) -> Option<Table> {
    let count = reader.read_obj::<Le32>().ok()?.to_native() as usize;
    if count.checked_mul(6)? > reader.remaining() {
        return None;
    }
    if count > MAX_ADDRESSES {
        reader.advance(count.checked_mul(6)?);
        return Some(Table::everything());
    }
    let addresses = (0..count).map(|_| bytes(reader).map(Mac::new));
    Some(Table::new(addresses.collect::<Option<_>>()?))
}
