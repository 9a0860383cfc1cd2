//! From the listener to a connection's task, and that task's end.

use std::panic::AssertUnwindSafe;
use std::rc::{Rc, Weak};

use futures_util::FutureExt;
use reactor::{Detached, Listener, Port, Socket};

use super::connection::Connection;
use super::registry::ConnectionState;
use super::{Shard, listener};

impl Shard {
    /// Starts to accept connections.
    pub(super) fn accept(self: &Rc<Shard>, port: Port) -> std::io::Result<Weak<Listener>> {
        let listener = Rc::new(Listener::new(&self.reactor, port)?);
        let weak = Rc::downgrade(&listener);
        self.is_accepting.set(true);
        self.reactor.spawn(Rc::clone(self).accept_connections(listener));
        Ok(weak)
    }

    async fn accept_connections(self: Rc<Shard>, listener: Rc<Listener>) {
        loop {
            match listener.accept().await {
                Ok(accepted) => self.admit(accepted),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECANCELED) => break,
                    // The client has gone again before it was accepted, or a signal came.
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => {}
                    _ => {
                        self.count_accept_error(&error);
                        self.reactor.sleep(listener::ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // What the kernel has completed already: a closed listener would reset it.
        while let Some(accepted) = listener.accept_completed().await {
            self.admit(accepted);
        }
        self.is_accepting.set(false);
    }

    fn count_accept_error(&self, error: &std::io::Error) {
        if self.metrics.accept_errors.get().is_multiple_of(1000) {
            tracing::error!(%error, "connections cannot be accepted; raise `ulimit -n` or lower MAX_CONNECTIONS");
        }
        self.metrics.accept_errors.add(1);
    }

    /// Serves this connection.
    fn admit(self: &Rc<Shard>, accepted: Detached) {
        self.metrics.connections_accepted.add(1);
        let Some(place) = self.places.take() else {
            self.metrics.connections_refused.add(1);
            self.refuse(accepted);
            return;
        };
        let socket = match Socket::new(accepted) {
            Ok(socket) => socket,
            Err(error) => return self.count_accept_error(&error),
        };
        let shard = Rc::clone(self);
        let state = Rc::new(ConnectionState::new(socket));
        let registration = shard.registry.enter(Rc::clone(&state));
        let mut connection = Connection::new(Rc::clone(&shard), Rc::clone(&state));
        // Every open connection has such a task, so nothing is moved within it: a future keeps room for what has moved.
        self.reactor.spawn(async move {
            shard.metrics.connections_open.add(1);
            let has_panicked = {
                let serving = std::pin::pin!(connection.serve());
                AssertUnwindSafe(serving).catch_unwind().await.is_err()
            };
            if has_panicked {
                shard.metrics.panics.add(1);
                tracing::error!("a connection panicked and was closed");
            }
            shard.closings.take(1, &shard.reactor).await;
            shard.metrics.connections_open.subtract(1);
            drop(registration);
            shard.has_closed.set(true);
            // A write that waits for the log keeps the state.
            state.socket.close();
            drop(place);
        });
    }
}
