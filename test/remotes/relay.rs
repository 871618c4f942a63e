//! A line that takes its time: passes bytes on in both directions, each piece a fixed time after it came, and does not
//! limit how many. A connection takes a round trip more to be made, as it would. For kernels whose `tc` has no netem.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Pieces on their way in one direction of one connection, each of up to 64 KiB: far more than a line holds.
const ON_THE_WAY: usize = 4096;

/// Listens on `host` and says where; passes everything on to `target`, for ever.
pub fn run(host: &str, target: &str, delay: Duration) -> ! {
    let listener = TcpListener::bind((host, 0)).unwrap();
    println!("{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let from = stream.unwrap();
        let Ok(to) = TcpStream::connect(target) else {
            continue;
        };
        let _ = from.set_nodelay(true);
        let _ = to.set_nodelay(true);
        pass(&from, &to, delay, 2 * delay);
        pass(&to, &from, delay, Duration::ZERO);
    }
    unreachable!("a listener goes on for ever")
}

/// Passes one direction on. What comes first comes later by the time that making the connection would have taken.
fn pass(from: &TcpStream, to: &TcpStream, delay: Duration, first: Duration) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (send, receive) = sync_channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let opened = Instant::now() + first;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let due = Instant::now().max(opened) + delay;
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
