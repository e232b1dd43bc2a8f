//! The client library cannot ask for a replication connection, but it works over any stream: this
//! one adds the parameter to the message that opens a session.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use postgres_openssl::MakeTlsConnector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, NoTls};

use crate::Failure;
use crate::connect::drive;
use crate::params::{Place, Target};

/// What a WAL receiver sends. pg_hba.conf then looks for its database `replication`.
const PARAMETER: &[u8] = b"replication\0true\0";
/// PostgreSQL refuses a longer message before anybody is authenticated.
const MAX_STARTUP: usize = 10_000;

/// Opens a physical replication connection, encrypted if there is a connector.
pub(crate) async fn open(
    mut config: Config,
    target: &Target,
    address: Option<IpAddr>,
    tls: Option<&MakeTlsConnector>,
) -> Result<(Client, JoinHandle<()>), Failure> {
    let (name, address) = match (&target.place, address) {
        (Place::Socket(dir), _) => {
            let path = dir.join(format!(".s.PGSQL.{}", target.port));
            let stream = UnixStream::connect(path).await.map_err(Failure::Network)?;
            return plain(config, stream).await;
        }
        (Place::Tcp { host, .. }, Some(address)) => (host.clone(), address),
        (Place::Tcp { .. }, None) => {
            return Err(Failure::Network(io::ErrorKind::AddrNotAvailable.into()));
        }
    };
    let stream = TcpStream::connect((address, target.port)).await;
    let stream = stream.map_err(Failure::Network)?;
    stream.set_nodelay(true).map_err(Failure::Network)?;
    let Some(connector) = tls else {
        return plain(config, stream).await;
    };
    let name = name.unwrap_or_else(|| address.to_string());
    let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector.clone(), &name);
    let tls = tls.map_err(|e| Failure::Tls(e.to_string()))?;
    // Not `Prefer`: without encryption the parameter would be missing. A server that has none
    // fails this attempt, and another is made where that is allowed.
    config.ssl_mode(SslMode::Require);
    let (client, connection) = config.connect_raw(stream, Replicating(tls)).await?;
    Ok((client, drive(connection)))
}

async fn plain<S>(mut config: Config, stream: S) -> Result<(Client, JoinHandle<()>), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    config.ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(StartupStream::new(stream), NoTls).await?;
    Ok((client, drive(connection)))
}

/// A connector whose encrypted streams ask for replication.
struct Replicating<T>(T);

impl<S, T> TlsConnect<S> for Replicating<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = StartupStream<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let handshake = self.0.connect(stream);
        Box::pin(async move { handshake.await.map(StartupStream::new) })
    }
}

/// Passes everything through, except that the first message written gets one more parameter.
struct StartupStream<S> {
    inner: S,
    first: First,
}

enum First {
    /// What has been written of it.
    Collecting(Vec<u8>),
    /// What is to be sent, and how much of that is.
    Sending(Vec<u8>, usize),
    Sent,
}

impl<S> StartupStream<S> {
    fn new(inner: S) -> Self {
        Self {
            inner,
            first: First::Collecting(Vec::new()),
        }
    }
}

impl<S: AsyncWrite + Unpin> StartupStream<S> {
    /// Sends what is left of the first message, if it is complete.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let First::Sending(message, sent) = &mut self.first {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &message[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => *sent += n,
            }
            if *sent == message.len() {
                self.first = First::Sent;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The startup message with our parameter, once all of it is there: its length in four bytes,
/// itself included, the protocol's version in four, pairs of strings, and a zero byte.
fn with_parameter(message: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some((head, _)) = message.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if !(9..MAX_STARTUP - PARAMETER.len()).contains(&length) || message.len() > length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no startup message"));
    }
    if message.len() < length {
        return Ok(None);
    }
    // Below MAX_STARTUP, so it fits.
    let longer = (length + PARAMETER.len()) as u32;
    let body = &message[4..length - 1];
    Ok(Some([&longer.to_be_bytes(), body, PARAMETER, b"\0"].concat()))
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StartupStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if let First::Collecting(message) = &mut self.first {
            // The client writes nothing after it before the server has answered.
            message.extend_from_slice(data);
            if let Some(longer) = with_parameter(message)? {
                self.first = First::Sending(longer, 0);
            }
            return Poll::Ready(Ok(data.len()));
        }
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StartupStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: TlsStream + Unpin> TlsStream for StartupStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_added_once_the_message_is_whole() {
        let message = b"\0\0\0\x10\0\x03\0\0user\0a\0\0";
        for end in 0..message.len() {
            assert_eq!(with_parameter(&message[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(
            with_parameter(message).unwrap().unwrap(),
            b"\0\0\0\x21\0\x03\0\0user\0a\0replication\0true\0\0"
        );
    }

    #[test]
    fn what_is_no_startup_message_is_not_sent() {
        for wrong in [
            &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
            b"\x16\x03\x01\x02\0\x01",
            b"\0\0\0\x09\0\x03\0\0\0x",
        ] {
            assert!(with_parameter(wrong).is_err(), "{wrong:?}");
        }
    }
}
