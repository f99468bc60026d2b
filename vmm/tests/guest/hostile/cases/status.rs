//! Device status, features, reset and doorbells out of order (virtio 1.2, chapters 2 and 3).

use super::{Case, case};
use crate::hostile::rig::{FOUND, NEGOTIATED, RUNNING, Rig, SIZE};
use vmm::virtio::features::{INDIRECT_DESC, RING_PACKED, VERSION_1};

const FAILED: u32 = 128;

/// Numbers that no driver may write in any status: bits are missing, skipped or reserved, or are
/// the device's.
const NONSENSE: [u32; 24] = [
    2,
    4,
    5,
    6,
    8,
    9,
    10,
    12,
    13,
    14,
    16,
    32,
    64,
    64 | 1,
    64 | FOUND,
    64 | NEGOTIATED,
    64 | RUNNING,
    16 | RUNNING,
    32 | RUNNING,
    0xff,
    0x100,
    0x100 | RUNNING,
    0x8000_0000,
    u32::MAX,
];

pub fn cases() -> Vec<Case> {
    let mut cases = nonsense();
    cases.extend(features());
    cases.extend(doorbells());
    cases.extend(resets());
    cases
}

fn nonsense() -> Vec<Case> {
    // How to get there, the status, and what may not be written then: what was skipped, and what
    // was before.
    type Way = (&'static str, fn(&mut Rig), u32, &'static [u32]);
    let ways: [Way; 4] = [
        ("after a reset", Rig::reset, 0, &[NEGOTIATED, RUNNING]),
        ("when it is found", Rig::find, FOUND, &[1, RUNNING]),
        (
            "when features are agreed on",
            |rig| rig.negotiate(0),
            NEGOTIATED,
            &[1, FOUND],
        ),
        ("when it runs", |_| {}, RUNNING, &[1, FOUND, NEGOTIATED]),
    ];
    let nonsense = ways.into_iter().map(|(name, go, status, more)| {
        case(
            format!("nonsense is written to the status {name}"),
            move |rig| {
                go(rig);
                assert_eq!(rig.status(), status);
                for value in NONSENSE.into_iter().chain(more.iter().copied()) {
                    rig.set_status(value);
                    assert_eq!(rig.status(), status, "after {value:#x}");
                }
            },
        )
    });
    nonsense
        .chain([
            case("the driver gives up, and then goes on", |rig| {
                rig.set_status(RUNNING | FAILED);
                assert_eq!(rig.status(), RUNNING | FAILED);
                for value in [1, FOUND, NEGOTIATED, RUNNING, FAILED] {
                    rig.set_status(value);
                    assert_eq!(rig.status(), RUNNING | FAILED, "after {value:#x}");
                }
                let chain = rig.good();
                rig.offer(&chain);
                assert_eq!(rig.main().used_waiting(), 0);
            }),
            case("the driver gives up at once", |rig| {
                rig.reset();
                rig.set_status(FAILED);
                rig.set_status(1);
                assert_eq!(rig.status(), FAILED);
            }),
        ])
        .collect()
}

