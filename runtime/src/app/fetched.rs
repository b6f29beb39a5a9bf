//! Plugins from elsewhere, brought here before the configuration that names them is used.

use super::StartFailure;
use crate::config::Config;
use crate::fetch;

/// The configuration with files for plugins.
///
/// # Errors
/// Every plugin that cannot be had, with its consumer and what to do.
pub async fn fetched(mut config: Config) -> anyhow::Result<Config> {
    let Err(failed) = fetch::bring(&mut config).await else {
        return Ok(config);
    };
    let lines: Vec<String> = failed
        .iter()
        .map(|one| {
            let (consumer, error) = (&one.consumer, &one.error);
            format!(
                "consumer {consumer}: {error}\n  what to do: {}",
                error.remedy()
            )
        })
        .collect();
    let text = lines.join("\n");
    let configured = failed.iter().all(|one| one.error.is_configuration());
    Err(match configured {
        true => StartFailure::Configuration(text),
        false => StartFailure::Host(text),
    }
    .into())
}
