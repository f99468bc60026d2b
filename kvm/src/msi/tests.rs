use super::*;

fn table(limit: i32) -> Routes {
    let mut routes = Routes::default();
    let gsi = routes.reserve(|| limit + LINE_ROUTES as i32).unwrap();
    routes.give_back(gsi);
    routes
}

#[test]
fn numbers_begin_behind_the_lines_and_are_given_out_once() {
    let mut routes = table(3);
    let never = || unreachable!("the limit is known");

    let numbers: Vec<_> = (0..3).map(|_| routes.reserve(never).unwrap()).collect();

    assert_eq!(numbers, [24, 25, 26]);
    let error = routes.reserve(never).unwrap_err();
    assert!(matches!(error, Error::MsiVectors { limit: 3 }), "{error}");
    routes.give_back(25);
    assert_eq!(routes.reserve(never).unwrap(), 25);
}

#[test]
fn kvm_without_routing_gives_no_number() {
    for answer in [-1, 0, 1, LINE_ROUTES as i32] {
        let error = Routes::default().reserve(|| answer).unwrap_err();
        assert!(matches!(error, Error::MsiVectors { limit: 0 }), "{error}");
    }
}

#[test]
fn every_line_keeps_the_routes_that_kvm_gives_it_by_default() {
    let entries = table(1).entries();

    assert_eq!(entries.len() as u32, LINE_ROUTES);
    for gsi in 0..PIC_AND_IOAPIC_GSIS {
        let mut of_line: Vec<_> = entries
            .iter()
            .filter(|entry| entry.gsi == gsi && entry.type_ == KVM_IRQ_ROUTING_IRQCHIP)
            // SAFETY: the entry's type says which member was written.
            .map(|entry| unsafe { entry.u.irqchip })
            .map(|chip| (chip.irqchip, chip.pin))
            .collect();
        of_line.sort_unstable();
        let expected = match gsi {
            0..8 => vec![(0, gsi), (2, gsi)],
            8..16 => vec![(1, gsi - 8), (2, gsi)],
            _ => vec![(2, gsi)],
        };
        assert_eq!(of_line, expected, "line {gsi}");
    }
}

#[test]
fn messages_come_behind_the_lines_with_all_their_bits() {
    let mut routes = table(9);
    let (address, data) = (0x0000_0001_fee0_1000, 0xabcd_4025);
    routes.set(30, Some(MsiMessage { address, data }));

    let entries = routes.entries();

    let last = entries.last().unwrap();
    assert_eq!((last.gsi, last.type_), (30, KVM_IRQ_ROUTING_MSI));
    // SAFETY: the entry's type says which member was written.
    let msi = unsafe { last.u.msi };
    assert_eq!((msi.address_lo, msi.address_hi), (0xfee0_1000, 1));
    assert_eq!(msi.data, data);
}

#[test]
fn only_the_range_of_local_apics_is_an_address() {
    let checked = |address| MsiMessage { address, data: 0 }.checked();
    for good in [0xfee0_0000, 0xfee0_1004, 0xfeef_ffff] {
        checked(good).unwrap();
    }
    for bad in [0, 0x1000, 0xfedf_ffff, 0xfef0_0000, 0x1_fee0_0000, u64::MAX] {
        let error = checked(bad).unwrap_err();
        assert!(error.to_string().contains(&format!("{bad:#x}")), "{error}");
    }
}
