//! The kick: how another thread makes a vCPU leave the guest.
//!
//! The problem: `KVM_RUN` returns early only when a signal is delivered to its thread, and a signal
//! that arrives just before the ioctl is lost. KVM's answer is `kvm_run.immediate_exit`: while it
//! is set, `KVM_RUN` returns `EINTR` at once. So the signal's handler sets that flag of *its own*
//! thread's vCPU: a signal that comes inside `KVM_RUN` interrupts it, and one that comes before
//! makes it return.
//!
//! What a kick is about does not travel with it. A thread that wants something writes the request
//! to shared memory *first* and kicks *then*; the vCPU's loop, on
//! [`Exit::Interrupted`](crate::Exit::Interrupted), finds the flag cleared and reads the request
//! *after* that. Whichever way the two race, the request is seen.
//!
//! The design:
//! - One real-time signal, [`signal`]: `SIGRTMIN`. Its handler is installed once per process, by
//!   the first [`Vcpu::bind`](crate::Vcpu::bind), and never replaces one that is there already.
//! - The handler finds its vCPU through a thread-local pointer that is set while a [`Binding`]
//!   lives. On any other thread, the signal has no effect.
//! - A thread is signalled only under the lock that its binding's end takes too: so never after it
//!   ended, when the kernel may have given its number to another.
//! - Signals don't pile up: the queue of real-time signals is limited per user, so a kick that
//!   finds one on its way adds none.
//!
//! What it does not do: it carries no request, and does not wait for the vCPU.

use crate::error::Error;
use crate::run_page::RunPage;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The signal that kicks vCPUs: `SIGRTMIN`, of those that the C library leaves to programs.
#[must_use]
pub fn signal() -> i32 {
    libc::SIGRTMIN()
}

thread_local! {
    /// The vCPU that this thread runs, for the signal handler. Const-initialised and without a
    /// destructor: using it registers and allocates nothing, which a handler may not do.
    static TARGET: AtomicPtr<Target> = const { AtomicPtr::new(ptr::null_mut()) };
}

/// What the kickers and the handler share.
#[derive(Debug)]
struct Target {
    page: Arc<RunPage>,
    /// A signal was sent and has not been handled yet.
    on_its_way: AtomicBool,
    /// The thread to signal, while it is bound.
    thread: Mutex<Option<libc::pid_t>>,
}

