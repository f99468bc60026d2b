//! Names and descriptors, for which no tap is needed, and a tap where one can be had.

mod flood;

use super::*;

#[test]
fn names_that_no_interface_can_have_are_refused() {
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a:1",
        "tap%d",
        "sixteen-letters!",
        "täp",
    ] {
        let error = Tap::open(name).unwrap_err();
        assert!(matches!(error, TapError::Name { .. }), "{name}: {error}");
    }
    assert!(check_name("fifteen-letters").is_ok());
}

#[test]
fn numbers_of_lanes_have_limits() {
    for count in [0, crate::net::MAX_PAIRS + 1] {
        assert!(matches!(
            Tap::open_lanes("t", count),
            Err(TapError::Lanes(_))
        ));
        assert!(matches!(
            Tap::open_on_bridge("b", count),
            Err(TapError::Lanes(_))
        ));
    }
}

#[test]
fn a_bridge_that_is_not_there_is_an_error_with_a_hint() {
    let error = Tap::open_on_bridge("no-such-bridge", 1).unwrap_err();
    assert!(matches!(error, TapError::NoBridge { .. }), "{error}");
    assert!(error.hint().unwrap().contains("type bridge"));
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let (one, _other) = std::io::pipe().unwrap();
    assert!(matches!(
        Tap::from_fd(one.into()),
        Err(TapError::NotATap(_))
    ));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(
        Tap::from_fd(file.into()),
        Err(TapError::NotATap(_))
    ));
    // Opened, but not attached to anything.
    if let Ok(tun) = std::fs::File::options().read(true).write(true).open(TUN) {
        assert!(matches!(
            Tap::from_fd(tun.into()),
            Err(TapError::NotATap(_))
        ));
    }
}

#[test]
fn each_reason_has_its_hint() {
    let attach = |errno, multi_queue| TapError::Attach {
        name: "t".into(),
        multi_queue,
        source: io::Error::from_raw_os_error(errno),
    };
    for (error, word) in [
        (
            TapError::NoTun(io::Error::from_raw_os_error(libc::ENOENT)),
            "modprobe tun",
        ),
        (attach(libc::EPERM, false), "user $USER"),
        (attach(libc::EBUSY, false), "another program"),
        (attach(libc::EINVAL, true), "multi_queue"),
        (attach(libc::EINVAL, false), "no tap"),
    ] {
        assert!(error.hint().unwrap().contains(word), "{error}");
    }
}

#[test]
fn a_request_has_a_name_that_ends() {
    assert_eq!(size_of::<Request>(), 40);
    assert_eq!(Request::new("tap0").name(), "tap0");
    assert_eq!(
        Request::new("a-name-that-is-too-long").name(),
        "a-name-that-is-"
    );
    assert_eq!(Request::new("t").with_flags(0x1002).flags(), 0x1002);
    assert_eq!(Request::new("t").with_number(-7).number(), -7);
}

/// A tap of this process's own, or why not, loudly.
fn tap(name: &str, lanes: usize) -> Option<Vec<Tap>> {
    match Tap::open_lanes(name, lanes) {
        Ok(lanes) => Some(lanes),
        Err(error) => {
            eprintln!(
                "skipped: {name}: {error}: {:?}",
                std::error::Error::source(&error)
            );
            None
        }
    }
}

#[test]
fn a_tap_goes_with_its_descriptors_and_is_not_shared() {
    let Some(lanes) = tap("hypetest0", 1) else {
        return;
    };
    let interface = Interface::named("hypetest0");
    assert!(interface.index().is_ok());
    assert_eq!(lanes[0].properties().mtu, Some(1500));
    assert_eq!(lanes[0].properties().offloads, Offloads::all());
    let error = Tap::open("hypetest0").unwrap_err();
    assert!(
        error.hint().unwrap().contains("another program"),
        "{error:?}"
    );
    let error = Tap::open_lanes("hypetest0", 2).unwrap_err();
    assert!(error.hint().is_some(), "{error:?}");
    drop(lanes);
    assert!(interface.index().is_err());
}

#[test]
fn offloads_are_set_in_any_combination() {
    let Some(mut lanes) = tap("hypetest1", 1) else {
        return;
    };
    for bits in 0..16 {
        let offloads = Offloads::from_bits_truncate(bits);
        // All need the checksum, which negotiation sees to.
        if offloads.is_empty() || offloads.contains(Offloads::CHECKSUM) {
            lanes[0].set_offloads(offloads).unwrap();
        }
    }
}

#[test]
fn lanes_are_detached_and_attached_again() {
    let Some(mut lanes) = tap("hypetest2", 3) else {
        return;
    };
    for enabled in [true, false, false, true, true, false] {
        lanes[2].enable(enabled).unwrap();
        assert_eq!(lanes[2].attached, Some(enabled));
    }
    drop(lanes.remove(0));
    lanes[0].enable(true).unwrap();
}

#[test]
fn a_tap_that_is_down_comes_back() {
    let Some(mut lanes) = tap("hypetest3", 1) else {
        return;
    };
    let tap = &mut lanes[0];
    let mut bytes = [0; 60];
    let frame = [VolatileSlice::from(bytes.as_mut_slice())];
    tap.send(&Header::default(), &frame).unwrap();
    let interface = Interface::named("hypetest3");
    let flags = |flags| {
        let request = Request::new("hypetest3").with_flags(flags);
        interface.ask(Command::SetFlags, request).unwrap();
    };
    flags(0);
    let refused = tap.send(&Header::default(), &frame);
    assert!(matches!(refused, Err(Refusal::Down)), "{refused:?}");
    flags(sys::IFF_UP);
    tap.send(&Header::default(), &frame).unwrap();
}
