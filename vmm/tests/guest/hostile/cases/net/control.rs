//! Orders that a card should refuse (5.1.6.5), and some that look odd and are right.

use super::{Case, case};
use crate::hostile::card::feature::{CTRL_GUEST_OFFLOADS, CTRL_VQ, MQ};
use crate::hostile::card::{ORDER, PLAIN};
use crate::hostile::rig::Rig;

const OK: u8 = 0;
const ERR: u8 = 1;

/// Where the configuration has the address.
const ADDRESS: u64 = 0;

pub fn cases(rig: &Rig) -> Vec<Case> {
    let mut cases = commands(rig);
    cases.extend(tables());
    cases.extend(shapes());
    cases.push(case("an order without a control queue", |rig| {
        let needy = CTRL_VQ | 1 << 18 | 1 << 20 | MQ | 1 << 23;
        rig.start_with(16, needy);
        assert_eq!(rig.order(&[&ORDER], &[1]).0, [ERR]);
    }));
    if rig.offers(MQ) {
        cases.extend(pairs());
    }
    cases
}

/// A command and what is answered.
fn answered(name: impl Into<String>, expected: u8, parts: Vec<Vec<u8>>) -> Case {
    case(name, move |rig| {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(rig.order(&parts, &[1]), (vec![expected], 1));
    })
}

fn commands(rig: &Rig) -> Vec<Case> {
    let refused: &[(&str, &[u8])] = &[
        ("no command", &[]),
        ("a class without a command", &[0]),
        ("a receive mode that there is not", &[0, 6, 1]),
        ("the last receive mode", &[0, 255, 1]),
        ("a receive mode that is neither on nor off", &[0, 0]),
        ("an address of no bytes", &[1, 1]),
        ("an address of 5 bytes", &[1, 1, 2, 0, 0, 0, 0]),
        (
            "a command for addresses that there is not",
            &[1, 2, 2, 0, 0, 0, 0, 1],
        ),
        ("a VLAN, without the feature", &[2, 0, 1, 0]),
        ("VLAN 4096", &[2, 0, 0, 16]),
        ("VLAN 65535 is left", &[2, 1, 255, 255]),
        ("an announcement that nobody asked for", &[3, 0]),
        ("a hash, without the feature", &[4, 2, 1, 0, 0, 0, 0, 0]),
        ("queues by hash, without the feature", &[4, 1, 0, 0, 0, 0]),
        ("a command for pairs that there is not", &[4, 3, 1, 0]),
        ("one pair, without the feature", &[4, 0, 1, 0]),
        ("class 6", &[6, 0, 0, 0]),
        ("the last class", &[255, 255, 255, 255]),
    ];
    let mut cases: Vec<Case> = refused
        .iter()
        .map(|(name, bytes)| answered(*name, ERR, vec![bytes.to_vec()]))
        .collect();
    for (name, address) in [
        ("the address of nobody", [0; 6]),
        ("the address of everybody", [255; 6]),
        ("an address of many", [1, 0, 0x5e, 0, 0, 1]),
    ] {
        cases.push(case(format!("the card gets {name}"), move |rig| {
            let before: u64 = rig.registers.config().read(ADDRESS);
            assert_eq!(rig.order(&[&[1, 1], &address], &[1]).0, [ERR]);
            assert_eq!(rig.registers.config().read::<u64>(ADDRESS), before);
        }));
    }
    if rig.offers(CTRL_GUEST_OFFLOADS) {
        let offloads = [
            ("all offloads that can be said", u64::MAX),
            ("offloads of the other direction", 1 << 11),
            ("an offload that was not offered", 1 << 10),
            ("merging, which is none", 1 << 15),
        ];
        for (name, bits) in offloads {
            let parts = vec![vec![5, 0], bits.to_le_bytes().to_vec()];
            cases.push(answered(name, ERR, parts));
        }
        cases.push(answered(
            "offloads in 7 bytes",
            ERR,
            vec![vec![5, 0], vec![0; 7]],
        ));
        cases.push(answered(
            "a command for offloads",
            ERR,
            vec![vec![5, 1], vec![0; 8]],
        ));
    }
    cases
}

/// Tables of addresses: counts that are not those of what follows, and large ones that are.
fn tables() -> Vec<Case> {
    let table = |count: u32, has: usize| [&count.to_le_bytes()[..], &vec![2; 6 * has]].concat();
    let command = |parts: [Vec<u8>; 2]| [&[vec![1, 0]], &parts[..]].concat();
    let bad = [
        ("without a count", [vec![], vec![]]),
        ("with half a count", [vec![0, 0], vec![]]),
        ("without the second one", [table(0, 0), vec![]]),
        ("of 2^32 - 1 addresses", [table(u32::MAX, 2), table(0, 0)]),
        (
            "of 2^32 / 6 addresses",
            [table(u32::MAX / 6 + 1, 2), table(0, 0)],
        ),
        ("of more than there are", [table(3, 2), vec![]]),
        (
            "of which the second one is short",
            [table(1, 1), table(2, 1)],
        ),
        (
            "of which the second one is huge",
            [table(1, 1), table(1 << 31, 1)],
        ),
    ];
    let bad = bad.map(|(name, parts)| answered(format!("tables {name}"), ERR, command(parts)));
    let good = [
        ("of nobody", [table(0, 0), table(0, 0)]),
        (
            "of 5000 addresses each",
            [table(5000, 5000), table(5000, 5000)],
        ),
        (
            "of 170000 addresses",
            [table(170_000, 170_000), table(1, 1)],
        ),
    ];
    let good = good.map(|(name, parts)| {
        let name = format!("tables {name}, which may be");
        answered(name, OK, command(parts))
    });
    bad.into_iter().chain(good).collect()
}

