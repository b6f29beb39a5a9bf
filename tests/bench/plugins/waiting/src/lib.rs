//! Asks its settings' URL for each event, waits for the answer, and passes the event on.

use millstream_plugin::http;
use millstream_plugin::prelude::*;

#[derive(Deserialize)]
struct Waiting {
    url: String,
}

impl Consumer for Waiting {
    type Settings = Self;

    fn init(settings: Self, _setup: &Setup) -> Result<Self> {
        Ok(settings)
    }

    /// One after the other: what a plugin does that knows nothing of batches.
    fn handle(&mut self, _event: Event<'_>, out: &mut Outbox) -> Result {
        http::get(&self.url).send()?.error_for_status()?;
        out.forward()
    }
}

export!(Waiting);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_passes_once_it_is_answered() {
        let run = Harness::new::<Waiting>()
            .config(r#"{"url": "http://127.0.0.1:1/wait"}"#)
            .http(|request| match request.url() {
                "http://127.0.0.1:1/wait" => Ok(http::Response::new(200)),
                _ => Err(http::Error::TimedOut),
            })
            .run([TestEvent::text("a"), TestEvent::text("b")]);
        let passed: Vec<_> = run.outputs().map(|derived| derived.text()).collect();
        assert_eq!(passed, ["a", "b"]);
        assert_eq!(run.requests().len(), 2);
    }
}
