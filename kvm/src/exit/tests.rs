use super::*;

/// A page with this exit reason, and more put into it.
fn page(reason: u32, fill: impl FnOnce(&mut kvm_run)) -> RunPage {
    let page = RunPage::fake();
    // SAFETY: the page is ours alone, and large enough.
    let run = unsafe { &mut *page.run() };
    run.exit_reason = reason;
    fill(run);
    page
}

fn exit(page: &RunPage) -> Result<Exit<'_>, Error> {
    // SAFETY: the page has no vCPU, and nobody else uses it.
    unsafe { decode(page) }
}

fn port(direction: u32, size: u8, count: u32, data_offset: u64) -> RunPage {
    page(KVM_EXIT_IO, |run| {
        run.__bindgen_anon_1.io = kvm_run__bindgen_ty_1__bindgen_ty_4 {
            direction: direction as u8,
            size,
            port: 0x3f8,
            count,
            data_offset,
        };
    })
}

#[test]
fn decode_of_string_io_keeps_item_size_and_gives_all_items() {
    let page = port(KVM_EXIT_IO_OUT, 2, 3, 4096);

    match exit(&page).unwrap() {
        Exit::IoOut {
            port: 0x3f8,
            size: 2,
            data,
        } => assert_eq!(data.len(), 6),
        exit => panic!("{exit:?}"),
    }
}

#[test]
fn decode_of_port_data_outside_its_page_is_refused() {
    for (size, count, offset) in [
        (1, 1, 0),                               // over kvm_run
        (1, 1, size_of::<kvm_run>() as u64 - 1), // over its last byte
        (1, 1, 8192),                            // in the ring
        (4, 1025, 4096),                         // into the ring
        (255, u32::MAX, 4096),                   // anywhere
        (1, 1, u64::MAX),                        // wraps around
    ] {
        let page = port(KVM_EXIT_IO_IN, size, count, offset);

        let error = exit(&page).unwrap_err();

        assert!(
            matches!(
                error,
                Error::BadExit {
                    what: "port data",
                    ..
                }
            ),
            "{error:?}"
        );
    }
    assert!(exit(&port(KVM_EXIT_IO_IN, 4, 1024, 4096)).is_ok());
}

