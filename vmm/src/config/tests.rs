use super::*;
use loader::Boot;
use virtio::block::MemoryDisk;

/// A configuration with which nothing is wrong.
fn sound() -> Config {
    let loader = |_: &crate::Guest<'_>| Ok(Boot::default());
    Config {
        loader: Some(Box::new(loader)),
        ..Config::default()
    }
}

#[test]
fn a_sound_configuration_has_no_problems() {
    sound().validate().unwrap();
}

#[test]
fn the_default_only_lacks_something_to_boot() {
    let problems = Config::default().validate().unwrap_err();

    assert_eq!(
        problems.to_string(),
        "nothing to boot: neither a payload nor a loader of the caller's"
    );
}

#[test]
fn all_problems_are_told_at_once_one_line_each() {
    let config = Config {
        cpus: 0,
        memory: 4095,
        ..Config::default()
    };

    let problems = config.validate().unwrap_err();

    let text = problems.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "0 vCPUs: the number must be 1 to 254");
    assert!(
        lines[1].contains("4095") && lines[1].contains("1048576"),
        "{text}"
    );
    assert!(lines[2].contains("nothing to boot"), "{text}");
}

#[test]
fn numbers_of_vcpus_outside_of_the_limits_are_refused() {
    for cpus in [0, MAX_CPUS + 1, 1025, u32::MAX] {
        let problems = Config { cpus, ..sound() }.validate().unwrap_err();
        assert!(
            problems.to_string().starts_with(&format!("{cpus} vCPUs")),
            "{problems}"
        );
    }
    for cpus in [1, MAX_CPUS] {
        Config { cpus, ..sound() }.validate().unwrap();
    }
}

#[test]
fn memory_sizes_that_are_too_small_or_not_whole_pages_are_refused() {
    for memory in [0, 1, 4095, (1 << 20) - 1, (1 << 20) + 1, u64::MAX] {
        let problems = Config { memory, ..sound() }.validate().unwrap_err();
        assert!(
            problems.to_string().contains(&memory.to_string()),
            "{problems}"
        );
    }
}

#[test]
fn more_devices_than_places_on_a_transport_are_refused_with_the_limit() {
    let devices = |count| (0..count).map(|_| virtio::console::Console::new(None, None).into());
    for (transport, max) in [(Transport::Mmio, 256), (Transport::Pci, 248)] {
        let config = |count| Config {
            devices: devices(count).collect(),
            transport: Some(transport),
            ..sound()
        };
        config(max).validate().unwrap();

        let problems = config(max + 1).validate().unwrap_err();

        let expected = format!(
            "{} virtio devices on {transport}: there are places for {max}",
            max + 1
        );
        assert_eq!(problems.to_string(), expected);
    }
}

#[test]
fn devices_with_a_transport_of_their_own_count_there() {
    let device = || VirtioDevice::from(virtio::console::Console::new(None, None));
    let config = |on_pci| Config {
        devices: (0..256)
            .map(|_| device())
            .chain((0..on_pci).map(|_| device().transport(Transport::Pci)))
            .collect(),
        ..sound()
    };

    config(248).validate().unwrap();
    let problems = config(249).validate().unwrap_err();

    assert!(
        problems.to_string().contains("249 virtio devices on pci"),
        "{problems}"
    );
}

#[test]
fn a_device_is_where_it_says_else_where_all_are_else_where_its_kind_is() {
    use Transport::{Mmio, Pci};
    let disk = || VirtioDevice::from(virtio::block::Block::new(MemoryDisk::new(512).unwrap()));
    let console = || VirtioDevice::from(virtio::console::Console::new(None, None));
    for (own, of_all, of_disk, of_console) in [
        (None, None, Pci, Mmio),
        (None, Some(Mmio), Mmio, Mmio),
        (None, Some(Pci), Pci, Pci),
        (Some(Mmio), Some(Pci), Mmio, Mmio),
        (Some(Pci), None, Pci, Pci),
    ] {
        let config = Config {
            transport: of_all,
            ..Config::default()
        };
        let place = |device: VirtioDevice| {
            let own = own.into_iter();
            config.transport_of(&own.fold(device, VirtioDevice::transport))
        };

        assert_eq!(place(disk()), of_disk, "{own:?} {of_all:?}");
        assert_eq!(place(console()), of_console, "{own:?} {of_all:?}");
    }
}

#[test]
fn an_unusable_payload_is_a_problem_for_each_of_its_files_with_the_cause() {
    let payload = Payload::linux("/nonexistent/kernel").initrd("/nonexistent/initrd");
    let config = Config {
        payload: Some(payload),
        ..Config::default()
    };

    let problems = config.validate().unwrap_err();

    let text = problems.to_string();
    assert_eq!(problems.iter().count(), 2, "{text}");
    assert!(
        text.lines().all(|line| line.contains("No such file")),
        "{text}"
    );
}
