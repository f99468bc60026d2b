//! The probe, on whatever KVM there is.

mod common;

use kvm::probe;

/// Instructions that a KVM without full hardware help is known to refuse.
const REFUSED_SOMEWHERE: [&str; 4] = [
    "int3 through the IDT",
    "SSE",
    "xsave and xrstor",
    "cmpxchg16b",
];

#[test]
fn probe_of_any_kvm_passes_all_but_what_some_hosts_refuse_and_says_what_kvm_answered() {
    let Some(system) = common::system("probe") else {
        return;
    };

    let probes = probe::run(&system);

    assert!(probes.len() >= 9, "{probes:?}");
    for probe in &probes {
        eprintln!("{}: {:?}", probe.what, probe.result);
        if let Err(answer) = &probe.result {
            assert!(
                REFUSED_SOMEWHERE.contains(&probe.what),
                "{}: {answer}",
                probe.what
            );
            assert!(
                answer.contains("KVM_EXIT_INTERNAL_ERROR, suberror"),
                "{answer}"
            );
            assert!(answer.contains("rip 0x6"), "{answer}");
        }
    }
}
