//! `backupd serve`: the roles of a daemon, its life from start to end, and what signals do to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::listen::Listener;
use crate::api::{self, Api};
use crate::catalog::{Catalog, Code, NewEvent, new_id};
use crate::clock;
use crate::config::Config;
use crate::error::{Class, Error, Result};
use crate::hooks::Teller;
use crate::host;
use crate::http::{self, Served};
use crate::jobs::{Crew, reach};
use crate::live::Definitions;
use crate::scheduler::Scheduler;
use crate::service::Services;
use crate::telemetry::Telemetry;

/// From this difference on the clocks of this machine and of the database are said to disagree, ms.
const SKEW_TOLD_MS: u64 = 5_000;

/// How long answers over HTTP that have begun may take after all work has ended.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(5);

/// What this daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Serves the API, where the configuration says so.
    pub api: bool,
    /// Decides what is to be done.
    pub scheduler: bool,
    /// Does it.
    pub worker: bool,
}

/// Serves until `stop`, then ends in good order.
///
/// # Errors
/// `Config`, `Refused` for an address that others reach, and what the catalog says when it cannot be opened.
pub async fn serve(flag: Option<PathBuf>, roles: Roles, stop: CancellationToken) -> Result<()> {
    let config = Arc::new(Config::load(flag.as_deref())?);
    let hangups = signal(SignalKind::hangup())
        .map_err(|error| Error::new(Class::Unforeseen, format!("signals cannot be handled: {error}")))?;
    let listener = match config.daemon.listen {
        Some(address) => Some(http::listen(address).await?),
        None => None,
    };
    let api = match config.api.listen.filter(|_| roles.api) {
        Some(address) => Some(Listener::bind(address, config.api.tls.as_ref()).await?),
        None => None,
    };
    let catalog = Catalog::open(&config.catalog).await?;
    let name = worker_name(catalog.now_unix_ms().await?)?;
    let telemetry = Arc::new(Telemetry::default());
    begin(&catalog, &config, &name, roles).await?;
    let (sender, file) = watch::channel(Arc::clone(&config));
    let definitions = Definitions::begin(catalog.clone(), file).await?;
    let live = definitions.live();
    let (tasks, answering, ended) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
    if let Some(listener) = listener {
        let certificate = config.api.tls.as_ref().map(|tls| tls.cert.clone());
        let (catalog, telemetry) = (catalog.clone(), Arc::clone(&telemetry));
        let served = Served { catalog, telemetry, certificate, stop: stop.clone() };
        answering.spawn(http::serve(listener, served, ended.clone()));
    }
    if let Some(listener) = api {
        let limits = config.api.limits.clone();
        let services = Services::new(catalog.clone(), live.clone());
        let api = Api::new(services, Arc::clone(&definitions), &limits, stop.clone());
        tasks.spawn(listener.serve(api::router(&api), limits, stop.clone()));
    }
    if roles.scheduler {
        let scheduler = Scheduler::new(catalog.clone(), live.clone(), Arc::clone(&telemetry), name.clone());
        tasks.spawn(scheduler.run(stop.clone()));
        let teller = Teller::new(catalog.clone(), live.clone(), Arc::clone(&telemetry), name.clone());
        tasks.spawn(teller.run(stop.clone()));
    }
    if roles.worker {
        let crew = Crew {
            catalog: catalog.clone(),
            config: live.clone(),
            definitions: Arc::clone(&definitions),
            telemetry: Arc::clone(&telemetry),
            care: reach::care(&live.borrow().capture)?,
            name: name.clone(),
        };
        tasks.spawn(crew.run(stop.clone()));
    }
    tasks.spawn(reload(flag, catalog.clone(), sender, hangups, stop.clone()));
    tasks.spawn(definitions.follow(stop.clone()));
    tasks.spawn(watchdog(stop.clone()));
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    stop.cancelled().await;
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("the daemon ends: nothing new begins");
    tasks.close();
    tasks.wait().await;
    // until here it said that it is ending
    ended.cancel();
    answering.close();
    if tokio::time::timeout(LAST_ANSWERS_WAIT, answering.wait()).await.is_err() {
        tracing::warn!("somebody still reads an answer: it is cut off");
    }
    say(&catalog, &NewEvent::new(Code::DaemonStopped, format!("daemon {name} ended"))).await;
    catalog.close().await;
    Ok(())
}

async fn begin(catalog: &Catalog, config: &Config, name: &str, roles: Roles) -> Result<()> {
    let apart_ms = catalog.now_unix_ms().await?.abs_diff(clock::unix_ms(clock::now()));
    let named = [(roles.api, "api"), (roles.scheduler, "scheduler"), (roles.worker, "worker")];
    let what = named.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let file = config.file.as_ref().map_or_else(|| "no configuration".to_owned(), |file| file.display().to_string());
    let clusters = config.clusters().count();
    let message = format!("daemon {name} began as {what} with {clusters} clusters of {file}");
    catalog.add_event(&NewEvent::new(Code::DaemonStarted, message), catalog.now_unix_ms().await?).await?;
    if apart_ms > SKEW_TOLD_MS {
        let message = format!("the clocks of {name} and of the catalog are {apart_ms} ms apart; the catalog's counts");
        catalog.add_event(&NewEvent::new(Code::ClockSkew, message), catalog.now_unix_ms().await?).await?;
    }
    Ok(())
}

/// Writes an event; a catalog that is away changes nothing.
async fn say(catalog: &Catalog, event: &NewEvent) {
    let said = async { catalog.add_event(event, catalog.now_unix_ms().await?).await };
    if let Err(error) = said.await {
        tracing::warn!(error = %error, "an event could not be written: {}", event.message);
    }
}

/// On SIGHUP the file is read again. One that is wrong changes nothing.
async fn reload(
    flag: Option<PathBuf>,
    catalog: Catalog,
    sender: watch::Sender<Arc<Config>>,
    mut hangups: tokio::signal::unix::Signal,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            hangup = hangups.recv() => if hangup.is_none() { return },
            () = stop.cancelled() => return,
        }
        match Config::load(flag.as_deref()) {
            Ok(config) => {
                let differences = config.differences(&sender.borrow());
                let message = if differences.is_empty() {
                    "the configuration was read again: nothing is different".to_owned()
                } else {
                    format!("the configuration was read again: {}", differences.join("; "))
                };
                sender.send_replace(Arc::new(config));
                say(&catalog, &NewEvent::new(Code::ConfigReloaded, message)).await;
            }
            Err(error) => {
                let message =
                    format!("the configuration was not taken over, the one before holds: {}", error.message());
                say(&catalog, &NewEvent::new(Code::ConfigRefused, message)).await;
            }
        }
    }
}

/// Tells systemd that we live, where it wants to know.
async fn watchdog(stop: CancellationToken) {
    let Some(limit_us) = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok()) else { return };
    while !stop.is_cancelled() {
        tell_systemd(&[sd_notify::NotifyState::Watchdog]);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_micros(limit_us / 3)) => {}
            () = stop.cancelled() => {}
        }
    }
}

fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!(error = %error, "systemd could not be told");
    }
}

/// Host, process, and something random: no two are the same.
fn worker_name(now_unix_ms: u64) -> Result<String> {
    let id = new_id(now_unix_ms)?;
    let random = id.rsplit('-').next().unwrap_or_default().to_owned();
    Ok(format!("{}:{}:{random}", host::name(), std::process::id()))
}
