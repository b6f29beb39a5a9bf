//! The runtime's functions: the imports of the component, and in tests on the host a recorder.

use std::cell::Cell;

use crate::log::Level;

thread_local! {
    static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Index of the event at work, which logs and panics name.
pub(crate) fn current_event() -> Option<u32> {
    CURRENT.get()
}

pub(crate) fn set_current_event(index: Option<u32>) {
    CURRENT.set(index);
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instrument {
    Counter,
    Gauge,
    Histogram,
}

/// A metric to declare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declaration<'a> {
    pub instrument: Instrument,
    pub name: &'a str,
    pub help: &'a str,
    pub labels: &'a [(&'a str, &'a str)],
    pub bounds: &'a [f64],
}

#[cfg(target_arch = "wasm32")]
pub(crate) use component::*;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use recorder::*;

/// The imports of the component.
#[cfg(target_arch = "wasm32")]
mod component {
    use super::{Declaration, Instrument, Level};
    use crate::bindings::millstream::plugin::{http, log, metrics, runtime, secrets};
    use crate::http::{Error, Request, Response};

    pub(crate) fn secret(name: &str) -> Option<String> {
        secrets::get(name)
    }

    pub(crate) fn http_send(requests: Vec<Request>) -> Vec<Result<Response, Error>> {
        let header = |(name, value)| http::Header { name, value };
        let requests: Vec<_> = requests
            .into_iter()
            .map(|request| http::Request {
                event: request.event,
                method: request.method,
                url: request.url,
                headers: request.headers.into_iter().map(header).collect(),
                body: request.body,
                timeout_ms: request.timeout_ms,
            })
            .collect();
        http::send(&requests).into_iter().map(answered).collect()
    }

    fn answered(answer: Result<http::Response, http::Error>) -> Result<Response, Error> {
        let header = |header: http::Header| (header.name, header.value);
        match answer {
            Ok(response) => Ok(Response {
                status: response.status,
                headers: response.headers.into_iter().map(header).collect(),
                body: response.body,
            }),
            Err(http::Error::Denied(why)) => Err(Error::Denied(why)),
            Err(http::Error::Invalid(why)) => Err(Error::Invalid(why)),
            Err(http::Error::TimedOut) => Err(Error::TimedOut),
            Err(http::Error::Unreachable(why)) => Err(Error::Unreachable(why)),
            Err(http::Error::TooLarge) => Err(Error::TooLarge),
            Err(http::Error::Other(why)) => Err(Error::Other(why)),
        }
    }

    pub(crate) fn property(name: &str) -> Option<String> {
        runtime::property(name)
    }

    pub(crate) fn time_left_ms() -> u32 {
        runtime::time_left_ms()
    }

    fn level(level: Level) -> log::Level {
        match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        }
    }

    pub(crate) fn log_enabled(at: Level) -> bool {
        log::enabled(level(at))
    }

    pub(crate) fn log_write(
        at: Level,
        event: Option<u32>,
        message: &str,
        fields: &[(&str, String)],
    ) {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| log::Field {
                name: (*name).to_owned(),
                value: value.clone(),
            })
            .collect();
        log::write(level(at), event, message, &fields);
    }

    pub(crate) fn declare(metric: Declaration<'_>) -> Result<u32, String> {
        let instrument = match metric.instrument {
            Instrument::Counter => metrics::Instrument::Counter,
            Instrument::Gauge => metrics::Instrument::Gauge,
            Instrument::Histogram => metrics::Instrument::Histogram,
        };
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|(name, value)| metrics::Label {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        metrics::declare(instrument, metric.name, metric.help, &labels, metric.bounds)
    }

    pub(crate) fn report(points: impl Iterator<Item = (u32, f64)>) {
        let points: Vec<_> = points
            .map(|(metric, value)| metrics::Point { metric, value })
            .collect();
        metrics::report(&points);
    }
}

