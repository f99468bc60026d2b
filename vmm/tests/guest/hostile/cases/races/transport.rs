//! What only PCI lets a second processor do: BAR, `COMMAND` and MSI-X, while they are used.

use super::{Case, case, race, rounds};
use crate::hostile::cases::msix::{Listening, Sink, request};
use crate::hostile::rig::Rig;
use crate::hostile::target::MEMORY;
use crate::hostile::transport::{COMMAND, Registers, header};

const APIC: u64 = 0xfee0_0000;

pub fn cases() -> Vec<Case> {
    vec![
        case("the BAR is moved about while registers are used", |rig| {
            let home = rig.pci().function.bar(0);
            let spoil = move |registers: &Registers, turn: usize| {
                let places = [0xc800_0000, home, 0, home, MEMORY, home, 0xfee0_0000, home];
                registers.pci().function.move_bar(places[turn % 8]);
            };
            use_registers(rig, spoil);
            rig.pci().function.move_bar(home);
        }),
        case(
            "the function is switched off and on while registers are used",
            |rig| {
                use_registers(rig, |registers, turn| {
                    let command = [0, COMMAND, 4, 2][turn % 4];
                    registers.pci().function.write(header::COMMAND, command);
                });
                rig.pci().function.write(header::COMMAND, COMMAND);
            },
        ),
        case("both look through the window to BAR 0", |rig| {
            let look = |registers: &Registers, turn: usize| {
                let (function, at) = (&registers.pci().function, registers.pci().window);
                function.write(at + 8, turn as u32 % 0x1_0004);
                function.write(at + 12, [1u32, 2, 4, 3][turn % 4]);
                let _: u32 = function.read(at + 16);
            };
            race(rig, look, |rig| {
                rounds(rig, |rig| {
                    look(&rig.registers, rig.rounds);
                    rig.works();
                });
            });
        }),
        case(
            "no interrupt is lost while its vector is masked and changed",
            storm,
        ),
    ]
}

/// Requests and status, while what the other processor does decides on whether anybody listens.
fn use_registers(rig: &mut Rig, spoil: impl Fn(&Registers, usize) + Sync) {
    race(rig, spoil, |rig| {
        rounds(rig, |rig| {
            let chain = rig.good();
            rig.offer(&chain);
            rig.status();
            rig.registers.causes();
        });
        // The ring holds no more than it did, whether they were served or not.
        rig.canary.sing();
    });
}

fn storm(rig: &mut Rig) {
    const SINK: Sink = Sink::WORK;
    let registers = rig.registers.clone();
    let listening = Listening::to(registers.pci(), SINK);
    let spoil = |registers: &Registers, turn: usize| {
        let msix = &registers.pci().msix;
        msix.mask(0, true);
        if turn.is_multiple_of(3) {
            // It is masked, so it may say anything.
            msix.program(0, [0, MEMORY][turn % 2], 0, true);
            msix.program(0, APIC, SINK.vector, true);
        }
        msix.mask(0, false);
    };
    race(rig, spoil, |rig| {
        rounds(rig, |rig| {
            let before = SINK.count();
            request(rig);
            rig.until("an interrupt", |_| (SINK.count() > before).then_some(()));
        });
    });
    drop(listening);
}
