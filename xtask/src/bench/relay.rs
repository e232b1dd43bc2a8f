//! A long way to the lab's sshd: a loopback port on which every byte arrives later.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use repmgr_lab::Sshd;

const CHUNK: usize = 64 << 10;
/// Chunks under way in one direction: more than any window of SSH, so that these decide, as they do on a
/// fast long line whose TCP is tuned.
const UNDER_WAY: usize = 2048;

/// Makes `alias` a host of the lab's ssh configuration that is `round_trip` away. Lives until we end.
pub(crate) fn start(sshd: &Sshd, alias: &str, round_trip: Duration) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let known_as = format!("[127.0.0.1]:{}", sshd.port());
    sshd.add_host(alias, &[("Port", &port), ("HostKeyAlias", &known_as)])?;
    let (target, one_way) = (sshd.port(), round_trip / 2);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Whoever cannot be served sees a closed connection, and the run fails.
            let _ = serve(client, target, one_way);
        }
    });
    Ok(())
}

fn serve(client: TcpStream, target: u16, one_way: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    forward(client.try_clone()?, server.try_clone()?, one_way);
    forward(server, client, one_way);
    Ok(())
}

fn forward(mut from: TcpStream, to: TcpStream, one_way: Duration) {
    let (sender, receiver) = mpsc::sync_channel(UNDER_WAY);
    thread::spawn(move || deliver(to, &receiver));
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender
                .send((Instant::now() + one_way, buffer[..read].to_vec()))
                .is_err()
            {
                break;
            }
        }
    });
}

fn deliver(mut to: TcpStream, chunks: &Receiver<(Instant, Vec<u8>)>) {
    for (due, bytes) in chunks {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // Either end may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_whole_and_late_and_the_end_too() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap().port();
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
        serve(front.accept().unwrap().0, target, Duration::from_millis(30)).unwrap();
        let mut server = listener.accept().unwrap().0;
        let sent = Instant::now();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        assert!(received == bytes && sent.elapsed() >= Duration::from_millis(30));
    }
}