impl Target {
    fn thread(&self) -> MutexGuard<'_, Option<libc::pid_t>> {
        // Nothing can panic while it is held, and the value is whole at any time.
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a vCPU leave the guest. Cheap to clone, and usable from any thread at any time.
#[derive(Debug, Clone)]
pub struct Kick {
    target: Arc<Target>,
}

impl Kick {
    /// Makes the vCPU's current or next [`run`](crate::Vcpu::run) return
    /// [`Exit::Interrupted`](crate::Exit::Interrupted), if it is still bound to its thread. Write
    /// what you want of the vCPU first. Kicks that come close together may count as one.
    pub fn kick(&self) {
        let thread = self.target.thread();
        let Some(tid) = *thread else { return };
        // The swap is a release: a handler that clears the flag after it has seen what the caller
        // wrote before, so a signal that is on its way serves this kick too.
        if self.target.on_its_way.swap(true, Ordering::AcqRel) {
            return;
        }
        // The queue of real-time signals belongs to the user, so other processes may have filled
        // it. It drains as they run.
        for _ in 0..ATTEMPTS {
            if send(tid).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
        // Without a signal, the flag alone still stops the vCPU, at its next exit.
        self.target.on_its_way.store(false, Ordering::Release);
        self.target.page.immediate_exit().store(1, Ordering::SeqCst);
    }
}

/// How often a kick is tried while the user's signal queue is full.
const ATTEMPTS: usize = 1000;

fn send(tid: libc::pid_t) -> io::Result<()> {
    let pid = std::process::id();
    // SAFETY: tgkill takes three integers and touches no memory. The thread exists: its binding
    // clears `tid` under the lock that the caller holds. Even if it did not, the signal could only
    // reach a thread of this process, where the handler does nothing without a binding.
    match unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ties a vCPU to the thread that runs it: from [`Vcpu::bind`](crate::Vcpu::bind) until it is
/// dropped, kicks reach that thread. It can't leave the thread.
#[derive(Debug)]
#[must_use = "kicks have an effect only while the binding lives"]
pub struct Binding {
    target: Arc<Target>,
    /// Neither `Send` nor `Sync`: the thread-local pointer is this thread's.
    thread: PhantomData<*const ()>,
}

impl Binding {
    /// Binds the vCPU with this run page to the calling thread.
    pub(crate) fn new(page: Arc<RunPage>) -> Result<(Self, Kick), Error> {
        if !TARGET.with(|slot| slot.load(Ordering::Relaxed).is_null()) {
            return Err(Error::AlreadyBound("this thread"));
        }
        install()?;
        unblock()?;
        // SAFETY: gettid takes and touches nothing.
        let tid = unsafe { libc::gettid() };
        let target = Arc::new(Target {
            page,
            on_its_way: AtomicBool::new(false),
            thread: Mutex::new(Some(tid)),
        });
        TARGET.with(|slot| slot.store(Arc::as_ptr(&target).cast_mut(), Ordering::Relaxed));
        // The handler runs on this thread: it must find the pointer before any kick can exist.
        compiler_fence(Ordering::SeqCst);
        let kick = Kick {
            target: Arc::clone(&target),
        };
        Ok((
            Self {
                target,
                thread: PhantomData,
            },
            kick,
        ))
    }

    /// Whether the vCPU is bound to some thread still, as seen by one of its kicks.
    pub(crate) fn is_alive(kick: &Kick) -> bool {
        kick.target.thread().is_some()
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // First no more signals; then the handler, for one that is still pending, finds nothing.
        *self.target.thread() = None;
        // No `with`: a binding kept in a thread-local may be dropped when those are gone.
        let _ = TARGET.try_with(|slot| slot.store(ptr::null_mut(), Ordering::Relaxed));
        // The target is freed after this: the handler must not see the pointer then.
        compiler_fence(Ordering::SeqCst);
    }
}

/// The signal handler. It makes no call and takes no lock: three loads and two stores, all of them
/// atomic, so it is async-signal-safe and leaves errno as it was.
extern "C" fn on_kick(_: libc::c_int) {
    let _ = TARGET.try_with(|slot| {
        // SAFETY: a pointer that is not null was set by `Binding::new` on this very thread, and is
        // reset, on this thread too, before the binding lets go of the `Target` (a binding that is
        // leaked keeps it for ever). The handler interrupts this thread, so it runs wholly before
        // or wholly after that store, and the fences keep the compiler from moving it. The
        // `Target` holds the run page, and all that is touched of both is atomic.
        if let Some(target) = unsafe { slot.load(Ordering::Relaxed).as_ref() } {
            // Clear first: a kick that comes after this sends a signal of its own. The swap
            // acquires what earlier kickers wrote, which this signal stands for.
            target.on_its_way.swap(false, Ordering::AcqRel);
            target.page.immediate_exit().store(1, Ordering::SeqCst);
        }
    });
}

/// Installs the handler, once per process.
fn install() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), Refused>> = OnceLock::new();
    match INSTALLED.get_or_init(install_now) {
        Ok(()) => Ok(()),
        Err(Refused::Taken) => Err(Error::SignalTaken { signal: signal() }),
        Err(Refused::Errno(errno)) => {
            let source = io::Error::from_raw_os_error(*errno);
            Err(Error::Call {
                call: "sigaction for the kick",
                source,
            })
        }
    }
}

/// Why not; kept for every later attempt, so it must be `Sync`.
enum Refused {
    Taken,
    Errno(i32),
}

fn install_now() -> Result<(), Refused> {
    let last = || {
        Refused::Errno(
            io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EINVAL),
        )
    };
    // SAFETY: all-zero bytes are a valid sigaction: default handler, no flag, empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as usize;
    // No SA_RESTART: the point is to interrupt. SA_ONSTACK: where a runtime gives its threads an
    // alternate stack, the handler must use it.
    action.sa_flags = libc::SA_ONSTACK;
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both point to a sigaction that we own, and the handler is async-signal-safe, as
    // argued at `on_kick`.
    if unsafe { libc::sigaction(signal(), &raw const action, before.as_mut_ptr()) } != 0 {
        return Err(last());
    }
    // SAFETY: zeroed above, which is valid, and then filled by the call.
    let before = unsafe { before.assume_init() };
    if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    // Someone else's: give it back.
    // SAFETY: `before` is what the kernel said was installed.
    match unsafe { libc::sigaction(signal(), &raw const before, ptr::null_mut()) } {
        0 => Err(Refused::Taken),
        _ => Err(last()),
    }
}

/// A thread may have inherited a mask that blocks the signal: then no kick would come through.
fn unblock() -> Result<(), Error> {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is ours; sigemptyset makes it valid before the others use it.
    let errno = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut())
    };
    match errno {
        0 => Ok(()),
        errno => Err(Error::Call {
            call: "pthread_sigmask for the kick",
            source: io::Error::from_raw_os_error(errno),
        }),
    }
}
