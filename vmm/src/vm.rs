//! The machine: built from a [`Config`] step by step, run once.

use crate::arch::{boot, cpuid, layout, msr};
use crate::boot::{DeviceWindow, Guest};
use crate::config::{Config, KvmSource, Problem, SerialPort, Transport, VirtioDevice};
use crate::control::{ActiveDevice, Control, Devices, PowerButton};
use crate::gathered::{self, Patient};
use crate::handle::Handle;
use crate::irq::{Messages, NoLine};
use crate::legacy::pm::Pm;
use crate::legacy::serial::{Coalesced, Gather, Serial};
use crate::outcome::CrashReport;
use crate::pci;
use crate::plugged::Plugged;
use crate::state::Step;
use crate::vcpu::{self, Board, Cpu};
use crate::window::VirtioMmio;
use crate::{Error, Outcome, acpi, cmdline, crash, legacy, memory};
use kvm::{Exit, System};
use kvm_bindings::CpuId;
use loader::{Boot, Platform};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use virtio::GuestMemory;
use virtio::transport::{mmio::Mmio, pci::Pci};

/// A vCPU's thread runs the bus and the registers of devices: nothing that is deep.
const VCPU_STACK: usize = 256 << 10;

/// A virtual machine that is built and waits to be run.
///
/// Run to its end, or dropped without being run, it leaves nothing behind: no thread, no
/// descriptor, no mapping.
pub struct Vm {
    control: Arc<Control>,
    /// Taken by the threads that run them.
    cpus: Vec<kvm::Vcpu>,
    board: Board,
    serial: Option<Serial>,
}

impl Vm {
    /// Builds the machine and loads the guest. No vCPU runs yet, and no thread but those of the
    /// serial port exists.
    pub fn new(mut config: Config) -> Result<Vm, Error> {
        let opened = config.examine()?;
        let cmdline = config
            .payload
            .as_ref()
            .map_or("", |payload| payload.cmdline.as_str());
        let with_acpi = config.acpi && !cmdline::disables_acpi(cmdline);
        // A user who has something to say about it may want the ports.
        let tells_of_ecam = with_acpi && !cmdline::chooses_pci(cmdline);
        let triple_fault_reboots = cmdline::reboots_by_triple_fault(cmdline);

        let system = open_kvm(std::mem::take(&mut config.kvm))?;
        let supported = check_host(&system, &config)?;
        let memory = memory::build(config.memory)?;
        legacy::reset_vector::write(&memory);
        let shows_pci = tells_of_ecam && config.count(Transport::Pci) > 0 && system.has_rom();
        let (kvm, shown) = create_vm(&system, &memory, shows_pci)?;
        let cpus = create_vcpus(&kvm, &supported, config.cpus)?;

        let control = Arc::new(Control::new(cpus.len()));
        let mut board = Board::new(Arc::clone(&memory), triple_fault_reboots);
        let bus = PciBus {
            shown,
            tells_of_ecam,
        };
        let devices = plug_in_devices(&mut config, &kvm, &mut board, &control, bus)?;
        let serial = config.serial.take();
        if serial.is_none() {
            // The ring has one user.
            devices.patient.register(&kvm);
            let ring = cpus.first().and_then(kvm::Vcpu::coalesced_ring);
            board.gathered = ring.map(|ring| Box::new(ring) as _);
        }
        let serial = serial
            .map(|port| plug_in_serial(port, &kvm, &cpus, &mut board))
            .transpose()?;
        let pm = plug_in_legacy(&kvm, &mut board)?;

        let tables = with_acpi
            .then(|| write_acpi(&memory, config.cpus, &devices, serial.is_some()))
            .transpose()?;
        let boot = load(
            &mut config,
            opened.as_ref(),
            &memory,
            &devices,
            tables.as_ref(),
            serial.is_some(),
        )?;
        if let Some(first) = cpus.first() {
            set_registers(first, &boot).map_err(failed("setting the first vCPU's registers"))?;
        }

        control.set_devices(Devices {
            active: devices.active,
            power_button: with_acpi.then_some(pm as Arc<dyn PowerButton>),
        });
        Ok(Vm {
            control,
            cpus,
            board,
            serial,
        })
    }

