//! Two machines in one process, joined by a cable that the program makes itself: a [`NetBackend`].
//!
//!     two_vms_net KERNEL INITRD
//!
//! The terminal is that of the first guest, 10.0.0.1, whose shell may `ping 10.0.0.2`. With the first
//! the second ends, too. Addresses are given by the kernel's option `ip=` (`CONFIG_IP_PNP`).
//!
//! A program that has no wish for the frames themselves takes `Wire::pair()` instead of [`Cable`].

#![allow(clippy::print_stdout, reason = "it is a program, not the library")]

use rustix::event::{EventfdFlags, eventfd};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use vmm::loader::Payload;
use vmm::virtio::console::Console;
use vmm::virtio::net::{Header, Mac, Net, NetBackend, Offloads, Properties, Refusal};
use vmm::virtio::stream::{Input, Output};
use vmm::vm_memory::VolatileSlice;
use vmm::{Config, Vm};

type Failure = Box<dyn std::error::Error>;

#[allow(dead_code, reason = "a test has guests of its own")]
fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let (Some(kernel), Some(initrd)) = (args.next(), args.next()) else {
        return Err("usage: two_vms_net KERNEL INITRD".into());
    };
    let guest = |address: &str| {
        let payload = Payload::linux(kernel.as_str()).initrd(initrd.as_str());
        payload.cmdline(format!("console=hvc0 reboot=t panic=-1 {}", ip(address)))
    };
    let terminal = Console::new(
        Some(Input::reader(io::stdin())?),
        Some(Output::writer(io::stdout())),
    );

    let (one, other) = Cable::pair()?;
    let first = machine("first", guest("10.0.0.1"), terminal, one)?;
    let second = machine("second", guest("10.0.0.2"), Console::new(None, None), other)?;

    let handle = second.handle();
    let second = thread::spawn(move || second.run());
    println!("first: {}", first.run()?);
    handle.stop();
    let outcome = second.join().map_err(|_| "the second machine panicked")??;
    println!("second: {outcome}");
    Ok(())
}

/// What gives a guest's only card an address.
pub fn ip(address: &str) -> String {
    format!("ip={address}:::255.255.255.0::eth0:off")
}

/// A small machine with a console, and a card at an end of the cable.
pub fn machine(name: &str, guest: Payload, console: Console, end: Cable) -> Result<Vm, Failure> {
    // An address that stays the same as long as the name does.
    let card = Net::new(end, Mac::of_name(name))?;
    Ok(Vm::new(Config {
        memory: 256 << 20,
        payload: Some(guest),
        devices: vec![console.into(), card.into()],
        ..Config::default()
    })?)
}

/// What goes over the cable. The header tells what the sender has left to be done.
type Frame = (Header, Vec<u8>);

/// How many frames wait for a guest that does not take them. Each is 64 KiB at most.
const WAITING: usize = 256;

/// One end of the cable: where frames go, where they come from, and a bell at each end, which counts
/// the frames that are there.
pub struct Cable {
    to: SyncSender<Frame>,
    from: Receiver<Frame>,
    bell: Arc<OwnedFd>,
    bell_there: Arc<OwnedFd>,
}

impl Cable {
    /// Both ends.
    pub fn pair() -> io::Result<(Cable, Cable)> {
        // As semaphores: a read takes one of the count.
        let flags = EventfdFlags::SEMAPHORE | EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let (left_bell, right_bell) = (Arc::new(eventfd(0, flags)?), Arc::new(eventfd(0, flags)?));
        let (to_left, from_right) = sync_channel(WAITING);
        let (to_right, from_left) = sync_channel(WAITING);
        let left = Cable {
            to: to_right,
            from: from_right,
            bell: Arc::clone(&left_bell),
            bell_there: Arc::clone(&right_bell),
        };
        let right = Cable {
            to: to_left,
            from: from_left,
            bell: right_bell,
            bell_there: left_bell,
        };
        Ok((left, right))
    }
}

impl NetBackend for Cable {
    // The header goes along, so nobody has to make checksums or to cut frames: not the guests, and not
    // we. One that would not take such frames loses them, so both have to be alike.
    fn properties(&self) -> Properties {
        Properties::new().offloads(Offloads::all()).mtu(1500)
    }

    // It becomes readable with each frame, as it has to. It always is writable, for a full cable drops
    // frames: `Refusal::Busy` is for a host side whose descriptor tells when there is room again.
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn send(&mut self, header: &Header, frame: &[VolatileSlice<'_>]) -> Result<(), Refusal> {
        // The frame is in the guest's memory, and is the guest's again when this returns.
        let mut bytes = vec![0; frame.iter().map(VolatileSlice::len).sum()];
        let mut rest = bytes.as_mut_slice();
        for piece in frame {
            let count = piece.copy_to(rest);
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        self.to
            .try_send((*header, bytes))
            .map_err(|error| match error {
                TrySendError::Full(_) => Refusal::Lost(ErrorKind::WouldBlock.into()),
                TrySendError::Disconnected(_) => Refusal::Gone(ErrorKind::BrokenPipe.into()),
            })?;
        let rung = rustix::io::write(&self.bell_there, &1_u64.to_ne_bytes());
        rung.map_err(|error| Refusal::Lost(error.into()))?;
        Ok(())
    }

    fn receive(
        &mut self,
        header: &mut Header,
        room: &[VolatileSlice<'_>],
    ) -> Result<usize, Refusal> {
        if rustix::io::read(&self.bell, &mut [0; 8]).is_err() {
            return Err(Refusal::Busy);
        }
        // The bell is rung after a frame was sent, so there is one.
        let frame = self.from.try_recv();
        let (sent, bytes) = frame.map_err(|error| Refusal::Lost(io::Error::other(error)))?;
        *header = sent;
        let mut rest = bytes.as_slice();
        for piece in room {
            piece.copy_from(rest);
            rest = rest.get(piece.len()..).unwrap_or_default();
        }
        Ok(bytes.len())
    }
}
