//! A runtime at work: what happens to it from outside, and what follows.
//!
//! ```text
//! signal, broken broker, failed consumer, idle ─▶ the end
//! judgement of a probation ─▶ noted
//! SIGHUP, request ─▶ read the files ─▶ prepare ─▶ deploy      meanwhile it still hears of the others
//! ```

use std::time::Duration;

use tokio::sync::mpsc;

use super::account::progress;
use super::deploy::{Running, Surroundings};
use super::reload::{Current, Reloader, Request};
use super::signals::Signals;
use super::{Ended, RunOptions, idle};
use crate::admin::{NotDone, Wish};

/// How often the progress of a run is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// What a runtime at work needs beside its consumers.
pub(super) struct Waits<'a> {
    pub(super) current: &'a Current,
    pub(super) options: &'a RunOptions,
    pub(super) reloader: &'a Reloader,
    pub(super) surroundings: &'a Surroundings,
}

/// Works, and deploys what is new, until a signal comes, a consumer fails, or everything is processed.
pub(super) async fn wait(
    waits: Waits<'_>,
    running: &mut Running,
    signals: &mut Signals,
    hang_up: &mut tokio::signal::unix::Signal,
    asked: &mut mpsc::Receiver<Request>,
) -> Ended {
    let Waits {
        current,
        options,
        reloader,
        surroundings:
            Surroundings {
                broker,
                metrics,
                health,
                ..
            },
    } = waits;
    let idle = async {
        match options.until_idle {
            Some(patience) => idle::wait(current, broker, health, patience).await,
            None => std::future::pending().await,
        }
    };
    let progress = async {
        let mut ticks = tokio::time::interval(PROGRESS);
        while let Some(sender) = &options.progress {
            ticks.tick().await;
            // Nobody may be looking any more.
            let _ = sender.send(progress(&current.get(), metrics, health));
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(idle, progress);
    loop {
        let request = tokio::select! {
            interrupted = signals.next() => return Ended::Signal { interrupted },
            error = broker.broken() => return Ended::Failed(error.into()),
            happened = running.next() => match happened {
                Ok(judged) => {
                    reloader.judged(&judged, running).await;
                    continue;
                }
                Err(error) => return Ended::Failed(error),
            },
            result = &mut idle => return match result {
                Ok(()) => Ended::Idle,
                Err(reason) => Ended::Stuck(reason),
            },
            () = &mut progress => return Ended::Idle,
            _ = hang_up.recv() => Request::reload("SIGHUP"),
            Some(request) = asked.recv() => request,
        };
        if let Wish::Pause(consumer) | Wish::Resume(consumer) = &request.wish {
            let (consumer, paused) = (consumer.clone(), matches!(request.wish, Wish::Pause(_)));
            reloader.pause(request, &consumer, paused, running).await;
            continue;
        }
        // A server may take minutes to send a plugin.
        let reading = reloader.read();
        tokio::pin!(reading);
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                interrupted = signals.next() => return Ended::Signal { interrupted },
                error = broker.broken() => return Ended::Failed(error.into()),
                happened = running.next() => match happened {
                    Ok(judged) => reloader.judged(&judged, running).await,
                    Err(error) => return Ended::Failed(error),
                },
            }
        };
        let prepared = match read {
            Err(error) => Err(NotDone::Refused(format!("{error:#}"))),
            Ok(config) => tokio::select! {
                prepared = reloader.prepare(config, &request.wish, running) => prepared,
                interrupted = signals.next() => return Ended::Signal { interrupted },
            },
        };
        if let Err(error) = reloader.deploy(request, prepared, running).await {
            return Ended::Failed(error);
        }
    }
}
