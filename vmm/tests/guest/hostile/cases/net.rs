//! What a card has to put up with (virtio 1.2, 5.1): frames and their headers, buffers to receive
//! in, orders, and broken chains on each kind of queue.

mod control;
mod receiving;
mod sending;

use super::{Case, case, chains, packed, split};
use crate::hostile::card::feature::{
    CSUM, CTRL_MAC_ADDR, CTRL_RX, CTRL_VQ, GUEST_CSUM, GUEST_TSO, HOST_TSO, MQ,
};
use crate::hostile::rig::{FOUND, RUNNING, Rig, SIZE};
use crate::hostile::transport::Registers;

pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = sending::cases(rig);
    cases.extend(receiving::cases(rig));
    cases.extend(control::cases(rig));
    cases.extend(features(rig));
    cases.extend(queues(rig));
    cases.extend(chains_of_each_queue(rig));
    cases
}

/// Features that make no sense without others.
fn features(rig: &Rig) -> Vec<Case> {
    let refused = [
        ("receive modes", CTRL_RX, CTRL_VQ),
        ("several pairs of queues", MQ, CTRL_VQ),
        ("a new address", CTRL_MAC_ADDR, CTRL_VQ),
        ("segments to send", HOST_TSO, CSUM),
        ("segments to receive", GUEST_TSO, GUEST_CSUM),
    ];
    let offered = refused
        .into_iter()
        .filter(|(_, with, without)| rig.offers(with | without));
    let cases = offered.map(|(name, with, without)| {
        case(
            format!("{name} without the feature that this needs"),
            move |rig| {
                let needy = CTRL_RX | MQ | CTRL_MAC_ADDR | HOST_TSO | GUEST_TSO;
                let features = rig.wanted() & !needy & !without | with;
                assert!(!rig.offer_features(features), "{features:#x}");
                assert_eq!(rig.status(), FOUND);
            },
        )
    });
    cases.collect()
}

/// Queues that are missing, and doorbells of such.
fn queues(rig: &Rig) -> Vec<Case> {
    let queues = rig.card_queues(if rig.offers(MQ) { MQ } else { 0 });
    let mut cases: Vec<Case> = (0..queues)
        .map(|missing| {
            case(format!("a card without its queue {missing}"), move |rig| {
                rig.start_with_all();
                rig.negotiate(0);
                rig.set_up_all_but(Some(missing), SIZE, 0);
                rig.set_status(RUNNING);
                for queue in 0..=rig.control() {
                    rig.registers.notify(queue.into());
                }
                if missing != rig.control() {
                    let order = [4, 0, 2, 0];
                    let expected = u8::from(!rig.offers(MQ));
                    assert_eq!(rig.order(&[&order], &[1]).0, [expected]);
                }
                if missing > 1 {
                    let frame = rig.frame(60);
                    assert!(rig.pass(0, &[&[0; 12], &frame]).is_some());
                }
                assert_eq!(rig.status(), RUNNING);
            })
        })
        .collect();
    cases.push(case(
        "doorbells of queues that a card does not have",
        |rig| {
            let behind = u32::from(rig.control()) + 1;
            for queue in [behind, behind + 1, 33, 34, 0xffff, u32::MAX] {
                rig.registers.notify(queue);
            }
            rig.works();
        },
    ));
    if rig.offers(MQ) {
        cases.push(case("a pair of queues that is not in use", |rig| {
            rig.start_with_all();
            let (frame, room) = (rig.frame(60), 2000);
            rig.rings[3].add(&[&[0; 12], &frame], &[]);
            rig.rings[2].add(&[], &[room]);
            for _ in 0..100 {
                rig.registers.notify(3);
                rig.registers.notify(2);
            }
            rig.works();
            let waiting = [2, 3].map(|queue: usize| rig.rings[queue].used_waiting());
            assert_eq!(waiting, [0, 0], "nobody looks there");
        }));
    }
    cases
}

/// What breaks the rules of rings. How a ring is read does not depend on the transport, nor what is
/// made of a broken one on what the others are for; but a receive queue keeps its chains. So each
/// machine has one of the queues.
fn chains_of_each_queue(rig: &Rig) -> Vec<Case> {
    let on_pci = matches!(*rig.registers, Registers::Pci(_));
    let (name, queue) = match (on_pci, rig.packed) {
        (false, false) | (true, true) => ("receive", 0),
        (false, true) => ("transmit", 1),
        (true, false) => ("control", 2),
    };
    let mut broken = chains::cases(rig);
    broken.extend(match rig.packed {
        true => packed::cases(),
        false => split::cases(),
    });
    let named = broken.into_iter().map(|Case { name: what, run }| {
        case(format!("{name} queue: {what}"), move |rig| {
            rig.with_queue(queue, |rig| run(rig));
        })
    });
    named.collect()
}