fn features() -> Vec<Case> {
    let refused = |name: &str, change: fn(u64) -> u64| {
        case(name, move |rig| {
            let features = change(rig.wanted());
            assert!(!rig.offer_features(features), "{features:#x}");
            rig.set_status(RUNNING);
            assert_eq!(rig.status(), FOUND, "nor does the device run");
        })
    };
    vec![
        refused("no VERSION_1", |features| features & !VERSION_1),
        refused("no features at all", |_| 0),
        refused("all features", |_| u64::MAX),
        refused("a device feature that is not offered", |features| {
            features | 1 << 23
        }),
        refused("RING_RESET, which is not offered", |features| {
            features | 1 << 40
        }),
        refused("IN_ORDER, which is not offered", |features| {
            features | 1 << 35
        }),
        refused("the last feature bit", |features| features | 1 << 63),
        case("feature words beyond the second are written", |rig| {
            rig.find();
            rig.set_features(rig.wanted());
            for select in [2, 3, 0x8000_0000, u32::MAX] {
                rig.registers.set_driver_features(select, u32::MAX);
            }
            rig.set_status(NEGOTIATED);
            assert_eq!(rig.status(), NEGOTIATED);
        }),
        case("features are changed after they were agreed on", |rig| {
            rig.negotiate(0);
            rig.set_features(rig.wanted() ^ (RING_PACKED | INDIRECT_DESC));
            rig.set_up(SIZE, 0);
            rig.set_features(0);
            rig.set_status(RUNNING);
            rig.set_features(u64::MAX);
            rig.works();
            let id = rig.main().add_indirect(&[&[0; 16]], &[32, 1]);
            rig.kick();
            assert_eq!(rig.used().0, id, "indirect descriptors still are known");
        }),
        case(
            "features are refused, and then mended without a reset",
            |rig| {
                assert!(!rig.offer_features(u64::MAX));
                rig.set_features(rig.wanted());
                rig.set_status(NEGOTIATED);
                assert_eq!(rig.status(), NEGOTIATED);
                rig.set_up(SIZE, 0);
                rig.set_status(RUNNING);
                rig.works();
            },
        ),
    ]
}

fn doorbells() -> Vec<Case> {
    vec![
        case("the device runs without queues", |rig| {
            rig.negotiate(0);
            rig.set_status(RUNNING);
            rig.kick();
            assert_eq!(rig.status(), RUNNING);
        }),
        case("a doorbell is rung before the device runs", |rig| {
            rig.negotiate(0);
            rig.kick();
            rig.set_up(SIZE, 0);
            rig.kick();
            let chain = rig.good();
            rig.offer(&chain);
            assert_eq!(rig.main().used_waiting(), 0);
            rig.set_status(RUNNING);
            // What was made available before is served without another doorbell.
            rig.used();
        }),
        case("a doorbell is rung after a reset", |rig| {
            let chain = rig.good();
            rig.write(&chain);
            rig.set_status(0);
            assert_eq!(rig.status(), 0);
            // A device that has just started looks into its ring without a doorbell.
            let before = rig.main().used_waiting();
            for _ in 0..100 {
                rig.kick();
            }
            assert_eq!(rig.status(), 0);
            assert_eq!(rig.main().used_waiting(), before);
        }),
        case("doorbells of queues that do not exist are rung", |rig| {
            for queue in [2, 64, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
                rig.registers.notify(queue);
            }
            rig.works();
        }),
        case("a storm of doorbells", |rig| {
            for _ in 0..2000 {
                rig.kick();
            }
            rig.works();
        }),
    ]
}

fn resets() -> Vec<Case> {
    vec![
        case("a reset with requests in the ring", |rig| {
            for _ in 0..20 {
                for _ in 0..4 {
                    let chain = rig.good();
                    rig.write(&chain);
                }
                rig.kick();
                rig.set_status(0);
                assert_eq!(rig.status(), 0);
                let poison = [0xa5; 1024];
                let start = areas_start(rig);
                rig.main().write(start, &poison);
                rig.kick();
                assert_eq!(rig.main().read(start, poison.len()), poison, "left alone");
                rig.reset();
                rig.start();
            }
            rig.works();
        }),
        case("a reset in each state, twice", |rig| {
            let ways: [fn(&mut Rig); 4] =
                [Rig::reset, Rig::find, |rig| rig.negotiate(0), Rig::start];
            for way in ways {
                way(rig);
                rig.set_status(0);
                rig.set_status(0);
                assert_eq!(rig.status(), 0);
                assert_eq!(
                    rig.registers.enable(rig.queue().into(), 1),
                    0,
                    "no address is left"
                );
            }
        }),
        case("the ring layout changes with each reset", |rig| {
            let packed = rig.packed;
            for turn in 0..10 {
                rig.packed = packed != (turn % 2 == 0);
                rig.start();
                rig.works();
            }
            rig.packed = packed;
        }),
    ]
}

/// Where the ring of the queue starts.
fn areas_start(rig: &mut Rig) -> u64 {
    rig.main().config().desc
}
