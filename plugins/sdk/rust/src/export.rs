//! Makes a component of a consumer.

use crate::Consumer;

/// Makes the crate a plugin: `export!(MyConsumer)` for a type that implements
/// [`Consumer`], or `export!(fn handle)` for one function
/// `fn handle(event: Event<'_>, out: &mut Outbox) -> Result`. Once a crate.
///
/// It expands to the exports of a component on WebAssembly, and to nothing but a type check
/// elsewhere, so that `cargo test` needs no runtime.
#[macro_export]
macro_rules! export {
    (fn $handler:path) => {
        const _: () = {
            struct MillstreamFunction;

            impl $crate::Consumer for MillstreamFunction {
                type Settings = ();

                fn init((): (), _: &$crate::Setup) -> $crate::Result<Self> {
                    ::core::result::Result::Ok(Self)
                }

                fn handle(
                    &mut self,
                    event: $crate::Event<'_>,
                    out: &mut $crate::Outbox,
                ) -> $crate::Result {
                    $handler(event, out)
                }
            }

            $crate::export!(MillstreamFunction);
        };
    };
    ($consumer:ty) => {
        const _: () = $crate::internal::assert_consumer::<$consumer>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::exports::millstream::plugin::handler as millstream_handler;
            use $crate::bindings::millstream::plugin::types as millstream_types;

            ::std::thread_local! {
                static MILLSTREAM_INSTANCE: $crate::internal::Slot<$consumer> =
                    const { $crate::internal::Slot::new() };
            }

            struct MillstreamComponent;

            impl millstream_handler::Guest for MillstreamComponent {
                fn init(
                    setup: millstream_types::Setup,
                ) -> ::core::result::Result<(), millstream_types::InitError> {
                    MILLSTREAM_INSTANCE.with(|slot| $crate::internal::init(slot, setup))
                }

                fn process(batch: millstream_types::Batch) -> $crate::internal::Outcome {
                    MILLSTREAM_INSTANCE.with(|slot| $crate::internal::process(slot, batch))
                }
            }

    $crate::bindings::export!(MillstreamComponent with_types_in $crate::bindings);
        };
    };
}

/// Compiles where `C` is a consumer.
pub const fn assert_consumer<C: Consumer>() {}

#[cfg(target_arch = "wasm32")]
pub use component::{Slot, init, process};

/// The component's two exports.
#[cfg(target_arch = "wasm32")]
mod component {
    use std::cell::RefCell;

    use millstream_wire as wire;
    use wire::Remedy;

    use crate::bindings::millstream::plugin::types::{Batch, InitError, Setup};
    use crate::log::{Level, entry};
    use crate::runner::Runner;
    use crate::{Consumer, metrics};

    /// Holds the instance of the consumer once `init` has made it.
    pub struct Slot<C>(RefCell<Option<Runner<C>>>);

    impl<C: Consumer> Slot<C> {
        /// Empty.
        #[expect(
            clippy::new_without_default,
            reason = "`default` cannot initialize a static"
        )]
        pub const fn new() -> Self {
            Self(RefCell::new(None))
        }
    }

    /// Makes the instance.
    ///
    /// # Errors
    /// What the consumer's `init` says.
    pub fn init<C: Consumer>(slot: &Slot<C>, setup: Setup) -> Result<(), InitError> {
        log_panics();
        let setup = crate::Setup::new(setup.config, setup.outputs);
        let started = Runner::<C>::start(setup);
        metrics::keep();
        match started {
            Ok(runner) => {
                slot.0.replace(Some(runner));
                Ok(())
            }
            Err(error) => Err(match error.remedy() {
                Remedy::Reject | Remedy::Halt => InitError::Misconfigured(error.to_string()),
                Remedy::Retry | Remedy::Unavailable => InitError::Unavailable(error.to_string()),
            }),
        }
    }

    /// Answers a batch.
    ///
    /// # Panics
    /// Before `init` succeeded, which the runtime never does.
    pub fn process<C: Consumer>(slot: &Slot<C>, batch: Batch) -> wire::Outcome {
        let mut slot = slot.0.borrow_mut();
        let Some(runner) = slot.as_mut() else {
            panic!("process was called before init");
        };
        runner.process(&wire::Batch {
            events: &batch.events,
            headers: &batch.headers,
            data: &batch.data,
            extras: &batch.extras,
            budget_ms: batch.budget_ms,
            bits: batch.bits,
        })
    }

    /// Says what went wrong before the instance is gone: all that the runtime sees of a panic is
    /// that the instance executed `unreachable`.
    fn log_panics() {
        std::panic::set_hook(Box::new(|info| {
            let mut line = entry(Level::Error);
            if let Some(location) = info.location() {
                line = line.field("location", location);
            }
            line.write(format_args!(
                "panicked: {}",
                info.payload_as_str().unwrap_or("no message")
            ));
        }));
    }
}
