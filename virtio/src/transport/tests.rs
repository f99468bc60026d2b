mod statuses;

use super::status::{ACKNOWLEDGE, DRIVER};
use super::*;
use crate::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED, VERSION_1};
use crate::testing::driver::Machine;
use crate::testing::echo::{ECHO, Echo, FEATURE, KEEP};
use crate::testing::ring::Ring;

const FOUND: u32 = (ACKNOWLEDGE | DRIVER) as u32;
const NEGOTIATED: u32 = FOUND | FEATURES_OK as u32;
const RUNNING: u32 = NEGOTIATED | DRIVER_OK as u32;
const GIVEN_UP: u32 = FAILED as u32;

fn core() -> (Core, Machine) {
    let machine = Machine::default();
    let core = Core::with_mode(
        Box::new(Echo::default()),
        machine.environment(),
        Mode::Inline,
    );
    (core.unwrap(), machine)
}

/// A device whose driver has written these statuses one after the other.
fn core_at(statuses: &[u32]) -> (Core, Machine) {
    let (mut core, machine) = core();
    go(&mut core, statuses);
    (core, machine)
}

fn go(core: &mut Core, statuses: &[u32]) {
    core.set_status(0);
    core.set_driver_features(1, (VERSION_1 >> 32) as u32);
    for status in statuses {
        core.set_status(*status);
    }
}

/// A valid set-up of a queue of 64.
fn config(machine: &Machine) -> QueueConfig {
    Ring::split(&machine.memory, 0x1000..0x10000, 64, 0).config()
}

fn set_up(core: &mut Core, index: u16, config: &QueueConfig) {
    core.set_queue_size(index.into(), config.size.into());
    core.set_queue_addresses(index.into(), |queue| {
        *queue.desc = config.desc;
        *queue.avail = config.avail;
        *queue.used = config.used;
    });
}

#[test]
fn status_wider_than_a_byte_is_ignored() {
    let (mut core, _machine) = core_at(&[FOUND]);
    for value in [0x100, 0x10b, 0xffff_ff0b, u32::MAX, 0x8000_0000] {
        core.set_status(value);
        assert_eq!(u32::from(core.status()), FOUND, "{value:#x}");
    }
}

#[test]
fn needs_reset_written_by_the_driver_is_ignored() {
    let (mut core, _machine) = core_at(&[FOUND]);
    core.set_status(FOUND | u32::from(NEEDS_RESET));
    core.set_status(NEGOTIATED | u32::from(NEEDS_RESET));
    assert_eq!(u32::from(core.status()), FOUND);
}

#[test]
fn status_written_back_with_needs_reset_can_still_add_failed() {
    let (mut core, _machine) = core_at(&[FOUND, NEGOTIATED, RUNNING]);
    core.link.fail(&Error::QueueMissing(0));
    let status = u32::from(core.status());
    assert_eq!(status, RUNNING | u32::from(NEEDS_RESET));
    core.set_status(status | GIVEN_UP);
    assert_eq!(
        u32::from(core.status()),
        RUNNING | GIVEN_UP | u32::from(NEEDS_RESET)
    );
    core.set_status(0);
    assert_eq!(core.status(), 0);
}

#[test]
fn features_offered_are_the_devices_and_the_rings() {
    let (core, _machine) = core();
    let offered = u64::from(core.device_features(0)) | u64::from(core.device_features(1)) << 32;
    let rings = INDIRECT_DESC | EVENT_IDX | RING_PACKED;
    assert_eq!(offered, FEATURE | rings | VERSION_1);
    for select in [2, 3, 0x8000_0000, u32::MAX] {
        assert_eq!(core.device_features(select), 0);
    }
}

#[test]
fn features_not_offered_or_without_version_1_are_refused() {
    for features in [
        0,
        FEATURE,
        VERSION_1 | 1,
        VERSION_1 | IN_ORDER,
        VERSION_1 | 1 << 63,
        u64::MAX,
    ] {
        let (mut core, _machine) = core();
        core.set_status(FOUND);
        core.set_driver_features(0, features as u32);
        core.set_driver_features(1, (features >> 32) as u32);
        core.set_status(NEGOTIATED);
        assert_eq!(u32::from(core.status()), FOUND, "{features:#x}");
    }
}