    /// A remote control for this machine.
    pub fn handle(&self) -> Handle {
        Handle {
            control: Arc::clone(&self.control),
        }
    }

    /// Runs the machine until the guest, somebody with a [`Handle`], or a failure ends it.
    ///
    /// Each vCPU has a thread of its own, which is gone when this returns; the calling thread
    /// waits. The first cause is what is returned.
    pub fn run(mut self) -> Result<Outcome, Error> {
        self.control.gate.advance(Step::Start)?;
        let cpus = std::mem::take(&mut self.cpus);
        thread::scope(|scope| {
            let start = |(id, cpu)| self.start_vcpu(scope, id, cpu);
            let threads: Vec<_> = (0..).zip(cpus).filter_map(start).collect();
            // One that panicked has ended the machine when it left the gate.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        self.tear_down()
    }

    /// The thread of vCPU `id`, unless the host gives none: that ends the machine.
    fn start_vcpu<'scope, 'env>(
        &'env self,
        scope: &'scope thread::Scope<'scope, 'env>,
        id: u32,
        mut cpu: kvm::Vcpu,
    ) -> Option<ScopedJoinHandle<'scope, ()>> {
        let name = format!("vcpu{id}");
        let gate = &self.control.gate;
        thread::Builder::new()
            .name(name.clone())
            .stack_size(VCPU_STACK)
            .spawn_scoped(scope, move || match self.run_vcpu(id, &mut cpu) {
                Ok(None) => {}
                Ok(Some(outcome)) => gate.end(Ok(outcome)),
                Err(error) => gate.end(Err(error)),
            })
            .map_err(|source| gate.end(Err(Error::Thread { name, source })))
            .ok()
    }

    fn run_vcpu(&self, id: u32, cpu: &mut kvm::Vcpu) -> Result<Option<Outcome>, Error> {
        let (_binding, kick) = cpu
            .bind()
            .map_err(failed("making a vCPU's thread kickable"))?;
        // Left before the binding is dropped, so every kick of the gate's finds its thread.
        let seat = self.control.gate.enter(id, Box::new(move || kick.kick()));
        match self.control.counters().get(id as usize) {
            Some(counters) => vcpu::run(cpu, id, &self.board, &seat, counters),
            None => Ok(None),
        }
    }

    /// The vCPUs have ended (or never began): workers, then consoles, then the state.
    fn tear_down(&mut self) -> Result<Outcome, Error> {
        self.cpus.clear();
        self.control.sink();
        self.serial = None;
        self.control.finish()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // After a run there is nothing left to do; before one, nobody waits for the answer.
        let _ = self.tear_down();
    }
}

impl Cpu for kvm::Vcpu {
    fn run(&mut self) -> Result<Exit<'_>, kvm::Error> {
        kvm::Vcpu::run(self)
    }

    fn locate(&self, memory: &GuestMemory) -> CrashReport {
        match (self.get_regs(), self.get_sregs()) {
            (Ok(regs), Ok(sregs)) => crash::locate(&regs, &sregs, memory),
            _ => CrashReport::default(),
        }
    }
}

fn open_kvm(source: KvmSource) -> Result<System, Error> {
    match source {
        KvmSource::Default => System::open(),
        KvmSource::Path(path) => System::open_at(&path),
        KvmSource::Fd(fd) => System::from_fd(fd),
    }
    .map_err(failed("opening it"))
}

/// What the configuration asks for and only the host can tell whether it has it.
fn check_host(system: &System, config: &Config) -> Result<CpuId, Error> {
    // Every KVM has one; a machine with one need not ask.
    let max = if config.cpus > 1 {
        system.max_vcpus()
    } else {
        1
    };
    if config.cpus > max {
        return Err(Problem::Cpus {
            cpus: config.cpus,
            max,
        }
        .into());
    }
    let supported = system
        .supported_cpuid()
        .map_err(failed("asking what a vCPU can be"))?;
    memory::check_width(config.memory, cpuid::physical_bits(&supported))?;
    Ok(supported)
}

