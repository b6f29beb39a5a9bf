//! The composition root: it alone sees every layer.
//!
//! ```text
//! configuration ─▶ broker ─▶ topics ─▶ plugins (compiled, tried) ─▶ consumers ─▶ until a signal
//!   ▲                 └─▶ admin (metrics, health, topics) ───────────────────┘   or idle ─▶ drain
//!   └── reload: file changed, SIGHUP, POST /-/reload ◀── all the while
//!
//! control plane: this runtime (admin, compile, watch)     data plane: a runtime of its own (consumers)
//! ```

mod account;
mod deploy;
mod deploy_book;
mod fetched;
pub mod folder_events;
mod health;
mod idle;
mod listeners;
pub mod quiet;
mod reload;
mod signals;
mod topics;
mod watch;
mod wish;
mod work;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::account::summarize;
pub use self::account::{ConsumerSummary, RunProgress, RunSummary};
use self::deploy::{Running, Surroundings};
use self::deploy_book::DeployBook;
use self::health::RuntimeHealth;
use self::listeners::Listeners;
use self::reload::{Current, Reloader, Request};
use self::signals::Signals;
use self::work::{Waits, wait};
use crate::admin::State;
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::kafka::KafkaBroker;
use crate::broker::remote::store_id;
use crate::broker::{Broker, BrokerError};
use crate::clock;
use crate::config::{self, Config};
use crate::consumer::trial_room::TrialRoom;
use crate::metrics::{Metrics, Probe};
use crate::plugin::Host;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End when everything is processed. The value is how long one who waits (a stopped consumer, a
    /// halted partition) is given.
    pub until_idle: Option<Duration>,
    /// Fail when an event was dead-lettered.
    pub fail_on_dead_letter: bool,
    /// Deploy a plugin whose file changed.
    pub watch_plugins: bool,
    /// Where to put the state of the run a few times a second, for whoever shows it.
    pub progress: Option<tokio::sync::watch::Sender<RunProgress>>,
}

/// Why the runtime did not start, where the exit code depends on it.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// The configuration or a plugin is at fault.
    #[error("{0}")]
    Configuration(String),
    /// The machine is: a port, a file, memory.
    #[error("{0}")]
    Host(String),
}

/// Why a run ended.
enum Ended {
    Signal {
        interrupted: bool,
    },
    Idle,
    /// `--until-idle` waited in vain.
    Stuck(String),
    Failed(anyhow::Error),
}

/// Opens the broker of a configuration; may block on a disk. `instance` is the identity for static
/// membership of groups.
///
/// # Errors
/// The store cannot be opened, or a property of the client is refused.
pub fn open_broker(
    config: &Config,
    instance: Option<&str>,
) -> Result<Arc<dyn Broker>, BrokerError> {
    Ok(match &config.broker {
        config::Broker::Embedded(embedded) => EmbeddedBroker::open(embedded, &config.topics)?,
        config::Broker::Kafka(kafka) => KafkaBroker::connect(kafka, instance)?,
    })
}

/// Runs until stopped, or until everything is processed.
///
/// # Errors
/// What keeps the runtime from starting, or ended it.
pub async fn run(config: Config, options: RunOptions) -> anyhow::Result<RunSummary> {
    let begun = Instant::now();
    let mut signals = Signals::listen()?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let metrics = Arc::new(Metrics::new());
    let hooks = deploy::hooks(&metrics);
    let host = Host::new(&config.runtime, hooks)?;
    let listeners = Listeners::bind(&config.admin).await?;
    let broker = open(&config).await?;
    let (requests, mut asked) = reload::requests();
    let stuck_after = config.admin.stuck_after;
    let health = Arc::new(RuntimeHealth::new(
        broker.clone(),
        stuck_after,
        requests.clone(),
    ));
    let data_plane = tokio::runtime::Builder::new_multi_thread()
        .thread_name("millstream-data")
        .enable_all()
        .build()
        .context("cannot start the threads of the data plane")?;
    let surroundings = Surroundings {
        broker: broker.clone(),
        host,
        metrics: metrics.clone(),
        health,
        data_plane: data_plane.handle().clone(),
    };
    let state = admin_state(&config, &surroundings);
    let health = surroundings.health.clone();
    let stop_admin = CancellationToken::new();
    let serving = listeners.serve(state, &config, &stop_admin);

    let shutdown_timeout = config.runtime.shutdown_timeout;
    let current = Arc::new(Current::new(config));
    let first = current.get();
    let started = tokio::select! {
        started = start(&first, &surroundings) => started.map(Ok),
        interrupted = signals.next() => Ok(Err(interrupted)),
    };
    let result = match started {
        Ok(Ok(Started {
            mut running,
            book,
            cut_short,
        })) => {
            if cut_short {
                // Nobody has asked for anything yet: there is room.
                let _ = requests.try_send(Request::reload("a probation was cut short"));
            }
            metrics.reloaded(true, clock::now_ms());
            let admin = current.get().admin.listen;
            tracing::info!(consumers = running.len(), %admin, "running");
            let _watch = watch(&current, &requests, &options);
            let reloader = Reloader::new(current.clone(), surroundings, book);
            let ended = wait(
                Waits {
                    current: &current,
                    options: &options,
                    reloader: &reloader,
                    surroundings: reloader.surroundings(),
                },
                &mut running,
                &mut signals,
                &mut hang_up,
                &mut asked,
            )
            .await;
            health.drain();
            let left = drain(shutdown_timeout, running, &mut signals).await;
            Ok((ended, left))
        }
        Ok(Err(interrupted)) => Ok((Ended::Signal { interrupted }, Ok(()))),
        Err(error) => Err(error),
    };
    close(&broker, &data_plane_closed(data_plane), shutdown_timeout).await;
    stop_admin.cancel();
    // The server finishes the requests that run, bounded by itself.
    let _ = serving.await;
    let (ended, left) = result?;
    left?;
    summarize(&current.get(), &options, &metrics, ended, begun.elapsed())
}

