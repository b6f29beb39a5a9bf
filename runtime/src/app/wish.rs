//! What an operator does by hand becomes an override.

use std::path::Path;

use anyhow::Context as _;

use super::deploy_book::{self, DeployBook};
use crate::admin::Wish;
use crate::decide::deploy_plan::Version;
use crate::decide::overrides::Build;
use crate::plugin::inspect;

/// Notes a wish in the book, where it is one for another build; says whether nothing is to be done
/// of it. `named` is what the configuration wants.
///
/// # Errors
/// Why the wish cannot be granted.
pub async fn express(
    wish: &Wish,
    named: &[Version],
    book: &mut DeployBook,
) -> anyhow::Result<bool> {
    let of = |consumer: &str| {
        let version = named
            .iter()
            .find(|version| *version.settings.name == *consumer);
        version.with_context(|| {
            format!("the configuration names no consumer {consumer} any more, or disables it")
        })
    };
    match wish {
        Wish::Reload | Wish::Pause(_) | Wish::Resume(_) => Ok(false),
        Wish::Deploy { consumer, options } => {
            let version = of(consumer)?;
            let build = match &options.plugin {
                Some(path) => Some(Build {
                    digest: kept(path, book).await?,
                    ..deploy_book::build(version)
                }),
                None => None,
            };
            book.of(&version.settings.name)
                .deploy(build, options.force)?;
            Ok(options.dry_run)
        }
        Wish::Rollback { consumer, options } => {
            let version = of(consumer)?;
            book.of(&version.settings.name)
                .roll_back(options.to.as_deref())?;
            Ok(options.dry_run)
        }
    }
}

/// Whether a wish is for another build of this consumer.
pub fn is_for(wish: &Wish, version: &Version) -> bool {
    match wish {
        Wish::Deploy { consumer, .. } | Wish::Rollback { consumer, .. } => {
            *version.settings.name == **consumer
        }
        Wish::Reload | Wish::Pause(_) | Wish::Resume(_) => false,
    }
}

/// Keeps the component at `path`, which is looked for there only now; its digest.
async fn kept(path: &Path, book: &DeployBook) -> anyhow::Result<String> {
    anyhow::ensure!(
        path.is_absolute(),
        "{} is relative, and the runtime may stand in another folder: name the whole path",
        path.display()
    );
    let (path, book) = (path.to_owned(), book.clone());
    let keeping = tokio::task::spawn_blocking(move || {
        let inspection = inspect::inspect(&path)
            .map_err(|error| anyhow::anyhow!("{error}\n  what to do: {}", error.remedy()))?;
        book.keep(&path, &inspection.digest)?;
        anyhow::Ok(inspection.digest)
    });
    keeping.await.context("reading the plugin panicked")?
}