/// The VM with its memory, and if it `shows_pci`, with PCI configuration space as memory.
fn create_vm(
    system: &System,
    memory: &Arc<GuestMemory>,
    shows_pci: bool,
) -> Result<(kvm::Vm, Option<pci::Shown>), Error> {
    let failed = failed("creating the VM");
    let memory = Arc::clone(memory);
    if !shows_pci {
        let vm = kvm::Vm::new(system, memory).map_err(failed)?;
        return Ok((vm, None));
    }
    let pages = pci::Shown::memory()?;
    let (vm, rom) = kvm::Vm::with_rom(system, memory, Arc::clone(&pages)).map_err(failed)?;
    let hide = move || {
        if let Err(error) = rom.remove() {
            log::error!("PCI configuration space stays as it is shown: {error}");
        }
    };
    Ok((vm, Some(pci::Shown::new(pages, Box::new(hide)))))
}

/// The vCPUs as they are at reset, each told who it is.
fn create_vcpus(vm: &kvm::Vm, supported: &CpuId, cpus: u32) -> Result<Vec<kvm::Vcpu>, Error> {
    (0..cpus)
        .map(|id| {
            let cpu = vm.create_vcpu(id).map_err(failed("creating a vCPU"))?;
            let topology = cpuid::Topology {
                cpus,
                tsc_khz: cpu.tsc_khz().ok(),
                // KVM emulates the mode wherever the local APIC is in the kernel, as it is here.
                tsc_deadline: true,
            };
            let cpuid = cpuid::setup(supported, &topology, id).map_err(misfit("the CPUID"))?;
            cpu.set_cpuid(&cpuid)
                .map_err(failed("setting a vCPU's CPUID"))?;
            cpu.set_msrs(msr::BOOT)
                .map_err(failed("setting a vCPU's MSRs"))?;
            Ok(cpu)
        })
        .collect()
}

/// What is known of the PCI bus, if there will be one, before its functions are.
struct PciBus {
    shown: Option<pci::Shown>,
    tells_of_ecam: bool,
}

/// The virtio devices of a machine.
#[derive(Default)]
struct VirtioDevices {
    /// All of them, as configured.
    active: Vec<Arc<dyn ActiveDevice>>,
    /// Those that have one.
    windows: Vec<DeviceWindow>,
    on_pci: bool,
    patient: Patient,
}

fn plug_in_devices(
    config: &mut Config,
    vm: &kvm::Vm,
    board: &mut Board,
    control: &Control,
    bus: PciBus,
) -> Result<VirtioDevices, Error> {
    let mut devices = VirtioDevices {
        patient: gathered::of_board(),
        ..VirtioDevices::default()
    };
    let mut functions = Vec::new();
    // validate() has counted the devices, so each has a window or a slot.
    let mut windows = (0..).map_while(layout::window);
    for device in std::mem::take(&mut config.devices) {
        match config.transport_of(&device) {
            Transport::Pci => {
                let function = Arc::new(pci_function(device, vm, board, control)?);
                devices.active.push(Arc::clone(&function) as _);
                functions.push(function);
            }
            Transport::Mmio => {
                let Some(at) = windows.next() else { continue };
                let device = VirtioMmio::new(device, at, vm, &board.memory, &control.gate)?;
                devices.active.push(Arc::clone(device.device()) as _);
                devices.windows.push(device.window().clone());
                for range in Mmio::PATIENT {
                    devices.patient.add(at.base, range);
                }
                let range = at.base..at.base + at.size;
                board
                    .mmio
                    .insert(range, Arc::new(device))
                    .map_err(misfit("the virtio devices"))?;
            }
        }
    }
    devices.on_pci = !functions.is_empty();
    if devices.on_pci {
        let root = pci::Root::new(functions, Box::new(vm.clone()), bus.shown);
        root.patient(&mut devices.patient);
        root.attach(&mut board.mmio, &mut board.pio, bus.tells_of_ecam)
            .map_err(misfit("the PCI bus"))?;
    }
    Ok(devices)
}

/// A device behind a function, with an interrupt for each queue and one for its configuration.
fn pci_function(
    device: VirtioDevice,
    vm: &kvm::Vm,
    board: &Board,
    control: &Control,
) -> Result<Plugged<Pci>, Error> {
    let vectors = device.device.spec().queues.len() + 1;
    let messages =
        Messages::new(vm, vectors).map_err(failed("making the interrupts of a device"))?;
    Plugged::new(
        device,
        &board.memory,
        &control.gate,
        Arc::new(NoLine),
        |device, environment| Pci::new(device, environment, Arc::new(messages)),
    )
}

