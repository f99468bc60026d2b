//! The cases: which rule is broken, and what must be seen then.

mod block;
mod chains;
mod console;
mod packed;
mod registers;
mod rng;
mod setup;
mod split;
mod status;

use super::rig::Rig;
use vmm::virtio::Kind;

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
    match rig.kind {
        Kind::Block if rig.read_only => block::of_a_read_only_disk(),
        Kind::Block => {
            let layout = if rig.packed {
                packed::cases()
            } else {
                split::cases()
            };
            [block::cases(), chains::cases(), layout]
                .into_iter()
                .flatten()
                .collect()
        }
        Kind::Console => [console::cases(), registers::cases()]
            .into_iter()
            .flatten()
            .collect(),
        _ => [rng::cases(), setup::cases(rig), status::cases()]
            .into_iter()
            .flatten()
            .collect(),
    }
}
