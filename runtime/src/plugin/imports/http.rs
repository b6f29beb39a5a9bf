//! `millstream:plugin/http`: requests to the outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;
use tracing::Level;

use super::bindings::millstream::plugin::http::{Error, Header, Host, Request, Response};
use crate::plugin::outbound::{self, Failure};
use crate::plugin::state::{Call, DeadlinePassed, State};

impl Host for State {
    async fn send(
        &mut self,
        requests: Vec<Request>,
    ) -> wasmtime::Result<Vec<Result<Response, Error>>> {
        let grants = Arc::clone(&self.grants);
        let Some(outbound) = &grants.outbound else {
            let denied = || Err(Error::Denied("the consumer grants no host".into()));
            return Ok(requests.iter().map(|_| denied()).collect());
        };
        let events: Vec<_> = requests.iter().map(|request| request.event).collect();
        let requests: Vec<_> = requests
            .into_iter()
            .map(|request| taken(request, &self.call))
            .collect();
        let answers = match self.identity.in_shadow() {
            true => outbound.refuse(&requests),
            // It ends by itself before that; a guest that waits in the host meets no epoch.
            false => timeout_at(
                self.call.deadline(),
                outbound.send(requests, self.call.deadline()),
            )
            .await
            .map_err(|_| DeadlinePassed)?,
        };
        for (answered, event) in answers.iter().zip(events) {
            // A plugin may keep to itself what its operator must know.
            if let Err(Failure::Denied(why) | Failure::Private { why, .. }) = &answered.result {
                let offset = event.and_then(|index| self.call.offset(index));
                let text = format!("a request of the plugin was denied: {why}");
                self.journal.entry(Level::WARN, offset, &text, "");
            }
        }
        let given = answers.into_iter().map(|answered| given(answered.result));
        Ok(given.collect())
    }
}

fn taken(request: Request, call: &Call) -> outbound::Request {
    let trace = request
        .event
        .and_then(|index| call.traces.get(index as usize).cloned().flatten());
    let headers = request.headers.into_iter();
    outbound::Request {
        method: request.method,
        url: request.url,
        headers: headers.map(|header| (header.name, header.value)).collect(),
        body: request.body,
        timeout: Duration::from_millis(request.timeout_ms.into()),
        trace,
    }
}

fn given(result: Result<outbound::Response, Failure>) -> Result<Response, Error> {
    match result {
        Ok(response) => Ok(Response {
            status: response.status,
            headers: response
                .headers
                .into_iter()
                .map(|(name, value)| Header { name, value })
                .collect(),
            body: response.body,
        }),
        Err(Failure::Denied(text)) => Err(Error::Denied(text)),
        Err(Failure::Private { name, .. }) => Err(Error::Denied(format!(
            "{name} resolves to an address that is not public; the runtime's log has the line to \
             grant it"
        ))),
        Err(Failure::Invalid(text)) => Err(Error::Invalid(text)),
        Err(Failure::TimedOut) => Err(Error::TimedOut),
        Err(Failure::Unreachable(text)) => Err(Error::Unreachable(text)),
        Err(Failure::TooLarge) => Err(Error::TooLarge),
        Err(Failure::Other(text)) => Err(Error::Other(text)),
    }
}
