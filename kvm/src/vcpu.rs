//! A virtual CPU: run it, see why it came back, look at its registers.
//!
//! The loop that this is made for:
//!
//! ```text
//! let (_binding, kick) = vcpu.bind()?;       // on the thread that will run it
//! loop {
//!     match vcpu.run()? {
//!         Exit::IoOut { .. } => ...          // the answer, if any, goes into the exit
//!         Exit::Interrupted => ...           // read the request that was written before the kick
//!     }
//! }
//! ```
//!
//! [`run`](Vcpu::run) is ours and not kvm-ioctls', for three reasons: theirs drops the item size of
//! string I/O and the details of internal errors, it indexes slices with what the kernel wrote, and
//! it lends the whole run page as a Rust reference, which the kick's handler writes to.

use crate::coalesced::CoalescedRing;
use crate::error::Error;
use crate::exit::{self, Exit};
use crate::kick::{Binding, Kick};
use crate::run_page::RunPage;
use crate::vm::Inner;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);

/// A virtual CPU. It holds its VM, and with it the guest's memory.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    page: Arc<RunPage>,
    /// Of the last binding, to refuse a second one while it lives.
    kick: Option<Kick>,
    /// How often in a row KVM has asked to be called again.
    retries: u32,
    vm: Arc<Inner>,
}

/// A vCPU that waits for its start-up IPI is asked to come again a few times. KVM also answers so,
/// for ever, where the host does not let it start a thread that it needs (`RLIMIT_NPROC`).
const MAX_RETRIES: u32 = 1000;

impl Vcpu {
    pub(crate) fn new(vm: Arc<Inner>, id: u32) -> Result<Self, Error> {
        let fd = vm
            .fd
            .create_vcpu(id.into())
            .map_err(|errno| Error::CreateVcpu {
                id,
                source: errno.into(),
            })?;
        let page = Arc::new(RunPage::map(&fd, vm.fd.run_size())?);
        Ok(Self {
            fd,
            page,
            kick: None,
            retries: 0,
            vm,
        })
    }

    /// Makes the calling thread, which is the one that will run this vCPU, kickable. The kick works
    /// until the binding is dropped.
    pub fn bind(&mut self) -> Result<(Binding, Kick), Error> {
        if self.kick.as_ref().is_some_and(Binding::is_alive) {
            return Err(Error::AlreadyBound("this vCPU"));
        }
        let (binding, kick) = Binding::new(Arc::clone(&self.page))?;
        self.kick = Some(kick.clone());
        Ok((binding, kick))
    }

