//! The cases: which rule is broken, and what must be seen then.

mod bar;
mod block;
mod chains;
mod common;
mod config;
mod console;
mod function;
mod mmio;
mod msix;
mod net;
mod packed;
mod pairs;
mod races;
mod rng;
mod setup;
mod split;
mod status;

use super::rig::{RUNNING, Rig};
use super::transport::Registers;
use vmm::virtio::Kind;

pub use pairs::PAIRS;
pub use races::cases as races;

/// One way to misbehave. The device runs when a case starts, and is reset when it ends.
pub struct Case {
    pub name: String,
    pub run: Run,
}

type Run = Box<dyn Fn(&mut Rig)>;

fn case(name: impl Into<String>, run: impl Fn(&mut Rig) + 'static) -> Case {
    Case {
        name: name.into(),
        run: Box::new(run),
    }
}

/// The cases for a device. What is the same for every device is tried on one of them.
pub fn of(rig: &Rig) -> Vec<Case> {
    let on_pci = matches!(*rig.registers, Registers::Pci(_));
    let all = match rig.kind {
        Kind::Block if rig.read_only => vec![block::of_a_read_only_disk()],
        Kind::Block => vec![
            block::cases(),
            chains::cases(rig),
            match rig.packed {
                true => packed::cases(),
                false => split::cases(),
            },
            if on_pci { msix::cases() } else { Vec::new() },
        ],
        Kind::Console => vec![
            console::cases(),
            config::cases(),
            match on_pci {
                true => common::cases(),
                false => mmio::cases(),
            },
        ],
        Kind::Net => vec![net::cases(rig), config::cases()],
        _ => {
            let mut all = vec![rng::cases(), setup::cases(rig), status::cases()];
            if on_pci {
                all.extend([function::cases(), bar::cases()]);
            } else if !rig.packed {
                all.push(vec![split::around()]);
            }
            all
        }
    };
    all.into_iter().flatten().collect()
}

/// The device goes on.
fn ignored(rig: &mut Rig) {
    assert_eq!(rig.status(), RUNNING);
    rig.works();
}
