//! A connection with a clock.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage, SimpleQueryRow};

use crate::Failure;
use crate::event_loop::EventLoop;

/// How long a server may take over one question. It is told to give up by then
/// (`statement_timeout`); a few seconds later we stop waiting for it.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(3);
/// Saying goodbye is a courtesy.
const GOODBYE: Duration = Duration::from_millis(200);

/// A value for a `$n` in a statement, with its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

pub(crate) struct Session {
    /// Always there until the session is dropped.
    open: Option<Open>,
    /// How long to wait for one answer.
    limit: Duration,
}

struct Open {
    event_loop: EventLoop,
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    pub(crate) fn new(event_loop: EventLoop, client: Client, driver: JoinHandle<()>) -> Self {
        Self {
            open: Some(Open {
                event_loop,
                client,
                driver,
            }),
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
        T: Send,
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a,
    {
        let Some(open) = &self.open else {
            return Err(Failure::Closed);
        };
        let (limit, answer) = (self.limit, ask(&open.client));
        // The timer must be made inside the runtime.
        let answer = open.event_loop.wait(async move { timeout(limit, answer).await });
        match answer.map_err(Failure::Network)? {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => {
                // Whatever still comes would be taken for the answer to the next question.
                open.driver.abort();
                Err(Failure::Timeout(limit))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(Open {
            event_loop,
            client,
            driver,
        }) = self.open.take()
        else {
            return;
        };
        // Without its client the driver sends Terminate and ends, so the server logs no lost connection.
        drop(client);
        event_loop.finish(async { timeout(GOODBYE, driver).await });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;
    use std::time::Instant;

    use tokio_postgres::NoTls;

    use super::*;

    /// Lets a client in, then says nothing more until it goes away, and gives what it said.
    fn mute_server() -> (u16, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut startup = [0; 1024];
            assert!(peer.read(&mut startup).unwrap() > 8);
            // AuthenticationOk, ReadyForQuery.
            peer.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
            let mut said = Vec::new();
            peer.read_to_end(&mut said).unwrap();
            said
        });
        (port, server)
    }

    fn session(port: u16) -> Session {
        let event_loop = EventLoop::new().unwrap();
        let config = format!("host=127.0.0.1 port={port} user=u");
        let connected = event_loop.wait(async {
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
            (client, tokio::spawn(async { connection.await.unwrap_or(()) }))
        });
        let (client, driver) = connected.unwrap();
        Session::new(event_loop, client, driver)
    }

    #[test]
    fn a_server_that_stops_answering_holds_us_no_longer_than_the_limit() {
        let mut session = session(mute_server().0);
        session.limit = Duration::from_millis(200);
        let begin = Instant::now();
        assert!(matches!(session.batch("SELECT 1"), Err(Failure::Timeout(_))));
        assert!(matches!(session.batch("SELECT 1"), Err(Failure::Closed)));
        drop(session);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }

    #[test]
    fn the_server_is_told_that_we_go_also_from_inside_a_runtime_and_at_a_threads_end() {
        use tokio::runtime::{Builder, Handle};
        thread_local!(static KEPT: RefCell<Option<Session>> = const { RefCell::new(None) });

        type End = fn(Session);
        let ends: [End; 4] = [
            drop,
            |session| {
                let runtime = Builder::new_current_thread().build().unwrap();
                runtime.block_on(async { drop(session) });
            },
            |session| {
                let runtime = Builder::new_multi_thread().build().unwrap();
                runtime.block_on(async { tokio::spawn(async { drop(session) }).await.unwrap() });
            },
            |session| {
                let keep = || {
                    KEPT.set(Some(session));
                    // Used later than ours, tokio's data is gone when ours is dropped.
                    Handle::try_current().unwrap_err();
                };
                std::thread::spawn(keep).join().unwrap();
            },
        ];
        for end in ends {
            let (port, server) = mute_server();
            end(session(port));
            // Terminate.
            assert_eq!(server.join().unwrap(), b"X\0\0\0\x04");
        }
    }
}
