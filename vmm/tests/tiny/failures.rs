//! Machines that can't be built, and guests that KVM can't run.

use crate::guest::*;
use crate::kvm_test;
use std::error::Error as _;
use std::fs::File;
use std::path::PathBuf;
use vmm::{Config, Error, Guest, KvmSource, Outcome, Vm};

fn refused(config: Config) -> Error {
    Vm::new(config).err().expect("the machine was built")
}

/// The whole chain, as a command would print it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_wrong_configuration_is_refused_before_kvm_is_opened() {
    let kvm = KvmSource::Path(PathBuf::from("/nonexistent"));
    let config = Config {
        cpus: 0,
        kvm,
        ..config(Code::new())
    };

    assert!(matches!(refused(config), Error::Config(_)));
}

#[test]
fn a_kvm_that_is_not_there_is_named_and_has_a_hint() {
    let kvm = KvmSource::Path(PathBuf::from("/nonexistent/kvm"));
    let error = refused(Config {
        kvm,
        ..config(Code::new())
    });

    assert!(
        chain(&error).contains("/nonexistent/kvm"),
        "{}",
        chain(&error)
    );
    assert!(error.hint().is_some());
}

#[test]
fn a_descriptor_that_is_not_kvm_is_refused() {
    let kvm = KvmSource::Fd(File::open("/dev/null").unwrap().into());
    let error = refused(Config {
        kvm,
        ..config(Code::new())
    });

    assert!(
        chain(&error).contains("not a KVM device"),
        "{}",
        chain(&error)
    );
}

kvm_test!(a_descriptor_of_kvm_is_as_good_as_its_path, {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .unwrap();
    let config = Config {
        kvm: KvmSource::Fd(file.into()),
        ..config(Code::new().power_off())
    };

    assert_eq!(run(config), Outcome::Shutdown);
});

kvm_test!(
    memory_that_the_guest_cannot_address_is_refused_with_the_limit,
    {
        let error = refused(Config {
            memory: 1 << 60,
            ..config(Code::new())
        });

        assert!(
            chain(&error).contains("physical address bits"),
            "{}",
            chain(&error)
        );
    }
);

kvm_test!(a_loader_that_fails_is_the_source_of_the_error, {
    let loader = |_: &Guest<'_>| Err("boom".into());
    let error = refused(Config {
        loader: Some(Box::new(loader)),
        ..Config::default()
    });

    assert_eq!(chain(&error), "the guest can't be loaded: boom");
});

kvm_test!(a_loader_is_told_about_memory_tables_devices_and_payload, {
    let loader = |guest: &Guest<'_>| {
        let device = guest.devices.first().ok_or("no device")?;
        Err(format!(
            "{} at {:#x}, rsdp {}, command line {:?}, extra {:?}",
            device.name,
            device.base,
            guest.platform.rsdp.is_some(),
            guest.payload.map(|payload| payload.cmdline.as_str()),
            guest.platform.cmdline_extra,
        )
        .into())
    };
    let console = || {
        vmm::virtio::console::Console::new(None, None)
            .name("c")
            .into()
    };
    let told = |acpi, cmdline| {
        let config = config_with_cmdline(Code::new(), cmdline);
        let (devices, loader) = (
            vec![console()],
            Some(Box::new(loader) as Box<dyn vmm::Loader>),
        );
        chain(&refused(Config {
            acpi,
            devices,
            loader,
            ..config
        }))
    };

    let with = told(true, "quiet");
    assert!(
        with.ends_with(
            r#"c at 0xd0000000, rsdp true, command line Some("quiet"), extra "pci=off 8250.nr_uarts=0""#
        ),
        "{with}"
    );
    for without in [told(false, "quiet"), told(true, "acpi=off")] {
        assert!(without.contains("rsdp false"), "{without}");
        let extra = r#"extra "pci=off 8250.nr_uarts=0 virtio_mmio.device=0x1000@0xd0000000:5""#;
        assert!(without.ends_with(extra), "{without}");
    }
});

kvm_test!(code_in_memory_of_nobody_is_an_error_that_says_where, {
    // jmp 0xd8000000
    let offset = 0xd800_0000_u32.wrapping_sub(u32::try_from(CODE).unwrap() + 5);
    let code = Code::new().bytes(&[0xe9]).bytes(&offset.to_le_bytes());
    let result = Vm::new(config(code)).unwrap().run();

    // KVM may read ones from there and find an instruction that it does not know, and then give
    // the guest the exception: a triple fault.
    match result {
        Err(error @ Error::Emulation { .. }) => {
            assert!(error.to_string().contains("rip 0xd8000000"), "{error}");
        }
        Ok(Outcome::Crashed(_)) => {}
        other => panic!("{other:?}"),
    }
});
