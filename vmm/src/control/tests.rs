use super::*;
use crate::gate::Turn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use virtio::device::Kind;

/// A device that writes down what is asked of it.
struct Diary {
    name: &'static str,
    entries: Mutex<mpsc::Sender<String>>,
    pauses: bool,
}

impl Diary {
    fn write(&self, what: &str) {
        self.entries
            .lock()
            .unwrap()
            .send(format!("{} {what}", self.name))
            .unwrap();
    }
}

impl ActiveDevice for Diary {
    fn pause(&self) -> Result<(), Error> {
        self.write("pause");
        if self.pauses {
            Ok(())
        } else {
            Err(Error::NoPowerButton)
        }
    }

    fn resume(&self) -> Result<(), Error> {
        self.write("resume");
        Ok(())
    }

    fn stop(&self) {
        self.write("stop");
    }

    fn report(&self) -> DeviceReport {
        DeviceReport {
            transport: crate::Transport::Mmio,
            name: self.name.into(),
            kind: Kind::Console,
            started: self.pauses,
        }
    }
}

/// A machine with one vCPU, and two devices of which the second can refuse to pause.
fn machine(second_pauses: bool) -> (Control, mpsc::Receiver<String>) {
    let (sender, diary) = mpsc::channel();
    let control = Control::new(1);
    let device = |name, pauses| {
        let entries = Mutex::new(sender.clone());
        Arc::new(Diary {
            name,
            entries,
            pauses,
        }) as Arc<dyn ActiveDevice>
    };
    let active = vec![device("a", true), device("b", second_pauses)];
    control.set_devices(Devices {
        active,
        power_button: None,
    });
    (control, diary)
}

/// Runs `test` beside the vCPU, which writes down that it holds by being held.
fn while_running(control: &Control, test: impl FnOnce()) {
    control.gate.advance(Step::Start).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let seat = control.gate.enter(0, Box::new(|| {}));
            while seat.turn() == Turn::Run {
                thread::yield_now();
            }
        });
        test();
        control.gate.end(Ok(Outcome::Stopped));
    });
}

#[test]
fn pause_and_resume_reach_each_device_once_however_often_they_are_asked_for() {
    let (control, diary) = machine(true);
    while_running(&control, || {
        control.pause().unwrap();
        control.pause().unwrap();
        assert_eq!(control.gate.state(), State::Paused);
        control.resume().unwrap();
        control.resume().unwrap();
        assert_eq!(control.gate.state(), State::Running);
    });

    let entries: Vec<_> = diary.try_iter().collect();
    assert_eq!(entries, ["a pause", "b pause", "a resume", "b resume"]);
}

#[test]
fn a_device_that_cannot_pause_leaves_the_machine_running_as_a_whole() {
    let (control, diary) = machine(false);
    while_running(&control, || {
        assert!(control.pause().is_err());
        assert_eq!(control.gate.state(), State::Running);
    });

    let entries: Vec<_> = diary.try_iter().collect();
    assert_eq!(entries, ["a pause", "b pause", "a resume"]);
}

#[test]
fn sinking_stops_each_device_once_and_keeps_their_reports() {
    let (control, diary) = machine(false);
    control.sink();
    control.sink();

    let report = control.report();

    assert_eq!(diary.try_iter().collect::<Vec<_>>(), ["a stop", "b stop"]);
    assert_eq!(
        report
            .unstarted()
            .map(|d| d.name.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert!(diary.recv().is_err(), "the devices are freed");
}

#[test]
fn resuming_a_machine_that_never_started_is_refused() {
    let (control, diary) = machine(true);

    let error = control.resume().unwrap_err();

    assert_eq!(error.to_string(), "can't resume a machine that is created");
    assert_eq!(diary.try_iter().count(), 0);
}

#[test]
fn the_power_button_needs_a_machine_that_has_one_and_runs() {
    let (control, _diary) = machine(true);
    let created = control.power_button().unwrap_err();
    control.gate.advance(Step::Start).unwrap();
    let without = control.power_button().unwrap_err();
    let button = Arc::new(Button::default());
    control.set_devices(Devices {
        active: Vec::new(),
        power_button: Some(Arc::clone(&button) as Arc<dyn PowerButton>),
    });
    let before = control.power_button_taken();
    control.power_button().unwrap();

    assert_eq!(
        created.to_string(),
        "can't press the power button of a machine that is created"
    );
    assert!(matches!(without, Error::NoPowerButton));
    assert!(!before);
    assert!(button.pressed.load(Ordering::SeqCst));
    assert!(control.power_button_taken());
}

/// Taken by the guest as soon as it is pressed.
#[derive(Default)]
struct Button {
    pressed: AtomicBool,
}

impl PowerButton for Button {
    fn press(&self) {
        self.pressed.store(true, Ordering::SeqCst);
    }

    fn taken(&self) -> bool {
        self.pressed.load(Ordering::SeqCst)
    }
}

#[test]
fn the_end_comes_through_while_a_pause_waits_for_a_vcpu_that_never_holds() {
    let (control, _diary) = machine(true);
    control.gate.advance(Step::Start).unwrap();
    thread::scope(|scope| {
        let pause = scope.spawn(|| control.pause());
        control.gate.end(Ok(Outcome::Shutdown));

        assert!(pause.join().unwrap().is_err());
    });

    control.sink();
    assert_eq!(control.finish().unwrap(), Outcome::Shutdown);
    assert_eq!(control.gate.state(), State::Stopped);
}