#[test]
fn decode_of_mmio_longer_than_8_bytes_is_refused() {
    let mmio = |len| {
        page(KVM_EXIT_MMIO, |run| {
            run.__bindgen_anon_1.mmio = kvm_run__bindgen_ty_1__bindgen_ty_6 {
                phys_addr: 0xd000_0000,
                data: [1, 2, 3, 4, 5, 6, 7, 8],
                len,
                is_write: 1,
            };
        })
    };

    match exit(&mmio(8)).unwrap() {
        Exit::MmioWrite {
            addr: 0xd000_0000,
            data,
        } => assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]),
        exit => panic!("{exit:?}"),
    }
    let error = exit(&mmio(9)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::BadExit {
                value: 9,
                limit: 8,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn decode_of_an_emulation_failure_gives_the_instruction_only_if_kvm_says_it_is_there() {
    let failure = |flags, ndata| {
        page(KVM_EXIT_INTERNAL_ERROR, |run| {
            run.__bindgen_anon_1.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
            run.__bindgen_anon_1.emulation_failure.ndata = ndata;
            run.__bindgen_anon_1.emulation_failure.flags = flags;
            // SAFETY: of the union's members, this is the one that is to be filled.
            let bytes = unsafe {
                &mut run
                    .__bindgen_anon_1
                    .emulation_failure
                    .__bindgen_anon_1
                    .__bindgen_anon_1
            };
            bytes.insn_size = 2;
            bytes.insn_bytes[..2].copy_from_slice(&[0x0f, 0x0b]);
        })
    };
    let instruction = |page: &RunPage| match exit(page).unwrap() {
        Exit::InternalError {
            suberror: 1,
            instruction,
            ..
        } => instruction.to_vec(),
        exit => panic!("{exit:?}"),
    };

    assert_eq!(instruction(&failure(1, 4)), [0x0f, 0x0b]);
    assert_eq!(instruction(&failure(0, 4)), []);
    assert_eq!(instruction(&failure(1, 0)), []);
}

#[test]
fn decode_of_an_instruction_size_beyond_the_bytes_gives_all_the_bytes() {
    let page = page(KVM_EXIT_INTERNAL_ERROR, |run| {
        run.__bindgen_anon_1.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
        run.__bindgen_anon_1.internal.ndata = 4;
        run.__bindgen_anon_1.internal.data = [u64::MAX; 16];
    });

    match exit(&page).unwrap() {
        Exit::InternalError {
            instruction, data, ..
        } => {
            assert_eq!((instruction.len(), data.len()), (15, 4));
        }
        exit => panic!("{exit:?}"),
    }
}

#[test]
fn decode_of_more_data_than_there_is_room_for_is_refused() {
    let error = |reason| {
        let page = page(reason, |run| {
            run.__bindgen_anon_1.internal.ndata = 17;
            run.__bindgen_anon_1.internal.suberror = 3;
        });
        exit(&page).unwrap_err()
    };

    for reason in [KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SYSTEM_EVENT] {
        let error = error(reason);
        assert!(
            matches!(
                error,
                Error::BadExit {
                    value: 17,
                    limit: 16,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[test]
fn decode_of_a_failed_entry_gives_reason_and_processor() {
    let page = page(KVM_EXIT_FAIL_ENTRY, |run| {
        run.__bindgen_anon_1
            .fail_entry
            .hardware_entry_failure_reason = 0x8000_0021;
        run.__bindgen_anon_1.fail_entry.cpu = 3;
    });

    let exit = exit(&page).unwrap();

    assert!(
        matches!(
            exit,
            Exit::FailEntry {
                reason: 0x8000_0021,
                cpu: 3
            }
        ),
        "{exit:?}"
    );
}

#[test]
fn decode_of_a_system_event_gives_kind_and_data() {
    let page = page(KVM_EXIT_SYSTEM_EVENT, |run| {
        run.__bindgen_anon_1.system_event.type_ = 2;
        run.__bindgen_anon_1.system_event.ndata = 1;
        run.__bindgen_anon_1.system_event.__bindgen_anon_1.data = [7; 16];
    });

    let exit = exit(&page).unwrap();

    assert!(
        matches!(exit, Exit::SystemEvent { kind: 2, data: [7] }),
        "{exit:?}"
    );
}

#[test]
fn decode_of_exits_without_data_gives_their_names() {
    for (reason, name) in [
        (KVM_EXIT_HLT, "KVM_EXIT_HLT"),
        (KVM_EXIT_SHUTDOWN, "KVM_EXIT_SHUTDOWN"),
        (KVM_EXIT_INTR, "KVM_EXIT_INTR"),
        (KVM_EXIT_UNKNOWN, "KVM_EXIT_UNKNOWN"),
        (KVM_EXIT_MEMORY_FAULT, "KVM_EXIT_MEMORY_FAULT"),
        (KVM_EXIT_NMI, "KVM_EXIT_NMI"),
        (KVM_EXIT_DIRTY_RING_FULL, "KVM_EXIT_DIRTY_RING_FULL"),
        (KVM_EXIT_HYPERCALL, "KVM_EXIT_HYPERCALL"),
    ] {
        assert_eq!(exit(&page(reason, |_| ())).unwrap().name(), name);
    }
}

#[test]
fn decode_of_a_reason_from_the_future_keeps_its_number() {
    let page = page(0xffff, |_| ());

    let exit = exit(&page).unwrap();

    assert!(
        matches!(exit, Exit::Other { reason: 0xffff, .. }),
        "{exit:?}"
    );
}

#[test]
fn map_of_fewer_bytes_than_the_interface_says_is_refused() {
    let file = tempfile::tempfile().unwrap();

    let error = RunPage::map(&file, 64).unwrap_err();

    assert!(
        matches!(error, Error::RunPage { found: 64, .. }),
        "{error:?}"
    );
}
