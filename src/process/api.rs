//! The API side of a process: listeners, shards, producer, refresher.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use reactor::Driver;

use super::error::ProcessError;
use super::events::{Event, Events};
use super::farewell::Farewell;
use super::port::{self, Admission, PortClaim};
use super::roles::STOP_POLL;
use super::seams::ApiSeams;
use crate::auth::OtherKeys;
use crate::config::{Config, Deployment, IoDriver, Secret};
use crate::contract::{Bounds, Contract};
use crate::encoder::EncoderThread;
use crate::http::cors::Cors;
use crate::keys::{KeyFiles, Keys, KeysThread};
use crate::limits::{LINGERING_MAX, LINGERING_MIN, LINGERING_ONE_TO_CONNECTIONS};
use crate::observe::metrics::{Metrics, ShardMetrics};
use crate::observe::status::Status;
use crate::page;
use crate::producer::Producer;
use crate::refresher::{Refresher, RefresherParts};
use crate::shard::connection_memory::ConnectionMemory;
use crate::shard::driver::{DriverChoice, choose_driver};
use crate::shard::followers::EventSettings;
use crate::shard::page::{Desk, Minter};
use crate::shard::places::Places;
use crate::shard::writes::room::ListRoom;
use crate::shard::writes::user_rates::UserRates;
use crate::shard::{Settings, ShardParts, listener, placement};
use crate::snapshot::OldLists;
use crate::wires::inbox::{Inbox, InboxSender, Message};
use crate::worker::WorkerMetrics;

/// How long the producer may go on waiting for acknowledgements after the last shard has left: every answer is given by
/// then, so this is for commands whose clients have already been told 503.
const PRODUCER_CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Pause between two attempts to learn which deployment this is.
#[cfg(feature = "services")]
const KEY_RETRY: Duration = Duration::from_secs(1);

/// What has to exist before the seams are opened: the address (the data folder's lock names it) and the inboxes (the log
/// acknowledges into them).
pub struct ApiPlan {
    driver: Driver,
    cpus: Vec<Option<CoreId>>,
    listeners: Vec<TcpListener>,
    inboxes: Vec<(InboxSender, Inbox)>,
    address: SocketAddr,
    has_neighbour: bool,
}

impl ApiPlan {
    /// Chooses driver and CPUs, binds the listeners, and waits until the port is this process's to take; `None` when it is
    /// told to stop meanwhile.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub fn prepare(config: &Config, events: &Events) -> Result<Option<ApiPlan>, ProcessError> {
        let driver = choose_driver(match config.http.io_driver {
            IoDriver::Auto => DriverChoice::Auto,
            IoDriver::IoUring => DriverChoice::IoUring,
            IoDriver::Epoll => DriverChoice::Epoll,
        })?;
        let cpus = placement::place_shards(Some(config.http.shards));
        let listen = config.http.listen;
        let bind_error = |reason: io::Error| match reason.kind() {
            io::ErrorKind::AddrInUse => match port::holder(listen) {
                Some(holder) => ProcessError::PortInUse { address: listen, holder },
                None => ProcessError::Bind { address: listen, reason },
            },
            _ => ProcessError::Bind { address: listen, reason },
        };
        let listeners = listener::bind(listen, cpus.len()).map_err(bind_error)?;
        let shares = matches!(config.deployment, Deployment::Services(_));
        let claim = PortClaim::lay(&listeners, shares, events.reporter("port"))?;
        learn_deployment(config, &claim)?;
        let has_neighbour = match claim.take(events)? {
            Admission::Stopped => return Ok(None),
            Admission::Alone => {
                listeners.iter().try_for_each(listener::listen).map_err(bind_error)?;
                false
            }
            Admission::Beside => {
                tracing::info!(
                    "another process of this deployment serves this port; this one joins it as soon as it has the list"
                );
                true
            }
        };
        let address = listeners[0].local_addr().map_err(bind_error)?;
        let inboxes = cpus.iter().map(|_| Inbox::new()).collect();
        Ok(Some(ApiPlan { driver, cpus, listeners, inboxes, address, has_neighbour }))
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sending ends of the shards' inboxes, in shard order.
    pub fn inbox_senders(&self) -> Vec<InboxSender> {
        self.inboxes.iter().map(|(sender, _)| sender.clone()).collect()
    }
}

/// The running API side.
pub struct Api {
    shards: Vec<(InboxSender, JoinHandle<std::io::Result<()>>)>,
    producer: Producer,
    refresher: Refresher,
    encoder: Option<EncoderThread>,
    keys: KeysThread,
    /// The key of the tokens, where the page makes tokens.
    pub page_secret: Option<Secret>,
    stop: Arc<AtomicBool>,
}

