//! What a Linux command line tells the machine it runs on.
//!
//! The kernel's own parser is the standard: parameters are separated by blanks, the ones after
//! `--` belong to init. Quotes are not looked at, for no value of interest contains a blank.

/// Whether the kernel will reset the machine by a triple fault: `reboot=` is a list, in which
/// the kernel looks at the first letter of each item.
pub(crate) fn reboots_by_triple_fault(cmdline: &str) -> bool {
    values(cmdline, "reboot").any(|list| list.split(',').any(|item| item.starts_with('t')))
}

/// Whether the kernel will ignore ACPI tables.
pub(crate) fn disables_acpi(cmdline: &str) -> bool {
    values(cmdline, "acpi").any(|value| value == "off")
}

/// What the machine says to Linux where the user has said nothing. Without PCI devices: that there
/// is no PCI, for which ACPI has no word. With them: that no chipset is there whose quirks want
/// early care. Either way, early quirks would probe 32 slots by port: 91 user exits.
///
/// Either way, too, Linux logs `PCI: Fatal: No config space access function found`. Nothing is wrong: it
/// looks before it has read of ECAM in ACPI's tables, and with `noearly` that is the first time. Where there is no
/// PCI it says so whatever the parameter is, unless ports answer as a host bridge does, and then it scans.
///
/// Without a serial port: that there is none, for Linux looks at the four places where one could be,
/// whatever ACPI says: 24 user exits.
pub(crate) fn defaults(cmdline: &str, has_pci: bool, has_serial: bool) -> Vec<String> {
    let mut parameters = Vec::new();
    if !chooses_pci(cmdline) {
        let pci = if has_pci { "pci=noearly" } else { "pci=off" };
        parameters.push(pci.into());
    }
    if !has_serial && !speaks_of_serial(cmdline) {
        parameters.push("8250.nr_uarts=0".into());
    }
    parameters
}

/// Whether the user has something to do with serial ports.
fn speaks_of_serial(cmdline: &str) -> bool {
    let mut parameters = cmdline.split_ascii_whitespace();
    parameters.any(|parameter| {
        ["8250", "console=ttyS", "console=uart", "earlycon"]
            .iter()
            .any(|start| parameter.starts_with(start))
    })
}

/// Whether the user has said how the kernel is to deal with PCI.
pub(crate) fn chooses_pci(cmdline: &str) -> bool {
    values(cmdline, "pci").next().is_some()
}

fn values<'a>(cmdline: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    cmdline
        .split_ascii_whitespace()
        .take_while(|parameter| *parameter != "--")
        .filter_map(|parameter| parameter.split_once('='))
        .filter_map(move |(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_anywhere_in_the_reboot_list_is_a_triple_fault() {
        for yes in [
            "reboot=t",
            "quiet reboot=w,t x=1",
            "reboot=t,force",
            "reboot=triple",
        ] {
            assert!(reboots_by_triple_fault(yes), "{yes}");
        }
        for no in [
            "",
            "reboot",
            "reboot=k",
            "xreboot=t",
            "reboot=acpi",
            "init=/x -- reboot=t",
        ] {
            assert!(!reboots_by_triple_fault(no), "{no}");
        }
    }

    #[test]
    fn acpi_off_is_told_from_other_values_and_names() {
        assert!(disables_acpi("console=hvc0 acpi=off"));
        for no in ["", "acpi", "acpi=force", "acpi_x=off", "-- acpi=off"] {
            assert!(!disables_acpi(no), "{no}");
        }
    }

    #[test]
    fn pci_is_off_or_left_alone_early_unless_the_user_speaks_of_it() {
        assert_eq!(defaults("console=hvc0", false, true), ["pci=off"]);
        assert_eq!(defaults("console=hvc0", true, true), ["pci=noearly"]);
        assert!(defaults("pci=conf1", false, true).is_empty());
        assert!(defaults("pci=conf1", true, true).is_empty());
    }

    #[test]
    fn without_a_serial_port_none_is_looked_for_unless_the_user_speaks_of_it() {
        let none = "8250.nr_uarts=0";
        assert_eq!(defaults("pci=off", false, false), [none]);
        assert_eq!(defaults("console=hvc0", true, false), ["pci=noearly", none]);
        for cmdline in ["8250.nr_uarts=8", "console=ttyS1", "earlycon=uart8250"] {
            let defaults = defaults(cmdline, false, false);
            assert_eq!(defaults, ["pci=off"], "{cmdline}");
        }
    }
}
