//! A slow, breakable line to the lab's sshd.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use repmgr_lab::Sshd;

/// Forwards a loopback port to sshd. Lives until the process ends.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: u16,
    /// Bytes a second towards the client, over all connections.
    rate: u64,
    forwarded: AtomicU64,
    /// The connection that brings `forwarded` past this is cut.
    cut_after: AtomicU64,
    cuts: AtomicU32,
}

impl Relay {
    /// Starts one and makes `alias` a host in the lab's ssh configuration that leads through it.
    ///
    /// # Errors
    /// If there is no port, or the configuration cannot be written.
    pub fn start(sshd: &Sshd, alias: &str, bytes_a_second: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port().to_string();
        let known_as = format!("[127.0.0.1]:{}", sshd.port());
        sshd.add_host(alias, &[("Port", &port), ("HostKeyAlias", &known_as)])?;
        let relay = Self(Arc::new(Shared {
            target: sshd.port(),
            rate: bytes_a_second,
            forwarded: AtomicU64::new(0),
            cut_after: AtomicU64::new(u64::MAX),
            cuts: AtomicU32::new(0),
        }));
        let serving = relay.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serving.serve(client);
            }
        });
        Ok(relay)
    }

    /// Cuts the connection that brings the bytes towards the client to `bytes` more than now.
    pub fn cut_after(&self, bytes: u64) {
        self.0.cut_after.store(self.forwarded() + bytes, Ordering::SeqCst);
    }

    /// Bytes that went towards the client.
    pub fn forwarded(&self) -> u64 {
        self.0.forwarded.load(Ordering::SeqCst)
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u32 {
        self.0.cuts.load(Ordering::SeqCst)
    }

    fn serve(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.0.target)) else {
            // Dropping the client's side says what sshd would: nobody is here.
            return;
        };
        let (Ok(client_read), Ok(server_read)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        let this = self.clone();
        thread::spawn(move || this.downstream(server_read, client));
        thread::spawn(move || {
            let (mut from, mut to) = (client_read, server);
            // Either end may go at any time; that is what this is for.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }

    fn downstream(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = server.read(&mut buffer) {
            let total = self.0.forwarded.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
            if total > self.0.cut_after.load(Ordering::SeqCst) {
                self.0.cut_after.store(u64::MAX, Ordering::SeqCst);
                self.0.cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if client.write_all(&buffer[..read]).is_err() {
                break;
            }
            thread::sleep(Duration::from_secs_f64(read as f64 / self.0.rate as f64));
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}