#[test]
fn the_layout_that_is_forced_is_the_only_one() {
    for (rings, packed, split) in [
        (Rings::Split, false, true),
        (Rings::Packed, true, false),
        (Rings::Any, true, true),
    ] {
        let mut machine = Machine::default();
        machine.rings = rings;
        let device = Box::new(Echo::default());
        let core = Core::with_mode(device, machine.environment(), Mode::Inline);
        let mut core = core.unwrap();
        let mut agrees = |features: u64| {
            core.set_status(0);
            core.set_status(FOUND);
            core.set_driver_features(1, (features >> 32) as u32);
            core.set_status(NEGOTIATED);
            u32::from(core.status()) == NEGOTIATED
        };
        assert_eq!(agrees(VERSION_1 | RING_PACKED), packed, "{rings:?}");
        assert_eq!(agrees(VERSION_1), split, "{rings:?}");
    }
}

#[test]
fn features_can_be_tried_again_after_a_refusal() {
    let (mut core, _machine) = core_at(&[FOUND]);
    core.set_driver_features(0, 1);
    core.set_status(NEGOTIATED);
    core.set_driver_features(0, FEATURE as u32);
    core.set_status(NEGOTIATED);
    assert_eq!(u32::from(core.status()), NEGOTIATED);
}

#[test]
fn features_are_frozen_after_features_ok_and_gone_after_a_reset() {
    let (mut core, _machine) = core_at(&[FOUND, NEGOTIATED]);
    core.set_driver_features(0, FEATURE as u32);
    core.set_driver_features(1, 0);
    assert_eq!((core.driver_features(0), core.driver_features(1)), (0, 1));
    core.set_status(0);
    assert_eq!((core.driver_features(0), core.driver_features(1)), (0, 0));
}

#[test]
fn feature_halves_that_do_not_exist_are_ignored() {
    let (mut core, _machine) = core();
    for select in [2, 3, 0x8000_0000, u32::MAX] {
        core.set_driver_features(select, u32::MAX);
        assert_eq!(core.driver_features(select), 0);
    }
    assert_eq!(core.driver_features, 0);
}

#[test]
fn a_configuration_space_read_under_one_generation_is_not_torn() {
    let (core, _machine) = core();
    let config = Arc::clone(&core.spec().config);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                config.update(|bytes| {
                    bytes
                        .iter_mut()
                        .for_each(|byte| *byte = byte.wrapping_add(1))
                });
            }
        });
        for _ in 0..20_000 {
            let before = core.config_generation();
            let mut bytes = [0; 16];
            for (index, part) in (0..).zip(bytes.chunks_mut(4)) {
                core.read_config(4 * index, part);
            }
            if core.config_generation() == before {
                assert_eq!(bytes, [bytes[0]; 16]);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn queue_sizes_that_cannot_be_are_ignored() {
    let (mut core, _machine) = core_at(&[FOUND, NEGOTIATED]);
    core.set_queue_size(0, 128);
    for size in [
        0,
        3,
        255,
        257,
        512,
        32768,
        65535,
        65536,
        65536 + 64,
        u32::MAX,
    ] {
        core.set_queue_size(0, size);
        assert_eq!(core.queue(0).unwrap().size, 128, "{size}");
    }
}

#[test]
fn queue_sizes_of_packed_rings_need_not_be_powers_of_two() {
    let (mut core, _machine) = core_at(&[FOUND]);
    core.set_driver_features(1, ((VERSION_1 | RING_PACKED) >> 32) as u32);
    core.set_status(NEGOTIATED);
    for size in [1, 3, 255, 256] {
        core.set_queue_size(0, size);
        assert_eq!(u32::from(core.queue(0).unwrap().size), size);
    }
    for size in [0, 257, 32769, 65536 + 64] {
        core.set_queue_size(0, size);
        assert_eq!(core.queue(0).unwrap().size, 256, "{size}");
    }
}

#[test]
fn queue_without_addresses_cannot_be_enabled() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    let good = config(&machine);
    for bad in [
        QueueConfig { desc: 0, ..good },
        QueueConfig { avail: 0, ..good },
        QueueConfig { used: 0, ..good },
        QueueConfig {
            desc: 0,
            avail: 0,
            used: 0,
            ..good
        },
    ] {
        set_up(&mut core, 0, &bad);
        core.set_queue_ready(0, 1);
        assert!(!core.queue(0).unwrap().ready, "{bad:?}");
    }
}

#[test]
fn queue_outside_of_memory_or_misaligned_cannot_be_enabled() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    let good = config(&machine);
    for at in [
        1 << 40,
        0xd000_0000,
        u64::MAX,
        u64::MAX - 15,
        0x80_1000,
        0x80_0ff0,
        0x1001,
    ] {
        for bad in [
            QueueConfig { desc: at, ..good },
            QueueConfig { avail: at, ..good },
            QueueConfig { used: at, ..good },
        ] {
            set_up(&mut core, 0, &bad);
            core.set_queue_ready(0, 1);
            assert!(!core.queue(0).unwrap().ready, "{bad:x?}");
        }
    }
    set_up(&mut core, 0, &good);
    core.set_queue_ready(0, 1);
    assert!(core.queue(0).unwrap().ready, "the good one");
}

