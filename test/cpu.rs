//! What a process has used of the processors, for the benchmarks. /proc counts that in ticks of 10 ms; the kernel knows it
//! to the nanosecond.

use std::time::Duration;

/// The CPU time of a process so far, in seconds, with that of its threads which have ended.
#[allow(unsafe_code)]
pub fn cpu(pid: u32) -> f64 {
    let mut clock = 0;
    // SAFETY: the function writes to `clock`, which lives until it returns.
    let failed = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    assert_eq!(failed, 0, "process {pid} has a clock");
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the same for `time`.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(failed, 0, "process {pid} is there");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_secs_f64()
}