impl Api {
    /// Starts all threads, in the order of the data flow backwards: who receives is there before who sends.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub fn start(
        config: &Config,
        plan: ApiPlan,
        seams: ApiSeams,
        status: &Arc<Status>,
        worker_metrics: Option<Arc<WorkerMetrics>>,
        stop: &Arc<AtomicBool>,
        events: &Events,
    ) -> Result<Api, ProcessError> {
        let count = plan.cpus.len();
        let settings = shard_settings(config, count);
        let metrics = Arc::new(Metrics {
            shards: (0..count).map(|_| Arc::new(ShardMetrics::default())).collect(),
            producer: Arc::default(),
            refresher: Arc::default(),
            encoder: Arc::default(),
            old_lists: OldLists::new(config.http.old_lists_max_bytes, count),
            status: Arc::clone(status),
            worker: worker_metrics,
        });
        let (submissions, queue) = Producer::queue(config.write.queue_commands);
        let new_ids = seams.appender.new_ids();
        let producer = Producer::start(queue, seams.appender, PRODUCER_CLOSE_DEADLINE, Arc::clone(&metrics.producer))?;
        let inboxes = plan.inbox_senders();
        let plan_inboxes = inboxes.clone();
        let (wishes, encoder) = match config.http.compression {
            true => {
                let (wishes, encoder) = EncoderThread::start(
                    inboxes.clone(),
                    Arc::clone(&metrics.encoder),
                    Arc::clone(&metrics.old_lists),
                    Arc::clone(stop),
                )?;
                (Some(wishes), Some(encoder))
            }
            false => (None, None),
        };
        let room = ListRoom::new(config.write.todos_per_user_max, config.write.list_max_bytes).map(Arc::new);
        let refresher = Refresher::start(
            RefresherParts {
                feed: seams.feed,
                store: seams.store,
                inboxes,
                status: Arc::clone(status),
                metrics: Arc::clone(&metrics.refresher),
                verify_interval: config.cache_ttl,
                room: room.clone(),
                old_lists: Arc::clone(&metrics.old_lists),
                event_batch_max_bytes: usize::try_from(config.events.history_max_bytes).unwrap_or(usize::MAX) / 2,
            },
            Arc::clone(stop),
        )?;
        let folder = seams.key_folder.as_ref();
        let files = KeyFiles::new(config.auth.clone(), folder.map(|folder| folder.path().to_owned()));
        let footing = folder.map(|folder| Arc::clone(folder.footing()));
        let keys = Keys::read(&config.auth, files, Arc::clone(status), footing)?;
        let other_keys = Arc::new(OtherKeys::find(&config.auth, keys.files().secret()));
        tell_key(&other_keys);
        let user_rates = config.write.rate_per_user.map(UserRates::new).transpose()?.map(Arc::new);
        let places = Places::new(config.http.max_connections);
        let lingering =
            (config.http.max_connections / LINGERING_ONE_TO_CONNECTIONS).clamp(LINGERING_MIN, LINGERING_MAX);
        let lingering_places = Places::new(lingering);
        let follower_places = Places::new(config.events.followers_max);
        let memory = ConnectionMemory::new(config.http.connection_memory_bytes);
        let mut shards = Vec::with_capacity(count);
        for (number, ((cpu, listener), inbox)) in
            plan.cpus.into_iter().zip(plan.listeners).zip(plan.inboxes).enumerate()
        {
            let sender = inbox.0.clone();
            let parts = ShardParts {
                number,
                cpu,
                driver: plan.driver,
                port: listener.into(),
                listens_with_list: plan.has_neighbour,
                settings: settings.clone(),
                places: Arc::clone(&places),
                memory: Arc::clone(&memory),
                lingering_places: Arc::clone(&lingering_places),
                follower_places: Arc::clone(&follower_places),
                inbox,
                submissions: submissions.clone(),
                new_ids: Arc::clone(&new_ids),
                wishes: wishes.clone(),
                keys: keys.set(),
                key_asks: keys.asks(),
                other_keys: Arc::clone(&other_keys),
                auth: config.auth.clone(),
                user_rates: user_rates.clone(),
                room: room.clone(),
                metrics: Arc::clone(&metrics),
            };
            shards.push((sender, crate::shard::start(parts, events.reporter("shard"))?));
        }
        match plan.driver {
            Driver::IoUring => tracing::info!(shards = count, "serving with io_uring"),
            Driver::Epoll => tracing::info!(shards = count, "serving with epoll"),
        }
        let page_secret = keys.files().secret().filter(|_| settings.desk.minter.is_some()).cloned();
        let keys = keys.start(plan_inboxes, Arc::clone(stop), |thread| events.reporter(thread))?;
        Ok(Api { shards, producer, refresher, encoder, keys, page_secret, stop: Arc::clone(stop) })
    }

    /// Has the keys of tokens read again.
    pub fn reload_keys(&self) {
        self.keys.reload();
    }

    /// Lets the shards finish, within `deadline`; a second signal ends the wait. Then waits for the other threads, as long
    /// as the farewell that it returns allows.
    pub fn drain(self, deadline: Duration, events: &Events) -> Farewell<'_> {
        for (inbox, _) in &self.shards {
            inbox.send(Message::Drain);
        }
        let give_up_at = Instant::now() + deadline;
        while self.shards.iter().any(|(_, thread)| !thread.is_finished()) {
            let was_signalled = matches!(events.next_within(STOP_POLL), Some(Event::Signal(_)));
            if was_signalled || Instant::now() >= give_up_at {
                tracing::warn!("the drain deadline has passed, or a second signal came: closing what is left");
                self.shards.iter().for_each(|(inbox, _)| inbox.send(Message::Abandon));
                break;
            }
        }
        for (_, thread) in self.shards {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a shard failed"),
                Err(_) => tracing::error!("a shard thread panicked"),
            }
        }
        let mut farewell = Farewell::begin(events);
        farewell.join("producer", self.producer.into_thread());
        self.stop.store(true, Ordering::Relaxed);
        farewell.join("refresher", self.refresher.into_thread());
        if let Some(encoder) = self.encoder {
            farewell.join("encoder", encoder.into_thread());
        }
        farewell.join("keys", self.keys.into_thread());
        farewell
    }
}

