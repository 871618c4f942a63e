//! The only unsafe code: thin wrappers over system calls that std lacks.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const LISTEN_FDS_START: RawFd = 3;

/// Fills `buffer` with random bytes from the kernel.
pub fn random(buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        // SAFETY: the pointer and the length are those of `rest`, which is writable.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => filled += n,
            Err(_) => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(Error::io("get random numbers from", "the kernel", e));
                }
            }
        }
    }
    Ok(())
}

/// Takes an exclusive lock on a whole file for as long as the file stays open.
/// `false` when somebody else holds it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes a descriptor, which is open as long as `file` lives.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        e => Err(e),
    }
}

/// Makes `to` share the blocks of `from`, on file systems that can.
pub fn clone_file(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: FICLONE takes two descriptors (ioctl_ficlone(2)), which are open as long as the files live.
    done(unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE as _, from.as_raw_fd()) })
}

/// Asks for the directories that will be made in this one to be kept apart from each other on the disk, as those at
/// the top of a file system are (`T` in chattr(1)). ext2, ext3 and ext4 know it.
pub fn spread_directories(dir: &Path) -> io::Result<()> {
    /// linux/fs.h.
    const FS_TOPDIR_FL: libc::c_int = 0x0002_0000;
    let dir = File::open(dir)?;
    let mut flags: libc::c_int = 0;
    // SAFETY: both calls are given a descriptor that is open as long as `dir` lives, and an `int`, which is what
    // they read and write whatever their numbers say (ioctl_iflags(2)).
    unsafe {
        if libc::ioctl(dir.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) == 0 {
            flags |= FS_TOPDIR_FL;
            if libc::ioctl(dir.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) == 0 {
                return Ok(());
            }
        }
    }
    Err(io::Error::last_os_error())
}

/// Takes a shared lock on a whole file for as long as the file stays open; waits for who holds an
/// exclusive one.
pub fn lock_shared(file: &File) -> io::Result<()> {
    // SAFETY: flock takes a descriptor, which is open as long as `file` lives.
    done(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH) })
}

/// SIGTERM and SIGINT as a descriptor that becomes readable when one arrives.
#[derive(Debug)]
pub struct Termination(OwnedFd);

impl Termination {
    /// Stops the two signals from ending the process, in this thread and in all that
    /// it starts from now on.
    pub fn new() -> Result<Self> {
        // SAFETY: an all-zero sigset_t is a valid argument of sigemptyset, which
        // initialises it; the other calls only read it.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(Error::io(
                "watch for",
                "signals",
                io::Error::last_os_error(),
            ));
        }
        // SAFETY: signalfd has just returned this descriptor to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsRawFd for Termination {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits until one of the descriptors can be read, or the time is up; says which can.
pub fn wait_readable<const N: usize>(fds: [RawFd; N], timeout: Duration) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length are those of the array.
    let n = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, millis) };
    if n < 0 {
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
        return Ok([false; N]);
    }
    Ok(polled.map(|p| p.revents != 0))
}

/// The listening sockets that systemd passed to this process, with their names.
/// Empty when it passed none. The protocol is that of sd_listen_fds_with_names(3).
pub fn listen_fds() -> Result<Vec<(String, UnixListener)>> {
    let var = |name| std::env::var(name).unwrap_or_default();
    if var("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Ok(Vec::new());
    }
    let count: RawFd = var("LISTEN_FDS").parse().map_err(|_| {
        Error::input(format!(
            "LISTEN_FDS is {:?}, which is not a number",
            var("LISTEN_FDS")
        ))
    })?;
    let names = var("LISTEN_FDNAMES");
    let mut names = names.split(':');
    (LISTEN_FDS_START..LISTEN_FDS_START.saturating_add(count))
        .map(|fd| {
            // SAFETY: fcntl only looks at the descriptor, and fails when it is not open.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                let e = io::Error::last_os_error();
                return Err(Error::io("take from systemd", format!("socket {fd}"), e));
            }
            // SAFETY: LISTEN_PID names this process, so the descriptor was passed for it
            // to own, and this function is called once, at the start.
            let listener = unsafe { UnixListener::from_raw_fd(fd) };
            Ok((names.next().unwrap_or_default().to_string(), listener))
        })
        .collect()
}

/// The latest time that every file system can keep, in seconds since 1970.
pub const LATEST: i64 = i32::MAX as i64;

