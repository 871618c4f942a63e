//! What a process has used of the processors, for the benchmarks.

/// The CPU time of a process in seconds, from two adjoining fields of proc_pid_stat(5).
pub fn cpu(pid: u32, first_field: usize) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..]
        .split_whitespace()
        .collect();
    // The fields are numbered from 0 here, and the first two are cut off.
    let ticks = |field: usize| fields[field - 2].parse::<f64>().unwrap();
    (ticks(first_field) + ticks(first_field + 1)) / 100.0
}
