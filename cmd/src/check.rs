//! `hype check`: is KVM here, may I use it, and does it run unmodified Linux?

use crate::report::{self, Status};
use std::fmt::Write;
use vmm::kvm::{Capability, System, probe};

/// What to do where KVM is there and does not run Linux.
const ADVICE: &str = "\
This KVM does not run unmodified Linux: it stops at instructions that Linux uses. That is so
where KVM is itself emulated, inside of some virtual machines. A machine of your own, or one
with hardware-assisted nested virtualization, has a KVM that does.";

/// Looks, and tells unless `quiet`. Success means that Linux boots here.
pub fn check(quiet: bool) -> Status {
    let system = match System::open() {
        Ok(system) => system,
        Err(_) if quiet => return Status::Failure,
        Err(error) => return report::failure(&error),
    };
    let probes = probe::run(&system);
    let works = probes.iter().all(|probe| probe.result.is_ok());
    let status = if works {
        Status::Success
    } else {
        Status::Failure
    };
    if quiet {
        return status;
    }
    let mut text = String::from("KVM is here and may be used.\n\n");
    capabilities(&mut text, &system.capabilities());
    text.push_str("\nA guest's kernel can:\n");
    for probe in &probes {
        let result = probe
            .result
            .as_ref()
            .map_or_else(|error| format!("no: {error}"), |()| "yes".into());
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:<24} {result}", probe.what);
    }
    text.push('\n');
    text.push_str(if works {
        "Unmodified Linux runs here."
    } else {
        ADVICE
    });
    text.push('\n');
    match crate::print(text.as_bytes()) {
        Status::Success => status,
        failure => failure,
    }
}

fn capabilities(text: &mut String, capabilities: &[Capability]) {
    text.push_str("Capabilities:\n");
    for capability in capabilities {
        let present = if capability.present { "yes" } else { "no" };
        let needed = if capability.required {
            "needed"
        } else {
            "used if there"
        };
        let _ = writeln!(
            text,
            "  {:<32} {present:<4} {needed}: {}",
            capability.name, capability.why
        );
    }
}
