//! The example of two machines that are joined by a host side which the embedder wrote: the guests talk
//! TCP, one after the other first.

#[path = "../../../examples/two_vms_net.rs"]
mod example;

use super::*;
use crate::support::{Watchdog, deadline, initrd, kernel, tcp};
use std::net::{TcpListener, TcpStream};
use std::thread;
use vmm::loader::Payload;
use vmm::virtio::console::Console;
use vmm::virtio::stream::Output;

const ADDRESSES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
/// Which of the two a guest is.
const NUMBER: &str = "NUMBER";
/// How much is sent each way, twice.
const STREAM: usize = 2 << 20;

/// The guest: calls the other one, and is called.
fn talk_with_the_other() {
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    let listener = TcpListener::bind((ADDRESSES[number], 7)).unwrap();
    let call = || tcp::connect((ADDRESSES[1 - number], 7));
    let answer = || tcp::accept(&listener);
    let talk = |stream: TcpStream, first| tcp::talk(&stream, first, STREAM);
    if number == 0 {
        talk(call(), true);
        talk(answer(), false);
    } else {
        talk(answer(), false);
        talk(call(), true);
    }
}

#[test]
fn the_guests_of_the_example_talk_to_each_other() {
    init::if_guest(talk_with_the_other);
    let name = test_name!(the_guests_of_the_example_talk_to_each_other);
    let Some(kernel) = kernel(name) else {
        return;
    };
    let (_, test) = name.split_once("::").unwrap();
    let (one, other) = example::Cable::pair().unwrap();

    let machines = [one, other].into_iter().enumerate().map(|(number, end)| {
        let address = example::ip(ADDRESSES[number]);
        let init = format!("HYPE_GUEST=1 {NUMBER}={number} -- --exact {test} --nocapture");
        let guest = Payload::linux(kernel.clone())
            .initrd(initrd(&[]))
            .cmdline(format!(
                "console=hvc0 reboot=t quiet panic=-1 {address} {init}"
            ));
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = Output::writer(file.reopen().unwrap());
        // Kept, so that the machine's end does not give up on it.
        let printed = output.clone();
        let console = Console::new(None, Some(output));
        let vm = example::machine(ADDRESSES[number], guest, console, end).unwrap();
        let watchdog = Watchdog::start(vm.handle(), deadline());
        let machine = thread::spawn(move || vm.run());
        (machine, watchdog, printed, file)
    });
    let machines: Vec<_> = machines.collect();

    for (machine, watchdog, printed, file) in machines {
        let outcome = machine.join().unwrap().unwrap();
        drop(watchdog);
        assert!(printed.finish(deadline()), "{printed:?}");
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(outcome, Outcome::Shutdown, "{text}");
        assert!(text.contains("guest half passed"), "{text}");
    }
}