/// Stands for the runtime in tests on the host: keeps what a plugin logs and reports, for the
/// [`Harness`](crate::Harness) to show.
#[cfg(not(target_arch = "wasm32"))]
mod recorder {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::{Declaration, Instrument, Level};
    use crate::http::{Error, Request, Response};

    /// Answers the requests of a plugin.
    pub(crate) type Responder = dyn Fn(&Request) -> Result<Response, Error>;

    /// What a plugin meets outside of itself on this thread.
    #[derive(Clone, Default)]
    pub(crate) struct Surroundings {
        pub http: Option<Rc<Responder>>,
        pub secrets: BTreeMap<String, String>,
    }

    /// What a plugin logged and reported on this thread.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Recorded {
        pub logs: Vec<(Level, String)>,
        pub series: Vec<(String, Instrument)>,
        pub points: Vec<(u32, f64)>,
        pub requests: Vec<Request>,
    }

    thread_local! {
        static SURROUNDINGS: RefCell<Surroundings> = RefCell::default();
        static RECORDED: RefCell<Recorded> = RefCell::default();
    }

    pub(crate) fn take_recorded() -> Recorded {
        RECORDED.with_borrow_mut(std::mem::take)
    }

    /// From now on on this thread.
    pub(crate) fn surround(with: Surroundings) {
        SURROUNDINGS.set(with);
    }

    pub(crate) fn secret(name: &str) -> Option<String> {
        SURROUNDINGS.with_borrow(|around| around.secrets.get(name).cloned())
    }

    pub(crate) fn http_send(requests: Vec<Request>) -> Vec<Result<Response, Error>> {
        // Not borrowed while it answers: it may be a plugin's own code.
        let responder = SURROUNDINGS.with_borrow(|around| around.http.clone());
        let answer = |request: &Request| match &responder {
            Some(responder) => responder(request),
            None => Err(Error::Denied(
                "this test has no answers; give them by Harness::http".into(),
            )),
        };
        let answers = requests.iter().map(answer).collect();
        RECORDED.with_borrow_mut(|recorded| recorded.requests.extend(requests));
        answers
    }

    pub(crate) fn property(_name: &str) -> Option<String> {
        None
    }

    /// Time stands still in tests, or a busy machine would change what a batch answers.
    pub(crate) fn time_left_ms() -> u32 {
        u32::MAX
    }

    pub(crate) fn log_enabled(_level: Level) -> bool {
        true
    }

    pub(crate) fn log_write(
        level: Level,
        _event: Option<u32>,
        message: &str,
        fields: &[(&str, String)],
    ) {
        let mut line = message.to_owned();
        for (name, value) in fields {
            line.push_str(&format!(" {name}={value}"));
        }
        RECORDED.with_borrow_mut(|recorded| recorded.logs.push((level, line)));
    }

    pub(crate) fn declare(metric: Declaration<'_>) -> Result<u32, String> {
        let Declaration {
            instrument,
            name,
            help,
            labels,
            bounds,
        } = metric;
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!(
                "metric {name:?} ({help}): a name is of a-z, 0-9 and _"
            ));
        }
        if !bounds.is_sorted_by(|low, high| low < high) {
            return Err(format!("metric {name:?}: its bounds do not rise"));
        }
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let series = match labels.is_empty() {
            true => name.to_owned(),
            false => format!("{name}{{{}}}", labels.join(",")),
        };
        RECORDED.with_borrow_mut(|recorded| {
            let known = recorded
                .series
                .iter()
                .position(|(known, _)| *known == series);
            let index = known.unwrap_or_else(|| {
                recorded.series.push((series, instrument));
                recorded.series.len() - 1
            });
            Ok(index as u32)
        })
    }

    pub(crate) fn report(points: impl Iterator<Item = (u32, f64)>) {
        RECORDED.with_borrow_mut(|recorded| recorded.points.extend(points));
    }
}