/// Sets a file's mtime, which its owner may do whatever the file's mode is, and its atime to `LATEST`: a read with `relatime`
/// writes an access time unless that is later than the ctime (`relatime_need_update` in fs/inode.c), and every new
/// link moves the ctime. A symbolic link is not followed.
pub fn set_times(path: &Path, mtime: SystemTime) -> io::Result<()> {
    let since = mtime.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let times = [
        libc::timespec {
            tv_sec: LATEST as libc::time_t,
            tv_nsec: 0,
        },
        libc::timespec {
            tv_sec: since.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(since.subsec_nanos()),
        },
    ];
    utimensat(path, &times)
}

/// An mtime as the file system has it, which may lie before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtime {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// What comes on top of them.
    pub nanoseconds: u32,
}

/// Sets a file's mtime alone. A symbolic link is not followed.
pub fn set_mtime(path: &Path, mtime: Mtime) -> io::Result<()> {
    let times = [
        libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
        libc::timespec {
            tv_sec: mtime.seconds as libc::time_t,
            tv_nsec: libc::c_long::from(mtime.nanoseconds),
        },
    ];
    utimensat(path, &times)
}

fn utimensat(path: &Path, times: &[libc::timespec; 2]) -> io::Result<()> {
    with_c_path(path, |path| {
        // SAFETY: `path` is a C string and `times` has the two elements that the call reads.
        done(unsafe {
            libc::utimensat(
                libc::AT_FDCWD,
                path.as_ptr(),
                times.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
            )
        })
    })
}

/// What a file's inode says of it.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Its length in bytes.
    pub size: u64,
    /// Its type and its permission bits.
    pub mode: u32,
    /// Who owns it.
    pub uid: u32,
    /// When it was last modified.
    pub modified: SystemTime,
}

impl From<&Metadata> for Status {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            mode: metadata.mode(),
            uid: metadata.uid(),
            modified: modified(metadata),
        }
    }
}

/// When a file was last modified.
pub fn modified(metadata: &Metadata) -> SystemTime {
    // Linux always knows it.
    metadata.modified().unwrap_or(UNIX_EPOCH)
}

/// What `fstatat` says of a name in an open directory; no link is followed.
pub fn status_at(dir: &impl AsRawFd, name: &str) -> io::Result<Status> {
    with_c_path(Path::new(name), |name| {
        // SAFETY: an all-zero stat is a valid value.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        let (dir, no_follow) = (dir.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the descriptor is open as long as `dir` lives, `name` is a C string and `stat` is writable.
        done(unsafe { libc::fstatat(dir, name.as_ptr(), &raw mut stat, no_follow) })?;
        Ok(Status {
            size: stat.st_size as u64,
            mode: stat.st_mode,
            uid: stat.st_uid,
            modified: time_of(stat.st_mtime, stat.st_mtime_nsec),
        })
    })
}

/// Makes a name in an open directory another name of the file `original`.
pub fn link_at(original: &Path, dir: &impl AsRawFd, name: &str) -> io::Result<()> {
    with_c_path(original, |original| {
        with_c_path(Path::new(name), |name| {
            // SAFETY: both names are C strings, and the descriptor is open as long as `dir` lives.
            done(unsafe {
                libc::linkat(
                    libc::AT_FDCWD,
                    original.as_ptr(),
                    dir.as_raw_fd(),
                    name.as_ptr(),
                    0,
                )
            })
        })
    })
}

/// A time of the kernel's; one before 1970 is 1970.
fn time_of(seconds: libc::time_t, nanoseconds: libc::c_long) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// What a call that gives 0 or -1 has to say.
fn done(given: libc::c_int) -> io::Result<()> {
    if given == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Hands a path over as C wants it; a usual one does not go to the heap for that.
fn with_c_path<T>(path: &Path, act: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
    let bytes = path.as_os_str().as_bytes();
    let mut buffer = [0; 256];
    match buffer.get_mut(..=bytes.len()) {
        Some(with_nul) => {
            with_nul[..bytes.len()].copy_from_slice(bytes);
            let path = CStr::from_bytes_with_nul(with_nul)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            act(path)
        }
        None => act(&CString::new(bytes)?),
    }
}

/// Writes all that is in memory of a file system to disk.
pub fn syncfs(on: &File) -> io::Result<()> {
    // SAFETY: syncfs takes a descriptor, which is open as long as `on` lives.
    done(unsafe { libc::syncfs(on.as_raw_fd()) })
}

/// Lets go of what is in memory of a file and on disk as well, or should be, so that whoever reads it next reads the disk.
pub fn forget_pages(file: &File) {
    // SAFETY: takes a descriptor, which is open as long as `file` lives, and numbers. Where it fails nothing has changed.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    }
}

/// The size of the file system that a path is on.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// All of it, in bytes.
    pub total: u64,
    /// What a user without privileges can still write, in bytes.
    pub free: u64,
    /// All files that there can be; 0 where nothing limits them.
    pub files: u64,
    /// Files that can still be made.
    pub free_files: u64,
}