    /// Runs the guest until something needs us.
    ///
    /// What the last exit left to be done (the data of a read, above all) takes effect first. After
    /// [`Exit::Interrupted`] the kick's flag is clear: look *now* at what may be wanted, and the
    /// next kick makes the next run return.
    pub fn run(&mut self) -> Result<Exit<'_>, Error> {
        // SAFETY: KVM_RUN takes no argument. It runs the guest, which writes to its memory (which
        // `vm` keeps mapped) and to the run page, of which no reference is alive: those that exits
        // lend borrow from `self`, which is borrowed exclusively here.
        if unsafe { ioctl(&self.fd, KVM_RUN()) } == 0 {
            self.retries = 0;
            // SAFETY: the exit borrows `self` exclusively, so until it is gone, the vCPU can't run
            // and nothing else decodes its page.
            return unsafe { exit::decode(&self.page) };
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::EAGAIN) if self.retries >= MAX_RETRIES => Err(Error::Run { source }),
            // EAGAIN: a vCPU that waits for its start-up IPI was woken for something else.
            Some(errno @ (libc::EINTR | libc::EAGAIN)) => {
                self.retries = if errno == libc::EAGAIN {
                    self.retries + 1
                } else {
                    0
                };
                // SeqCst, and a locked instruction: not to be moved past the reading of the request
                // that follows, or a kick in between would be lost.
                self.page.immediate_exit().swap(0, Ordering::SeqCst);
                Ok(Exit::Interrupted)
            }
            // The only exit that comes with an error.
            Some(libc::EFAULT | libc::EHWPOISON) => {
                // SAFETY: as above.
                match unsafe { exit::decode(&self.page) } {
                    Ok(fault @ Exit::MemoryFault { .. }) => Ok(fault),
                    _ => Err(Error::Run { source }),
                }
            }
            _ => Err(Error::Run { source }),
        }
    }

    /// Completes what the last exit left half-done, without running the guest. Do this before the
    /// vCPU's state is read or the VM is paused.
    ///
    /// The KVM documentation says: for I/O and MMIO exits "the corresponding operations are
    /// complete (and guest state is consistent) only after userspace has re-entered the kernel with
    /// KVM_RUN", and `immediate_exit` is how to re-enter for only that. An operation can have
    /// further parts (an access across a page has two): then the next part is returned, to be
    /// handled as that of [`run`](Self::run), and then settled again, until this returns
    /// [`Exit::Interrupted`]. That may have swallowed a kick, so look at what is wanted after it.
    pub fn settle(&mut self) -> Result<Exit<'_>, Error> {
        self.page.immediate_exit().store(1, Ordering::SeqCst);
        self.run()
    }

    /// The VM's ring of coalesced writes, if this KVM has one. It is the same whichever vCPU is
    /// asked.
    #[must_use]
    pub fn coalesced_ring(&self) -> Option<CoalescedRing> {
        CoalescedRing::new(&self.page, &self.vm)
    }

    /// Tells the guest what its processor can do. Must come before the first run.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), Error> {
        self.fd
            .set_cpuid2(cpuid)
            .map_err(Error::call("KVM_SET_CPUID2"))
    }

    /// The general registers.
    pub fn get_regs(&self) -> Result<kvm_regs, Error> {
        self.fd.get_regs().map_err(Error::call("KVM_GET_REGS"))
    }

    /// Sets the general registers.
    pub fn set_regs(&self, regs: &kvm_regs) -> Result<(), Error> {
        self.fd.set_regs(regs).map_err(Error::call("KVM_SET_REGS"))
    }

    /// The segments, control registers and tables.
    pub fn get_sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(Error::call("KVM_GET_SREGS"))
    }

    /// Sets the segments, control registers and tables.
    pub fn set_sregs(&self, sregs: &kvm_sregs) -> Result<(), Error> {
        self.fd
            .set_sregs(sregs)
            .map_err(Error::call("KVM_SET_SREGS"))
    }

    /// The x87 and SSE registers.
    pub fn get_fpu(&self) -> Result<kvm_fpu, Error> {
        self.fd.get_fpu().map_err(Error::call("KVM_GET_FPU"))
    }

    /// Sets the x87 and SSE registers.
    pub fn set_fpu(&self, fpu: &kvm_fpu) -> Result<(), Error> {
        self.fd.set_fpu(fpu).map_err(Error::call("KVM_SET_FPU"))
    }

    /// Sets XCR0, which says what XSAVE manages. After a reset it is 1; a guest widens it with
    /// XSETBV, and only a KVM that does not notice that needs to be told from outside.
    pub fn set_xcr0(&self, value: u64) -> Result<(), Error> {
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        // The first entry is there: the array has a fixed size.
        if let Some(first) = xcrs.xcrs.first_mut() {
            *first = kvm_xcr {
                xcr: 0,
                value,
                ..Default::default()
            };
        }
        self.fd.set_xcrs(&xcrs).map_err(Error::call("KVM_SET_XCRS"))
    }

    /// The local APIC's registers.
    pub fn get_lapic(&self) -> Result<kvm_lapic_state, Error> {
        self.fd.get_lapic().map_err(Error::call("KVM_GET_LAPIC"))
    }

    /// Sets the local APIC's registers.
    pub fn set_lapic(&self, lapic: &kvm_lapic_state) -> Result<(), Error> {
        self.fd
            .set_lapic(lapic)
            .map_err(Error::call("KVM_SET_LAPIC"))
    }

    /// Whether the vCPU runs, halts or waits for a start-up IPI (`KVM_MP_STATE_*`).
    pub fn get_mp_state(&self) -> Result<kvm_mp_state, Error> {
        self.fd
            .get_mp_state()
            .map_err(Error::call("KVM_GET_MP_STATE"))
    }

    /// Sets whether the vCPU runs, halts or waits for a start-up IPI.
    pub fn set_mp_state(&self, state: kvm_mp_state) -> Result<(), Error> {
        self.fd
            .set_mp_state(state)
            .map_err(Error::call("KVM_SET_MP_STATE"))
    }

    /// The frequency of the guest's time stamp counter.
    pub fn tsc_khz(&self) -> Result<u32, Error> {
        self.fd
            .get_tsc_khz()
            .map_err(Error::call("KVM_GET_TSC_KHZ"))
    }

    /// The values of these model-specific registers: those before the first that KVM does not know.
    pub fn get_msrs(&self, indices: &[u32]) -> Result<Vec<(u32, u64)>, Error> {
        let mut values = Vec::with_capacity(indices.len());
        for chunk in indices.chunks(KVM_MAX_MSR_ENTRIES) {
            let entries: Vec<_> = chunk.iter().map(|&index| entry(index, 0)).collect();
            let mut msrs = msrs(&entries)?;
            let known = self
                .fd
                .get_msrs(&mut msrs)
                .map_err(Error::call("KVM_GET_MSRS"))?;
            let read = msrs.as_slice().iter().take(known);
            values.extend(read.map(|entry| (entry.index, entry.data)));
            if known < chunk.len() {
                break;
            }
        }
        Ok(values)
    }

    /// Sets model-specific registers, in this order. One that KVM refuses is named.
    pub fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), Error> {
        for chunk in values.chunks(KVM_MAX_MSR_ENTRIES) {
            let entries: Vec<_> = chunk
                .iter()
                .map(|&(index, data)| entry(index, data))
                .collect();
            let msrs = msrs(&entries)?;
            let set = self
                .fd
                .set_msrs(&msrs)
                .map_err(Error::call("KVM_SET_MSRS"))?;
            if let Some(&(index, value)) = chunk.get(set) {
                return Err(Error::Msr { index, value });
            }
        }
        Ok(())
    }
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}

fn msrs(entries: &[kvm_msr_entry]) -> Result<Msrs, Error> {
    // Chunks are not longer than the wrapper's limit, so this does not fail.
    Msrs::from_entries(entries).map_err(|_| Error::Call {
        call: "making a list of MSRs",
        source: io::ErrorKind::InvalidInput.into(),
    })
}
