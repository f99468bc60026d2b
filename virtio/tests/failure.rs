//! What the failure of a device costs: an error the device, a panic the machine.

use std::sync::{Arc, Condvar, Mutex};
use virtio::testing::driver::{DEADLINE, Driver, Machine, Transport};
use virtio::testing::echo::{COMMAND, Command, ECHO, Echo, KEEP};
use virtio::transport::mmio::Mmio;
use virtio::transport::status::{DRIVER_OK, NEEDS_RESET};

fn started() -> Driver<Mmio> {
    let mut driver = Driver::mmio(Box::new(Echo::default()));
    driver.start(0);
    driver
}

fn order(driver: &mut Driver<Mmio>, command: Command) {
    driver.transport.write_config(COMMAND, &[command as u8]);
}

fn echoes(driver: &mut Driver<Mmio>) {
    let id = driver.send(ECHO, &[b"are you", b" there?"], &[6, 32]);
    assert_eq!(driver.receive(ECHO), (id, b"are you there?".to_vec()));
}

#[test]
fn an_error_shows_needs_reset_and_interrupts_once() {
    let mut driver = started();
    order(&mut driver, Command::Fail);
    driver.wait_for_needs_reset();
    driver
        .transport
        .pause()
        .expect("pause, which joins the worker");
    assert_eq!(driver.interrupts().config, 1);
    assert_eq!(driver.machine.failures(), []);
}

#[test]
fn a_device_that_failed_answers_nothing_until_it_is_reset() {
    let mut driver = started();
    order(&mut driver, Command::Fail);
    driver.wait_for_needs_reset();
    driver.send(ECHO, &[b"hello?"], &[6]);
    driver.notify(ECHO);
    for _ in 0..2 {
        driver
            .transport
            .pause()
            .expect("pause, which joins the worker");
        assert_eq!(driver.rings[0].used(), None);
        driver.transport.resume().expect("resume");
        driver.notify(ECHO);
        // Another device has time for a request, and so would this one.
        echoes(&mut started());
    }
    driver.start(0);
    assert_eq!(driver.transport.status() & NEEDS_RESET, 0);
    echoes(&mut driver);
}

#[test]
fn a_device_that_failed_has_given_back_what_was_in_flight() {
    let mut driver = started();
    let id = driver.send(KEEP, &[b"keep this"], &[]);
    // Once this is answered, the worker has seen the other queue: each turn serves both.
    echoes(&mut driver);
    order(&mut driver, Command::Fail);
    driver.wait_for_needs_reset();
    driver
        .transport
        .pause()
        .expect("pause, which joins the worker");
    assert_eq!(driver.rings[usize::from(KEEP)].used(), Some((id, 0)));
}

#[test]
fn failures_one_after_the_other_cost_no_more_than_resets() {
    let mut driver = started();
    for _ in 0..50 {
        order(&mut driver, Command::Fail);
        driver.wait_for_needs_reset();
        driver.start(0);
    }
    echoes(&mut driver);
}

#[test]
fn chains_completed_later_are_interrupted_for() {
    let mut driver = started();
    let id = driver.send(KEEP, &[b"keep this"], &[]);
    echoes(&mut driver);
    order(&mut driver, Command::Release);
    assert_eq!(driver.receive(KEEP).0, id);
}

#[test]
fn chains_in_flight_are_completed_once_across_pauses() {
    let mut driver = started();
    let ids: Vec<u16> = (0..8).map(|_| driver.send(KEEP, &[b"keep"], &[])).collect();
    for _ in 0..3 {
        driver.transport.pause().expect("pause");
        driver.transport.resume().expect("resume");
        echoes(&mut driver);
    }
    order(&mut driver, Command::Release);
    let used: Vec<u16> = ids.iter().map(|_| driver.receive(KEEP).0).collect();
    assert_eq!(used, ids);
    assert_eq!(driver.rings[usize::from(KEEP)].used(), None);
}

#[test]
fn a_change_of_the_configuration_is_interrupted_for_and_has_a_new_generation() {
    let mut driver = started();
    let before = driver.transport.config_generation();
    order(&mut driver, Command::Count);
    driver.until("a configuration interrupt", |driver| {
        (driver.interrupts().config == 1).then_some(())
    });
    let mut count = [0];
    driver.transport.read_config(0, &mut count);
    assert_eq!(
        (count, driver.transport.config_generation()),
        ([1], before + 1)
    );
    assert_eq!(driver.transport.acknowledge(), 2);
}

#[test]
fn a_panic_ends_the_machine_and_names_the_device() {
    let told = Arc::new((Mutex::new(None), Condvar::new()));
    let machine = Machine::default();
    let mut environment = machine.environment();
    let teller = Arc::clone(&told);
    environment.failed = Arc::new(move |device, what| {
        *teller.0.lock().unwrap() = Some((device.to_owned(), what.to_string()));
        teller.1.notify_all();
    });
    let mmio = Mmio::new(Box::new(Echo::default()), environment).expect("device");
    let mut driver = Driver::new(mmio, machine);
    driver.start(0);

    order(&mut driver, Command::Panic);

    let wait = told
        .1
        .wait_timeout_while(told.0.lock().unwrap(), DEADLINE, |told| told.is_none());
    let said = wait.unwrap().0.clone();
    assert_eq!(
        said,
        Some((
            "echo0".to_owned(),
            "panicked: the driver ordered a panic".to_owned()
        ))
    );

    // What is left of the device is harmless.
    driver.transport.pause().expect("pause");
    driver.transport.resume().expect("resume");
    assert!(driver.negotiate(0));
    driver.add_status(DRIVER_OK);
    assert_ne!(driver.transport.status() & NEEDS_RESET, 0);
    driver.transport.stop();
}