fn shapes() -> Vec<Case> {
    vec![
        case("an order that can't be answered", |rig| {
            let before: u64 = rig.registers.config().read(ADDRESS);
            let order = [&[1, 1, 2][..], &[7; 5]].concat();
            assert_eq!(rig.order(&[&order], &[]).1, 0);
            assert_eq!(rig.order(&[&order], &[0]).1, 0);
            assert_eq!(rig.registers.config().read::<u64>(ADDRESS), before);
        }),
        case("an order where the answer should be", |rig| {
            assert_eq!(rig.order(&[], &[64]).1, 1);
            assert_eq!(rig.order(&[], &[1]), (vec![ERR], 1));
        }),
        case("an answer in the registers of the card", |rig| {
            let control = rig.control();
            rig.with_queue(control, |rig| {
                let mut order = rig.good();
                order[1].address = rig.registers.address();
                rig.offer(&order);
                rig.refuses();
            });
        }),
        case("an order in pieces, and with room for more", |rig| {
            assert_eq!(rig.order(&[&[0], &[0], &[], &[1]], &[0, 1]), (vec![OK], 1));
            let (answer, len) = rig.order(&[&ORDER], &[100]);
            assert_eq!((answer[0], len), (OK, 1));
        }),
        case("an order with a MiB behind it", |rig| {
            assert_eq!(rig.order(&[&ORDER, &[0xa5; 1 << 20]], &[1]).0, [OK]);
        }),
        case("a flood of orders", |rig| {
            rig.start_with(64, 0);
            for turn in 0..20 {
                let control = usize::from(rig.control());
                for number in 0..30 {
                    let order = [(turn + number) % 7, number % 3, 1, 0, 0, 0, 0, 0];
                    rig.rings[control].add(&[&order], &[1]);
                }
                rig.registers.notify(control as u32);
                (0..30).for_each(|_| assert_eq!(rig.used_of(control as u16).1, 1));
            }
        }),
        case("the card gets an address, and its own back", |rig| {
            let own: u64 = rig.registers.config().read(ADDRESS);
            let other = [2, 1, 2, 3, 4, 5];
            assert_eq!(rig.order(&[&[1, 1], &other], &[1]).0, [OK]);
            let now: [u8; 6] = rig.registers.config().read(ADDRESS);
            assert_eq!(now, other);
            rig.start();
            let now: u64 = rig.registers.config().read(ADDRESS);
            assert_eq!(now << 16, own << 16, "after a reset");
        }),
    ]
}

fn pairs() -> Vec<Case> {
    let all = [4, 0, 2, 0];
    let one = [4, 0, 1, 0];
    let wrong = [
        ("no pairs at all", 0),
        ("more pairs than there are", 3),
        ("0x8001 pairs", 0x8001),
        ("65535 pairs", u16::MAX),
    ];
    let wrong = wrong.map(|(name, count)| {
        case(format!("{name} are asked for"), move |rig| {
            rig.start_with_all();
            let order = [&[4, 0], &count.to_le_bytes()[..]].concat();
            assert_eq!(rig.order(&[&order], &[1]).0, [ERR]);
            assert_eq!(rig.order(&[&order[..3]], &[1]).0, [ERR]);
        })
    });
    let others = [
        case("pairs come and go amid frames", move |rig| {
            rig.start_with_all();
            for _ in 0..20 {
                assert_eq!(rig.order(&[&all], &[1]).0, [OK]);
                let frame = rig.frame(60);
                assert!(rig.pass(1, &[&PLAIN, &frame]).is_some());
                let frame = rig.frame(60);
                rig.rings[3].add(&[&PLAIN, &frame], &[]);
                rig.registers.notify(3);
                assert_eq!(rig.order(&[&one], &[1]).0, [OK]);
                rig.works();
                assert_eq!(rig.order(&[&all], &[1]).0, [OK]);
                // What was there before is served, sooner or later.
                rig.used_of(3);
            }
        }),
        case("a pair that is in use breaks the rules", move |rig| {
            rig.start_with_all();
            assert_eq!(rig.order(&[&all], &[1]).0, [OK]);
            rig.with_queue(2, |rig| {
                rig.main().corrupt();
                rig.kick();
                rig.refuses();
            });
        }),
    ];
    wrong.into_iter().chain(others).collect()
}
