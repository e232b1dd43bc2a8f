//! A connection with a clock: the client library's event loop, run only while we wait for it.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage, SimpleQueryRow};

use crate::Failure;

/// How long a server may take over one question. It is told to give up by then
/// (`statement_timeout`); a few seconds later we stop waiting for it.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(3);
/// Saying goodbye is a courtesy.
const GOODBYE: Duration = Duration::from_millis(200);

/// A value for a `$n` in a statement, with its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

pub(crate) struct Session {
    /// Both are always there until the session is dropped.
    runtime: Option<Runtime>,
    client: Option<Client>,
    driver: JoinHandle<()>,
    /// How long to wait for one answer.
    limit: Duration,
}

impl Session {
    pub(crate) fn new(runtime: Runtime, client: Client, driver: JoinHandle<()>) -> Self {
        Self {
            runtime: Some(runtime),
            client: Some(client),
            driver,
            limit: QUERY_TIMEOUT + GRACE,
        }
    }

    /// Runs one statement.
    pub(crate) fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        self.wait(|client| client.query_typed(sql, params))
    }

    /// Runs statements that give no rows.
    pub(crate) fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.wait(|client| client.batch_execute(sql))
    }

    /// Runs one command of a protocol without parameters and types, and gives its rows.
    pub(crate) fn command(&self, command: &str) -> Result<Vec<SimpleQueryRow>, Failure> {
        let messages = self.wait(|client| client.simple_query(command))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }

    fn wait<'a, T, F>(&'a self, ask: impl FnOnce(&'a Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + 'a,
    {
        let (Some(runtime), Some(client)) = (&self.runtime, &self.client) else {
            return Err(Failure::Closed);
        };
        // The timer must be made inside the runtime.
        match runtime.block_on(async { timeout(self.limit, ask(client)).await }) {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => {
                // Whatever still comes would be taken for the answer to the next question.
                self.driver.abort();
                Err(Failure::Timeout(self.limit))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without its client the driver sends Terminate and ends, so the server logs no lost connection.
        self.client = None;
        if let Some(runtime) = self.runtime.take() {
            let driver = &mut self.driver;
            let _ = runtime.block_on(async { timeout(GOODBYE, driver).await });
            // A name look-up that hangs must not hold us.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use tokio_postgres::NoTls;

    use super::*;

    /// Lets a client in, then says nothing more until it goes away.
    fn mute_server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut startup = [0; 1024];
            assert!(peer.read(&mut startup).unwrap() > 8);
            // AuthenticationOk, ReadyForQuery.
            peer.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
            while peer.read(&mut startup).is_ok_and(|n| n > 0) {}
        });
        port
    }

    #[test]
    fn a_server_that_stops_answering_holds_us_no_longer_than_the_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let config = format!("host=127.0.0.1 port={} user=u", mute_server());
        let (client, driver) = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
            (client, tokio::spawn(async { connection.await.unwrap_or(()) }))
        });
        let mut session = Session::new(runtime, client, driver);
        session.limit = Duration::from_millis(200);
        let begin = Instant::now();
        assert!(matches!(session.batch("SELECT 1"), Err(Failure::Timeout(_))));
        assert!(matches!(session.batch("SELECT 1"), Err(Failure::Closed)));
        drop(session);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}