#[test]
fn queue_ready_takes_no_value_but_0_and_1() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    set_up(&mut core, 0, &config(&machine));
    for value in [2, 3, 0x8000_0001, u32::MAX] {
        core.set_queue_ready(0, value);
        assert!(!core.queue(0).unwrap().ready, "{value:#x}");
    }
    core.set_queue_ready(0, 1);
    for value in [2, 3, 0x8000_0000, u32::MAX] {
        core.set_queue_ready(0, value);
        assert!(core.queue(0).unwrap().ready, "{value:#x}");
    }
}

#[test]
fn queue_set_up_is_frozen_while_it_is_enabled() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    set_up(&mut core, 0, &config(&machine));
    core.set_queue_ready(0, 1);
    core.set_queue_ready(0, 1);
    let enabled = *core.queue(0).unwrap();
    set_up(
        &mut core,
        0,
        &QueueConfig {
            size: 16,
            desc: 64,
            avail: 64,
            used: 64,
            ..enabled
        },
    );
    assert_eq!(*core.queue(0).unwrap(), enabled);
    core.set_queue_ready(0, 0);
    core.set_queue_size(0, 16);
    assert_eq!(
        *core.queue(0).unwrap(),
        QueueConfig {
            ready: false,
            size: 16,
            ..enabled
        }
    );
}

#[test]
fn queue_set_up_is_frozen_for_good_after_driver_ok_and_after_failed() {
    for last in [RUNNING, NEGOTIATED | GIVEN_UP] {
        let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
        let good = config(&machine);
        set_up(&mut core, 0, &good);
        set_up(&mut core, 1, &good);
        core.set_queue_ready(0, 1);
        core.set_status(last);
        let before = [*core.queue(0).unwrap(), *core.queue(1).unwrap()];
        for index in [0, 1] {
            set_up(
                &mut core,
                index,
                &QueueConfig {
                    size: 16,
                    desc: 64,
                    ..good
                },
            );
            core.set_queue_ready(index.into(), 1);
            core.set_queue_ready(index.into(), 0);
        }
        assert_eq!([*core.queue(0).unwrap(), *core.queue(1).unwrap()], before);
    }
}

#[test]
fn queues_that_do_not_exist_are_ignored() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    let good = config(&machine);
    for index in [2, 0xffff, 0x1_0000, u32::MAX] {
        core.set_queue_size(index, 64);
        core.set_queue_addresses(index, |queue| *queue.desc = good.desc);
        core.set_queue_ready(index, 1);
        core.notify(index);
        assert!(core.queue(index).is_none());
    }
}