/// Consumers that have just begun.
struct Started {
    running: Running,
    book: DeployBook,
    /// Whether one of them runs what was trusted before, and is to try its own version again.
    cut_short: bool,
}

/// Everything between an open broker and consumers at work.
async fn start(config: &Config, surroundings: &Surroundings) -> anyhow::Result<Started> {
    let config = &fetched::fetched(config.clone()).await?;
    let (named, wrong) = reload::digests(config).await?;
    if !wrong.is_empty() {
        return Err(StartFailure::Configuration(wrong.join("\n")).into());
    }
    let mut book = open_book(config).await?;
    let mut loaded = Vec::new();
    for version in named {
        let version = book.follow(version);
        let before = book.before_unproven(&version);
        let Surroundings { host, metrics, .. } = surroundings;
        let first = before.as_ref().unwrap_or(&version);
        let ready = deploy::load(host, &first.settings, 1, metrics).await?;
        deploy::keep(&book, ready.version()).await;
        loaded.push((ready, before.is_some()));
    }
    topics::prepare(config, None, &surroundings.broker).await?;
    let mut running = Running::new(surroundings.clone(), trial_room(config).await?);
    let mut cut_short = false;
    for (loaded, gives_way) in loaded {
        let version = loaded.version();
        let name = version.settings.name.clone();
        let overrides = book.of(&name);
        running.start(loaded, overrides.paused)?;
        if gives_way {
            tracing::warn!(
                consumer = %name,
                "its probation was cut short: the version before runs first, and then it is tried again"
            );
            cut_short = true;
        } else {
            overrides.runs(deploy_book::build(&version));
        }
    }
    deploy::show_overrides(&book, config, surroundings);
    surroundings.health.started();
    Ok(Started {
        running,
        book,
        cut_short,
    })
}

async fn open_book(config: &Config) -> anyhow::Result<DeployBook> {
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || DeployBook::open(&config));
    opening
        .await
        .context("reading what was deployed by hand panicked")?
}

/// Watches the files for as long as it is held. A runtime that is to end when it is idle deploys
/// nothing by itself, and one that cannot watch still hears SIGHUP and HTTP.
fn watch(
    current: &Arc<Current>,
    requests: &mpsc::Sender<Request>,
    options: &RunOptions,
) -> Option<watch::Watch> {
    if options.until_idle.is_some() {
        return None;
    }
    match watch::start(current.clone(), requests.clone(), options.watch_plugins) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!("changed files deploy nothing: {error:#}; send SIGHUP instead");
            None
        }
    }
}

/// Noted beside the embedded store: who opens it next finds the note. Partitions of a Kafka may be
/// taken up by a runtime elsewhere.
async fn trial_room(config: &Config) -> anyhow::Result<Arc<TrialRoom>> {
    let config::Broker::Embedded(embedded) = &config.broker else {
        return Ok(TrialRoom::unnoted());
    };
    let path = embedded.data_dir.join("trial");
    let opening = tokio::task::spawn_blocking(move || TrialRoom::noted(&path));
    opening.await.context("noting the start panicked")
}

async fn open(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || {
        open_broker(&config, config.runtime.instance.as_deref())
    });
    Ok(opening.await.context("opening the broker panicked")??)
}

fn admin_state(config: &Config, surroundings: &Surroundings) -> Arc<State> {
    let Surroundings { broker, health, .. } = surroundings;
    let (metrics, host) = (surroundings.metrics.clone(), surroundings.host.clone());
    let up = broker.clone();
    let executors = [
        tokio::runtime::Handle::current(),
        surroundings.data_plane.clone(),
    ];
    let scrape = move || {
        let alive = |executor: &tokio::runtime::Handle| executor.metrics().num_alive_tasks();
        let probe = Probe {
            broker_up: up.up(),
            store: up.store_size(),
            tasks: executors.each_ref().map(alive),
        };
        metrics.render(probe, host.hooks().custom_metrics.gather())
    };
    let state = State::new(
        Arc::new(scrape),
        broker.topics(),
        health.clone(),
        config.topics.clone(),
        store_id(&config.broker),
    );
    Arc::new(state.with_operator(health.clone()))
}

/// Ends the consumers in order; a second signal or the time-out ends them at once.
async fn drain(
    shutdown_timeout: Duration,
    running: Running,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + shutdown_timeout;
    tracing::info!("draining");
    tokio::select! {
        result = running.drain(deadline) => result,
        _ = signals.next() => {
            tracing::warn!("a second signal: what is in flight is abandoned and comes again");
            Ok(())
        }
    }
}

fn data_plane_closed(data_plane: tokio::runtime::Runtime) {
    // Calls that outlive the drain are cut off: waiting for them could take for ever.
    data_plane.shutdown_background();
}

async fn close(broker: &Arc<dyn Broker>, (): &(), patience: Duration) {
    if tokio::time::timeout(patience, broker.close())
        .await
        .is_err()
    {
        tracing::warn!("the broker's client did not close in time; it is left behind");
    }
}
