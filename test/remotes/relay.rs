//! A line that takes its time: passes bytes on in both directions, each piece a fixed time after it came, and not more in
//! a second than it has room for, over all connections. A connection takes a round trip more to be made, as it would. For
//! kernels whose `tc` has no netem.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Pieces on their way in one direction of one connection, each of up to 16 KiB: far more than a line holds.
const ON_THE_WAY: usize = 4096;

/// What waits in front of a narrow line, as in a router that is set up well.
const BUFFER: Duration = Duration::from_millis(50);

/// One direction of the line.
struct Way {
    /// Bytes in a second; no limit when there is none.
    rate: Option<u64>,
    /// When all that was sent so far has gone.
    free: Mutex<Instant>,
}

impl Way {
    fn new(rate: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            rate,
            free: Mutex::new(Instant::now()),
        })
    }

    /// When these bytes have gone, once there is room for them to wait.
    fn send(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.rate else {
            return now;
        };
        let gone = {
            let mut free = self.free.lock().unwrap();
            *free = now.max(*free) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free
        };
        std::thread::sleep(gone.saturating_duration_since(now + BUFFER));
        gone
    }
}

/// Listens on `host` and says where; passes everything on to `target`, for ever.
pub fn run(host: &str, target: &str, delay: Duration, rate: Option<u64>) -> ! {
    let (up, down) = (Way::new(rate), Way::new(rate));
    let listener = TcpListener::bind((host, 0)).unwrap();
    println!("{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let from = stream.unwrap();
        let Ok(to) = TcpStream::connect(target) else {
            continue;
        };
        let _ = from.set_nodelay(true);
        let _ = to.set_nodelay(true);
        pass(&from, &to, &up, delay, 2 * delay);
        pass(&to, &from, &down, delay, Duration::ZERO);
    }
    unreachable!("a listener goes on for ever")
}

/// Passes one direction on. What comes first comes later by the time that making the connection would have taken.
fn pass(from: &TcpStream, to: &TcpStream, way: &Arc<Way>, delay: Duration, first: Duration) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (send, receive) = sync_channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let opened = Instant::now() + first;
    let way = Arc::clone(way);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let due = way.send(n).max(opened) + delay;
            if send.send((due, buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || deliver(&receive, &mut to));
}

fn deliver(receive: &Receiver<(Instant, Vec<u8>)>, to: &mut TcpStream) {
    for (due, bytes) in receive {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