/// Names the place of the key that tokens are checked with, and of those that it has put aside.
fn tell_key(keys: &OtherKeys) {
    let others: Vec<String> = keys.others().map(ToString::to_string).collect();
    match others.as_slice() {
        [] => tracing::info!("tokens are checked with the key of {}", keys.taken()),
        others => {
            tracing::info!("tokens are checked with the key of {}, not of {}", keys.taken(), others.join(" or "));
        }
    }
}

/// Has the port's claim learn the key of the deployment, which its store tells, however long that takes.
fn learn_deployment(config: &Config, claim: &PortClaim) -> Result<(), ProcessError> {
    #[cfg(feature = "services")]
    if let Deployment::Services(services) = &config.deployment {
        use crate::store::Store as _;

        let mut store = super::services::store(services)?;
        let standing = Arc::clone(claim.standing());
        let purpose = port::key_purpose(&services.kafka.topic);
        std::thread::Builder::new().name("port-key".into()).spawn(move || {
            loop {
                match store.identity() {
                    Ok(identity) => return standing.learn(identity.key(&purpose)),
                    Err(error) => standing.cannot_learn(error.to_string()),
                }
                std::thread::sleep(KEY_RETRY);
            }
        })?;
    }
    // An embedded deployment shares its port with nobody.
    let _ = (config, claim);
    Ok(())
}

/// The bounds of each shard; those of writes are split among them.
fn shard_settings(config: &Config, shards: usize) -> Settings {
    Settings {
        header_timeout: config.http.header_timeout,
        body_timeout: config.http.body_timeout,
        write_timeout: config.http.write_timeout,
        write_rate_min_bytes: config.http.write_rate_min_bytes,
        write_rate_grace: config.http.write_rate_grace,
        idle_timeout: config.http.idle_timeout,
        ack_timeout: config.write.ack_timeout,
        body_max_bytes: config.http.body_max_bytes,
        array_body_max_bytes: config.http.array_body_max_bytes,
        array_max_todos: config.write.array_max_todos,
        text_limits: config.write.text_limits,
        ready_details: config.http.ready_details,
        commands_max: config.write.queue_commands.div_ceil(shards),
        command_bytes_max: config.write.queue_bytes.div_ceil(shards),
        events: EventSettings {
            heartbeat: config.events.heartbeat,
            history_max_bytes: config.events.history_max_bytes,
            history_age: config.events.history_age,
            unsent_max_bytes: config.events.unsent_max_bytes,
        },
        cors: Arc::new(Cors::new(&config.http.cors_origins)),
        desk: desk(config),
    }
}

/// What the page is served with. Tokens are made where one process is the whole deployment: elsewhere, who is whom is not its
/// business.
fn desk(config: &Config) -> Desk {
    let has_secret = config.auth.secret.is_some() || !config.auth.has_public_keys();
    let is_embedded = matches!(config.deployment, Deployment::Embedded { .. });
    let makes_tokens = config.auth.page_tokens && is_embedded && has_secret;
    let minter = makes_tokens.then(|| Arc::new(Minter::new(config.auth.clone())));
    Desk {
        page: Arc::new(page::document()),
        contract: Arc::new(Contract::new(&Bounds::of(config))),
        minter,
        user_claim: config.auth.claim_names().user().into(),
    }
}