/// Asks a file system how full it is.
pub fn space(path: &Path) -> Result<Space> {
    // SAFETY: an all-zero statvfs is a valid value.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    with_c_path(path, |path| {
        // SAFETY: `path` is a C string and `stat` is writable.
        done(unsafe { libc::statvfs(path.as_ptr(), &mut stat) })
    })
    .map_err(|e| Error::io("ask for the free space of", path, e))?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: stat.f_files,
        free_files: stat.f_favail,
    })
}

/// Asks for the processor in the shortest turns there are, 0.1 ms: a thread that asks for less at a time gets it sooner
/// (Linux 6.12 and later: for ordinary threads `sched_runtime` of sched_setattr(2) is the length of a turn). Its share stays the
/// same, and so do nice value and policy.
pub fn request_short_slice() {
    const TURN_NS: u64 = 100_000;
    // SAFETY: all-zero is a valid sched_attr. Both calls are given its true size, and 0 stands for the calling thread.
    // Where they fail the thread goes on as it was.
    unsafe {
        let mut attr: libc::sched_attr = std::mem::zeroed();
        let size = size_of_val(&attr);
        let got = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0);
        if got == 0 && attr.sched_policy == libc::SCHED_OTHER as u32 {
            attr.sched_runtime = TURN_NS;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0);
        }
    }
}

/// Lets all threads allocate from one heap. The GNU library gives each thread one of its own, which takes six system calls
/// and page faults to set up: too much for a process of milliseconds whose threads allocate little. Must come before the
/// first thread. Other C libraries have one heap anyway.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers, and no other thread allocates yet. Where it fails nothing has changed.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Lets this thread have the processor and the disk only when nobody else wants them.
pub fn lower_priority() {
    /// ioprio_set(2): this thread, and the class `idle`.
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const IOPRIO_IDLE: libc::c_long = 3 << 13;
    // SAFETY: both calls take numbers only, and 0 stands for the calling thread. Where they
    // fail the thread goes on as it was.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0 as libc::c_long,
            IOPRIO_IDLE,
        );
    }
}

/// Gives up being root for another user, for good.
pub fn drop_privileges(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the calls take numbers, and a list of no groups.
    let failed = unsafe {
        libc::setgroups(0, std::ptr::null()) != 0
            || libc::setresgid(gid, gid, gid) != 0
            || libc::setresuid(uid, uid, uid) != 0
    };
    if failed {
        let e = io::Error::last_os_error();
        return Err(Error::io("act as", format!("user {uid}"), e));
    }
    Ok(())
}

/// Closes every descriptor but stdin, stdout and stderr, as far as the kernel can
/// (close_range(2)). Only for the beginning of a program, when it owns no other.
pub fn close_inherited() {
    // SAFETY: the call takes numbers. No File or socket of ours is open yet, so none loses
    // its descriptor.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
}

/// A process as a descriptor that becomes readable when it ends (pidfd_open(2)).
pub fn process(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: pidfd_open has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a process SIGTERM or, to end it at once, SIGKILL. One that has ended already is fine.
pub fn end(process: &OwnedFd, at_once: bool) -> io::Result<()> {
    let signal = if at_once {
        libc::SIGKILL
    } else {
        libc::SIGTERM
    };
    // SAFETY: pidfd_send_signal(2) takes a descriptor, which is open as long as `process` lives, numbers, and no siginfo_t.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match io::Error::last_os_error() {
        e if done != 0 && e.raw_os_error() != Some(libc::ESRCH) => Err(e),
        _ => Ok(()),
    }
}