fn plug_in_serial(
    port: SerialPort,
    vm: &kvm::Vm,
    cpus: &[kvm::Vcpu],
    board: &mut Board,
) -> Result<Serial, Error> {
    let irq = vm
        .irqfd(layout::SERIAL_GSI)
        .map_err(failed("binding the serial interrupt"))?;
    // An older KVM gathers nothing.
    let gather = cpus
        .first()
        .and_then(kvm::Vcpu::coalesced_ring)
        .map(|ring| Coalesced::new(vm.clone(), ring, layout::SERIAL_DATA_PORT))
        .map(|gather| Arc::new(gather) as Arc<dyn Gather>);
    let serial = Serial::start(move || irq.trigger(), port.input, port.output, gather).map_err(
        |source| Error::Host {
            what: "the serial port",
            source,
        },
    )?;
    board
        .pio
        .insert(layout::SERIAL_PORTS, serial.device())
        .map_err(misfit("the serial port"))?;
    Ok(serial)
}

/// Keyboard controller, clock, power management: what a PC has and kernels look for.
fn plug_in_legacy(vm: &kvm::Vm, board: &mut Board) -> Result<Arc<Pm>, Error> {
    let irq = vm
        .irqfd(layout::GED_GSI)
        .map_err(failed("binding the power button's interrupt"))?;
    let pm = Arc::new(Pm::new(move || irq.trigger()));
    legacy::attach(&mut board.pio, &pm).map_err(misfit("the legacy devices"))?;
    Ok(pm)
}

fn write_acpi(
    memory: &GuestMemory,
    cpus: u32,
    devices: &VirtioDevices,
    serial: bool,
) -> Result<acpi::Tables, Error> {
    let windows: Vec<_> = (0..devices.windows.len())
        .map_while(layout::window)
        .collect();
    let info = acpi::AcpiInfo {
        cpus,
        virtio_mmio: &windows,
        pci: devices.on_pci,
        serial,
        rtc: true,
    };
    acpi::build(memory, &info).map_err(misfit("the ACPI tables"))
}

fn load(
    config: &mut Config,
    opened: Option<&loader::Opened>,
    memory: &GuestMemory,
    devices: &VirtioDevices,
    tables: Option<&acpi::Tables>,
    serial: bool,
) -> Result<Boot, Error> {
    let cmdline = config
        .payload
        .as_ref()
        .map_or("", |payload| payload.cmdline.as_str());
    let mut parameters = cmdline::defaults(cmdline, devices.on_pci, serial);
    if tables.is_none() {
        // Only then: a kernel that finds a device in both places complains about the second.
        parameters.extend(devices.windows.iter().map(DeviceWindow::parameter));
    }
    let reserved: Vec<_> = tables
        .iter()
        .map(|tables| tables.reserved.clone())
        .collect();
    let platform = Platform {
        rsdp: tables.map(|tables| tables.rsdp),
        reserved: &reserved,
        cmdline_extra: &parameters.join(" "),
    };
    let payload = config.payload.as_ref();
    match (&mut config.loader, opened) {
        (Some(loader), _) => loader
            .load(&Guest {
                memory,
                platform: &platform,
                payload,
                devices: &devices.windows,
            })
            .map_err(Error::Load),
        (None, Some(opened)) => opened
            .load(memory, &platform)
            .map_err(|error| Error::Load(error.into())),
        (None, None) => Err(Problem::NothingToBoot.into()),
    }
}

fn set_registers(cpu: &kvm::Vcpu, boot: &Boot) -> Result<(), kvm::Error> {
    cpu.set_sregs(&boot::sregs(&boot.registers, cpu.get_sregs()?))?;
    cpu.set_regs(&boot::regs(&boot.registers))
}

fn failed(doing: &'static str) -> impl Fn(kvm::Error) -> Error {
    move |source| Error::Kvm { doing, source }
}

fn misfit<E>(what: &'static str) -> impl Fn(E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| Error::Board {
        what,
        source: Box::new(source),
    }
}
