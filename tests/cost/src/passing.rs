//! A plugin that passes each event on, in Rust and without a wall, so that the path alone is counted.

use futures::future::BoxFuture;
use millstream::plugin::{CallContext, CallError, Instance, Plugin, PluginInfo, StartError};
use millstream_wire as wire;

/// See the module.
pub struct Passing(PluginInfo);

impl Passing {
    /// One of an invented digest.
    pub fn new() -> Self {
        Self(PluginInfo {
            digest: format!("sha256:{:064}", 0).into(),
            contract: "0.1.0".to_owned(),
            size: 1,
        })
    }
}

impl Plugin for Passing {
    fn instantiate(&self) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        let instance: Box<dyn Instance> = Box::new(PassingInstance);
        Box::pin(std::future::ready(Ok(instance)))
    }

    fn info(&self) -> &PluginInfo {
        &self.0
    }
}

struct PassingInstance;

impl Instance for PassingInstance {
    fn process<'a>(
        &'a mut self,
        batch: wire::Batch<'a>,
        _: &'a CallContext,
    ) -> BoxFuture<'a, Result<wire::Checked, CallError>> {
        Box::pin(std::future::ready(pass(&batch)))
    }

    fn memory_bytes(&self) -> u64 {
        1
    }
}

fn pass(batch: &wire::Batch<'_>) -> Result<wire::Checked, CallError> {
    let count = batch.events.len() as u32;
    let outputs = (0..count).map(|source| wire::Output {
        source,
        ..wire::Output::default()
    });
    let outcome = wire::Outcome {
        handled: count,
        outputs: outputs.collect(),
        ..wire::Outcome::default()
    };
    let limits = wire::Limits {
        outputs: count,
        output_bytes: 1 << 24,
        headers: 64,
    };
    wire::check(batch, outcome, 1, &limits).map_err(|error| CallError::Invalid(error.to_string()))
}