#[test]
fn queue_set_up_is_gone_after_a_reset() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    set_up(&mut core, 0, &config(&machine));
    core.set_queue_ready(0, 1);
    core.set_status(0);
    let fresh = QueueConfig {
        max_size: 256,
        size: 256,
        ..QueueConfig::default()
    };
    assert_eq!(*core.queue(0).unwrap(), fresh);
}

#[test]
fn notify_rings_only_the_doorbell_of_a_queue_in_use() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED]);
    let rung = |core: &Core| -> Vec<bool> {
        for queue in [0, 1, 2, 0xffff, 0x1_0000, u32::MAX] {
            core.notify(queue);
        }
        core.doorbells()
            .iter()
            .map(|doorbell| doorbell.read().is_ok())
            .collect()
    };
    set_up(&mut core, ECHO, &config(&machine));
    core.set_queue_ready(ECHO.into(), 1);
    assert_eq!(rung(&core), [false, false], "before DRIVER_OK");
    core.set_status(RUNNING);
    assert_eq!(rung(&core), [true, false], "in use, and not enabled");
    core.set_status(RUNNING | GIVEN_UP);
    assert_eq!(rung(&core), [false, false], "after FAILED");
    core.set_status(0);
    assert_eq!(rung(&core), [false, false], "after a reset");
    assert!(core.queue(KEEP.into()).is_some());
}

#[test]
fn a_device_starts_without_queues() {
    let (mut core, machine) = core_at(&[FOUND, NEGOTIATED, RUNNING]);
    assert_eq!(u32::from(core.status()), RUNNING);
    assert!(core.life().ever_started());
    assert_eq!(machine.failures(), []);
}

#[test]
fn a_stopped_device_cannot_be_started_again() {
    let (mut core, _machine) = core_at(&[FOUND, NEGOTIATED, RUNNING]);
    core.life().stop();
    core.life().stop();
    go(&mut core, &[FOUND, NEGOTIATED, RUNNING]);
    assert_eq!(u32::from(core.status()), RUNNING | u32::from(NEEDS_RESET));
}

#[test]
fn resume_without_pause_and_pause_while_idle_do_nothing() {
    let (mut core, _machine) = core();
    core.life().pause().unwrap();
    core.life().resume().unwrap();
    core.life().pause().unwrap();
    go(&mut core, &[FOUND, NEGOTIATED, RUNNING]);
    core.life().resume().unwrap();
    assert_eq!(u32::from(core.status()), RUNNING);
}

#[test]
fn specs_that_cannot_be_are_refused() {
    struct Odd(Spec);
    impl Device for Odd {
        fn spec(&self) -> &Spec {
            &self.0
        }
        fn activate(&mut self, _: &mut Io) -> Result<(), Error> {
            Ok(())
        }
        fn handle(&mut self, _: crate::Event, _: &mut Io) -> Result<(), Error> {
            Ok(())
        }
        fn quiesce(&mut self, _: &mut Io) -> Result<(), Error> {
            Ok(())
        }
    }
    let good = Echo::default().spec().clone();
    let odd = |name: &str, queues: Vec<u16>| {
        let spec = Spec {
            name: name.to_owned(),
            queues,
            ..good.clone()
        };
        Core::new(Box::new(Odd(spec)), Machine::default().environment())
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(odd("disk0", vec![1, 32768]), None);
    for (name, queues) in [
        ("", vec![]),
        ("a\0b", vec![]),
        ("a", vec![0]),
        ("a", vec![3]),
        ("a", vec![65535]),
    ] {
        assert_eq!(odd(name, queues), Some(format!("setting up {name}")));
    }
}

#[test]
fn device_types_that_pci_has_no_number_for_are_refused() {
    let spec = |id| Spec {
        kind: Kind::Other(id),
        ..Echo::default().spec().clone()
    };

    for id in [0, 64, u8::MAX] {
        assert!(check(&spec(id)).is_err(), "{id}");
    }
    for id in [1, 63] {
        assert_eq!(check(&spec(id)), Ok(()), "{id}");
    }
}
