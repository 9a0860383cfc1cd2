//! The processes: which threads there are, in which order they start, and how they stop without losing anything.
//!
//! ```text
//! run     = API and worker        serve = API        worker = worker
//!
//! API:    shard-0 … shard-N   producer   refresher   port (tells newcomers whose the port is)
//! worker: worker (one for each lane)
//!         worker-http, with WORKER_HTTP_PORT
//! Kafka:  worker-watch (API: are there workers, do they keep up)
//!         kafka-watch (the topic)   kafka-reports, kafka-upkeep (API: acknowledgements, another producer on need)
//!         keys (API: looks at the files with keys of tokens)
//! both:   main (waits for a signal, or for a thread that ended)
//! ```
//!
//! Stopping goes with the flow: shards first (they answer what they have read and wait for the log), then the producer
//! (its queue has ended with the shards), then refresher and worker. Nobody is waited for without end: shards get
//! `DRAIN_TIMEOUT_MS`, the threads behind them [`crate::limits::THREADS_STOP_TIMEOUT_MS`].

mod api;
mod error;
mod events;
mod farewell;
mod folder;
mod greeting;
mod port;
mod roles;
mod seams;
#[cfg(feature = "services")]
mod service_watch;
#[cfg(feature = "services")]
pub mod services;
mod worker_http;
#[cfg(feature = "services")]
mod worker_watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::api::{Api, ApiPlan};
pub use self::error::ProcessError;
#[cfg(not(feature = "services"))]
pub use self::error::services_missing;
use self::events::{Event, Events};
use self::farewell::{Farewell, leave_threads_behind};
pub use self::roles::Roles;
use self::seams::Seams;
use crate::config::{Config, Deployment};
use crate::data_dir::DataDir;
use crate::observe::status::Status;
use crate::producer::ShardAcknowledgements;
use crate::worker::WorkerMetrics;

/// Runs a process until a signal ends it.
///
/// # Errors
/// [`ProcessError`].
pub fn run(config: &Config, roles: Roles) -> Result<(), ProcessError> {
    crate::memory::keep_what_c_frees();
    raise_file_limit();
    let events = Events::listen()?;
    let status = Arc::new(Status::default());
    let stop = Arc::new(AtomicBool::new(false));
    let plan = match roles.api {
        true => match ApiPlan::prepare(config, &events)? {
            Some(plan) => Some(plan),
            // Told to stop while it waited for the port.
            None => return Ok(()),
        },
        false => None,
    };
    let seams = open_seams(config, roles, plan.as_ref(), &status, &events)?;
    let data_dir_lock = seams.data_dir_lock;

    let worker_metrics =
        roles.worker.then(|| Arc::new(WorkerMetrics::with_troubles(status.shared_troubles(), status.shared_topic())));
    if let (false, Some(address), Some(metrics)) = (roles.api, config.worker_listen, &worker_metrics) {
        greeting::print_worker(worker_http::start(address, Arc::clone(metrics), config.http.ready_details)?);
    }
    let mut lanes = Vec::with_capacity(seams.worker.len());
    if let Some(metrics) = &worker_metrics {
        for (number, lane) in seams.worker.into_iter().enumerate() {
            lanes.push(lane.start(number, Arc::clone(metrics), Arc::clone(&stop), events.reporter("worker"))?);
        }
    }
    let api = match (plan, seams.api) {
        (Some(plan), Some(parts)) => {
            let address = plan.address();
            let api = Api::start(config, plan, parts, &status, worker_metrics, &stop, &events)?;
            greeting::print(config, address, api.page_secret.as_ref());
            Some(api)
        }
        _ => None,
    };
    // Behind the greeting's first line, which programs rely on.
    #[cfg(feature = "services")]
    if let Deployment::Services(services) = &config.deployment {
        service_watch::start(config, services, &status.shared_troubles())?;
        if !roles.worker {
            worker_watch::start(&services::kafka_options(config, services), status.shared_troubles())?;
        }
    }

    let outcome = wait(&events, api.as_ref());
    status.start_draining();
    let mut farewell = match api {
        Some(api) => {
            tracing::info!("draining: answering what was read, waiting for the command log");
            api.drain(config.http.drain_timeout, &events)
        }
        None => Farewell::begin(&events),
    };
    stop.store(true, Ordering::Relaxed);
    for lane in lanes {
        farewell.join("worker", lane);
    }
    tracing::info!("stopped");
    if !farewell.is_complete() {
        if let Err(error) = &outcome {
            tracing::error!("{error}");
        }
        leave_threads_behind(i32::from(outcome.is_err()));
    }
    drop(data_dir_lock);
    outcome
}

/// Finds out whether the clients of the services take their settings, without asking any of them.
///
/// # Errors
/// [`ProcessError`]: one does not.
pub fn check_clients(config: &Config) -> Result<(), ProcessError> {
    #[cfg(feature = "services")]
    if let crate::config::Deployment::Services(services) = &config.deployment {
        services::check_clients(config, services)?;
    }
    let _ = config;
    Ok(())
}

/// Opens the seams for the deployment that the settings ask for.
///
/// # Errors
/// [`ProcessError`].
fn open_seams(
    config: &Config,
    roles: Roles,
    plan: Option<&ApiPlan>,
    status: &Arc<Status>,
    events: &Events,
) -> Result<Seams, ProcessError> {
    let inboxes = plan.map(ApiPlan::inbox_senders).unwrap_or_default();
    let acknowledgements = Arc::new(ShardAcknowledgements::new(inboxes, Arc::clone(status)));
    match &config.deployment {
        Deployment::Embedded { data_dir } => {
            let data_dir = DataDir::open_with_troubles(data_dir, status.shared_troubles())?;
            let address = plan.map(|plan| plan.address().to_string()).unwrap_or_default();
            folder::open(config, roles, &data_dir, &address, acknowledgements)
        }
        #[cfg(feature = "services")]
        Deployment::Services(services) => services::open(config, services, roles, acknowledgements, status, events),
        #[cfg(not(feature = "services"))]
        Deployment::Services(_) => {
            // Nothing in an embedded process has a thread to tell of here.
            let _ = events;
            Err(services_missing())
        }
    }
}

/// Waits for the end, and has keys read again meanwhile, when told to.
fn wait(events: &Events, api: Option<&Api>) -> Result<(), ProcessError> {
    loop {
        match events.next() {
            Event::Signal(signal) => {
                tracing::info!(signal, "told to stop");
                return Ok(());
            }
            Event::Ended(thread) => return Err(ProcessError::ThreadEnded(thread)),
            Event::Reload => match api {
                Some(api) => api.reload_keys(),
                None => tracing::info!("SIGHUP: a worker has no keys to read again"),
            },
        }
    }
}

/// Raises the limit of open files to what the system allows this process, as every connection is one.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a valid `rlimit` on the stack for the length of each call.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
