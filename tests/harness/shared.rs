//! Servers that several tests use at the same time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::server::{Driver, Server, Setup};

/// A server for each driver, started for the first test that asks and killed behind the last one that holds it.
pub struct Shared {
    epoll: Mutex<Weak<Server>>,
    io_uring: Mutex<Weak<Server>>,
    setup: fn() -> Setup,
}

impl Shared {
    /// A server of this setup.
    pub const fn new(setup: fn() -> Setup) -> Shared {
        Shared { epoll: Mutex::new(Weak::new()), io_uring: Mutex::new(Weak::new()), setup }
    }

    /// The server with this driver.
    pub fn with(&self, driver: Driver) -> Arc<Server> {
        let place = match driver {
            Driver::Epoll => &self.epoll,
            Driver::IoUring => &self.io_uring,
        };
        // A test that failed while it started the server leaves the place empty, not broken.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        place.upgrade().unwrap_or_else(|| {
            let server = Arc::new((self.setup)().driver(driver).start());
            *place = Arc::downgrade(&server);
            server
        })
    }
}

/// Makes two tests of each case, one for each driver; a case takes a reference to what `$subject` makes of the driver.
/// Where the machine has no io_uring, its tests say so and pass: there the program serves with epoll alone.
macro_rules! on_both_drivers {
    ($subject:expr => $($case:ident),+ $(,)?) => {
        mod epoll {
            $(#[test] fn $case() { super::$case(&$subject(crate::harness::server::Driver::Epoll)); })+
        }
        mod io_uring {
            $(#[test] fn $case() {
                let driver = crate::harness::server::Driver::IoUring;
                if driver.is_available() {
                    super::$case(&$subject(driver));
                } else {
                    eprintln!("not run: this machine has no io_uring");
                }
            })+
        }
    };
}

pub(crate) use on_both_drivers;
