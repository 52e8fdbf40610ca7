//! Asks the kernel to let a thread run as soon as it has something to do.
//!
//! A thread that wakes waits until whoever runs has used up a slice of time, which is milliseconds long. One that asks for
//! short slices goes first, within the share of the processor that it has anyway (`sched(7)`, Linux 6.12 and later).

const SLICE_NANOSECONDS: u64 = 100_000;

/// Shortens the slices of the calling thread. Kernels that know nothing of it change nothing; nor does a thread change
/// whose scheduling an administrator has chosen.
pub fn wake_soon() {
    const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
    // SAFETY: all of it are numbers, for which zero is a value.
    let mut own: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `own` is as large as is said, and thread 0 is the calling one.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut own, SIZE, 0) } != 0 {
        return;
    }
    if own.sched_policy == libc::SCHED_OTHER as u32 {
        own.sched_runtime = SLICE_NANOSECONDS;
        // SAFETY: as above; the kernel only reads.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const own, 0) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_but_the_slice_stays_as_it_is() {
        // SAFETY: of the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        super::wake_soon();
        assert_eq!(nice(), before);
        // SAFETY: of the calling thread.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
    }
}