/// stdout without std's lock and line buffer. It is closed when the file is dropped.
pub fn stdout() -> File {
    // SAFETY: descriptor 1 is open in every process that `go` or Nix starts, and nothing
    // else here writes to it.
    unsafe { File::from_raw_fd(libc::STDOUT_FILENO) }
}

/// Connects to a listening socket. One whose owner accepts nothing any more makes others wait
/// once its queue is full: for `limit` at most, which std cannot say.
pub fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    // SAFETY: an all-zero sockaddr_un is a valid one, of no family.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is too long for a socket",
        ));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socket has just returned this descriptor to us alone.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // The limit of a write is that of a connect too (socket(7), SO_SNDTIMEO).
    stream.set_write_timeout(Some(limit))?;
    loop {
        // SAFETY: the pointer and the length are those of `address`.
        let done = unsafe {
            libc::connect(
                stream.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if done == 0 {
            return Ok(stream);
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => {}
            e => return Err(e),
        }
    }
}

/// New files and directories get the modes that are asked for, whatever the umask of who
/// started this process.
pub fn set_usual_umask() {
    // SAFETY: umask takes no pointers and cannot fail.
    unsafe { libc::umask(0o022) };
}

/// The user this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// The user at the other end of a connection, as this host sees it (SO_PEERCRED, unix(7)).
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `peer`, which the call fills in.
    let done = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &mut length,
        )
    };
    if done == 0 {
        Ok(peer.uid)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the connections that a listener accepts notice when their peer has vanished without a
/// word, within hours (tcp(7)).
pub fn keep_alive(listener: &TcpListener) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of `on`.
    done(unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_KEEPALIVE,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })
}

/// Allows as many open descriptors as the system lets this process have, and says how many.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take a pointer to `limit`, which lives throughout. When one fails
    // the limit stays what it is, and connections past it are refused.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
    limit.rlim_cur
}

/// The terminal while a command redraws it: keys come one by one and are not shown, the cursor is hidden, and the screen
/// is an alternate one. All of that is undone when this is dropped.
#[derive(Debug)]
pub struct Screen {
    /// How stdin was; `None` when it is no terminal.
    before: Option<libc::termios>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> Result<Self> {
        // SAFETY: all-zero is a valid termios, and tcgetattr fills it in.
        let before = unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            (libc::tcgetattr(libc::STDIN_FILENO, &raw mut settings) == 0).then_some(settings)
        };
        if let Some(mut settings) = before {
            settings.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
            // SAFETY: a descriptor and a termios that tcgetattr has filled in.
            if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &raw const settings) }
                != 0
            {
                let e = io::Error::last_os_error();
                return Err(Error::io("set up", "the terminal", e));
            }
        }
        let screen = Self { before };
        screen.write("\x1b[?1049h\x1b[?25l");
        Ok(screen)
    }

    /// The window's columns and rows.
    pub fn size(&self) -> (usize, usize) {
        window_size().unwrap_or((80, 24))
    }

    /// Waits for one of these keys for at most `limit`; says whether it came.
    ///
    /// # Errors
    /// When the terminal fails.
    pub fn wait_for_key(&self, limit: Duration, keys: &[u8]) -> Result<bool> {
        if self.before.is_none() {
            std::thread::sleep(limit);
            return Ok(false);
        }
        let failed = |e| Error::io("read", "the terminal", e);
        let [ready] = wait_readable([libc::STDIN_FILENO], limit).map_err(failed)?;
        if !ready {
            return Ok(false);
        }
        let mut typed = [0; 64];
        let n = io::Read::read(&mut io::stdin().lock(), &mut typed).map_err(failed)?;
        // A terminal that is gone has no more keys.
        Ok(n == 0 || typed[..n].iter().any(|key| keys.contains(key)))
    }

    fn write(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        // A terminal that is gone needs nothing any more.
        let _ = io::Write::write_all(&mut stdout, text.as_bytes());
        let _ = io::Write::flush(&mut stdout);
    }
}

/// The columns and rows of the terminal that stdout is.
fn window_size() -> Option<(usize, usize)> {
    // SAFETY: all-zero is a valid winsize, and the call fills it in or leaves it.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size);
        size
    };
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// How wide the terminal is that stdout is.
pub fn terminal_columns() -> Option<usize> {
    window_size().map(|(columns, _)| columns)
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            // SAFETY: a descriptor and a termios that tcgetattr has filled in.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, before) };
        }
    }
}
