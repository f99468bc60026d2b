//! What a handle does to a running machine.

use crate::guest::*;
use crate::kvm_test;
use std::thread;
use std::time::{Duration, Instant};
use vmm::{Config, Error, Handle, Outcome, State, Vm};

/// How long a machine may take to stop, however busy its guest is.
const SOON: Duration = Duration::from_secs(2);

/// Runs the machine beside `test`, which has to see to it that it ends.
fn beside(config: Config, test: impl FnOnce(&Handle)) -> Outcome {
    let vm = Vm::new(config).unwrap();
    let handle = vm.handle();
    let machine = thread::spawn(move || vm.run());
    test(&handle);
    machine.join().unwrap().unwrap()
}

/// Waits until the guest has made that many exits more.
fn wait_for_exits(handle: &Handle, more: u64) {
    let goal = handle.report().total_exits().io_out + more;
    while handle.report().total_exits().io_out < goal {
        thread::yield_now();
    }
}

fn stops_soon(config: Config) {
    let mut asked = None;
    let outcome = beside(config, |handle| {
        handle.wait_for(State::Running);
        // The guest is to be in its loop; if it is not yet, the test is only easier.
        thread::sleep(Duration::from_millis(20));
        asked = Some(Instant::now());
        handle.stop();
    });

    assert_eq!(outcome, Outcome::Stopped);
    let took = asked.unwrap().elapsed();
    assert!(took < SOON, "{took:?}");
}

kvm_test!(a_guest_that_spins_can_be_stopped, {
    stops_soon(config(Code::new().spin()))
});

kvm_test!(a_guest_that_halts_for_ever_can_be_stopped, {
    stops_soon(config(Code::new().halt()))
});

kvm_test!(a_guest_that_makes_exits_all_the_time_can_be_stopped, {
    stops_soon(config(Code::new().chatter()));
});

kvm_test!(vcpus_that_wait_for_their_start_can_be_stopped, {
    stops_soon(Config {
        cpus: 4,
        ..config(Code::new().spin())
    });
});

kvm_test!(more_vcpus_than_the_host_has_are_fine, {
    let config = Config {
        cpus: 16,
        ..config(Code::new().power_off())
    };

    assert_eq!(run(config), Outcome::Shutdown);
});

kvm_test!(a_stop_before_the_run_keeps_the_guest_from_running, {
    let vm = Vm::new(config(Code::new().power_off())).unwrap();
    let handle = vm.handle();
    handle.stop();

    assert_eq!(vm.run().unwrap(), Outcome::Stopped);
    assert_eq!(handle.report().total_exits().total(), 0);
});

kvm_test!(a_paused_guest_makes_no_exits_and_a_resumed_one_goes_on, {
    let outcome = beside(config(Code::new().chatter()), |handle| {
        handle.wait_for(State::Running);
        wait_for_exits(handle, 10);

        handle.pause().unwrap();
        let before = handle.report();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(handle.report(), before);
        assert_eq!(handle.state(), State::Paused);

        handle.resume().unwrap();
        wait_for_exits(handle, 10);
        handle.stop();
    });

    assert_eq!(outcome, Outcome::Stopped);
});

kvm_test!(ten_thousand_pauses_lose_no_kick, {
    beside(
        Config {
            cpus: 2,
            ..config(Code::new().chatter())
        },
        |handle| {
            handle.wait_for(State::Running);
            for _ in 0..10_000 {
                handle.pause().unwrap();
                handle.resume().unwrap();
            }
            handle.stop();
        },
    );
});

kvm_test!(a_stop_at_any_moment_of_the_start_ends_the_machine, {
    for moment in 0..100 {
        let outcome = beside(config(Code::new().chatter()), |handle| {
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_micros(10 * moment) {
                std::hint::spin_loop();
            }
            handle.stop();
        });
        assert_eq!(outcome, Outcome::Stopped);
    }
});

kvm_test!(pauses_resumes_and_a_stop_from_many_threads_all_return, {
    let outcome = beside(
        Config {
            cpus: 2,
            ..config(Code::new().chatter())
        },
        |handle| {
            handle.wait_for(State::Running);
            thread::scope(|scope| {
                let pauser = || (0..200).for_each(|_| drop(handle.pause()));
                let resumer = || (0..200).for_each(|_| drop(handle.resume()));
                let first = scope.spawn(pauser);
                scope.spawn(pauser);
                scope.spawn(resumer);
                scope.spawn(resumer);
                first.join().unwrap();
                handle.stop();
            });
        },
    );

    assert_eq!(outcome, Outcome::Stopped);
});

kvm_test!(a_paused_machine_can_be_stopped, {
    let outcome = beside(config(Code::new().spin()), |handle| {
        handle.wait_for(State::Running);
        handle.pause().unwrap();
        handle.stop();
        assert_eq!(handle.wait_for(State::Stopped), State::Stopped);
    });

    assert_eq!(outcome, Outcome::Stopped);
});

kvm_test!(
    two_machines_run_at_once_and_stopping_one_leaves_the_other_alone,
    {
        beside(config(Code::new().chatter()), |first| {
            first.wait_for(State::Running);
            let second = beside(config(Code::new().chatter()), |second| {
                second.wait_for(State::Running);
                wait_for_exits(second, 10);
                second.stop();
            });
            assert_eq!(second, Outcome::Stopped);

            wait_for_exits(first, 10);
            assert_eq!(first.state(), State::Running);
            first.stop();
        });
    }
);

kvm_test!(a_handle_tells_what_happened_after_the_machine_is_gone, {
    let vm = Vm::new(config(Code::new().power_off())).unwrap();
    let handle = vm.handle();
    assert_eq!(handle.state(), State::Created);
    vm.run().unwrap();

    assert_eq!(handle.state(), State::Stopped);
    assert_eq!(handle.report().total_exits().guest(), 1);
    assert!(matches!(
        handle.pause(),
        Err(Error::State {
            state: State::Stopped,
            ..
        })
    ));
    assert!(matches!(
        handle.resume(),
        Err(Error::State {
            state: State::Stopped,
            ..
        })
    ));
});

kvm_test!(a_machine_that_is_dropped_unrun_is_stopped, {
    let vm = Vm::new(config(Code::new().power_off())).unwrap();
    let handle = vm.handle();

    drop(vm);

    assert_eq!(handle.wait_for(State::Running), State::Stopped);
});

kvm_test!(the_power_button_is_there_with_acpi_only, {
    for (acpi, has_button) in [(true, true), (false, false)] {
        beside(
            Config {
                acpi,
                ..config(Code::new().spin())
            },
            |handle| {
                handle.wait_for(State::Running);
                let pressed = handle.power_button();
                assert_eq!(pressed.is_ok(), has_button, "{pressed:?}");
                handle.stop();
            },
        );
    }
});
