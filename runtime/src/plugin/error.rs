//! Why a component was not loaded.

use std::io;
use std::path::PathBuf;

use super::inspect::{MAX_COMPONENT, SUPPORTED};
use crate::config::PluginSource;

/// Why a component was not loaded. The text is the cause; [`LoadError::remedy`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("there is no plugin {}", path.display())]
    Missing { path: PathBuf },
    /// The file exists but cannot be read.
    #[error("cannot read plugin {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is larger than any plugin may be.
    #[error("plugin {} is larger than {} MiB", path.display(), MAX_COMPONENT >> 20)]
    TooLarge { path: PathBuf },
    /// The file is not the one that the configuration means.
    #[error("plugin {} has the digest sha256:{actual}, not sha256:{expected}", path.display())]
    Digest {
        path: PathBuf,
        expected: String,
        actual: String,
    },
    /// The file does not begin like WebAssembly.
    #[error("{} is not WebAssembly", path.display())]
    NotWasm { path: PathBuf },
    /// It begins like a component but ends early.
    #[error("plugin {} is cut short: {detail}", path.display())]
    Truncated { path: PathBuf, detail: String },
    /// It is not a valid component.
    #[error("plugin {} is not a valid component: {detail}", path.display())]
    Corrupt { path: PathBuf, detail: String },
    /// It is a core module.
    #[error("{} is a core WebAssembly module, not a component", path.display())]
    CoreModule { path: PathBuf },
    /// It is a component, but no plugin.
    #[error("component {} exports no millstream:plugin/handler, only {}", path.display(), list(exports))]
    NoHandler { path: PathBuf, exports: Vec<String> },
    /// It speaks a version of the contract that this runtime does not.
    #[error("plugin {} was built against version {found} of millstream:plugin; this runtime supports {SUPPORTED}", path.display())]
    Version { path: PathBuf, found: String },
    /// It imports an interface of ours that this version does not offer.
    #[error("plugin {} imports {import}, which is not supported by this version: {reason}", path.display())]
    NotSupported {
        path: PathBuf,
        import: String,
        reason: &'static str,
    },
    /// It imports interfaces that its consumer is not granted; `line` would grant them.
    #[error("plugin {} imports {}, which its consumer is not granted", path.display(), imports.join(" and "))]
    NotGranted {
        path: PathBuf,
        imports: Vec<String>,
        line: String,
    },
    /// It imports something that nobody offers.
    #[error("plugin {} imports {import}, which the runtime does not know", path.display())]
    UnknownImport { path: PathBuf, import: String },
    /// Its imports or exports have the right names but other types.
    #[error("plugin {} does not fit the contract: {detail}", path.display())]
    Mismatch { path: PathBuf, detail: String },
    /// The compiler refuses it.
    #[error("plugin {} does not compile: {detail}", path.display())]
    Compile { path: PathBuf, detail: String },
    /// Compiling it would cost too much.
    #[error("plugin {} costs too much to compile: {detail}", path.display())]
    Costly { path: PathBuf, detail: String },
    /// What runs before `init`, a start function say, fails or does not end.
    #[error("plugin {} fails when it is instantiated: {detail}", path.display())]
    Start { path: PathBuf, detail: String },
    /// It does not fit the consumer's limits even before it runs.
    #[error("plugin {} cannot be instantiated: {detail}", path.display())]
    Limits { path: PathBuf, detail: String },
    /// The runtime has no room for it now.
    #[error("there is no room to try plugin {}: {detail}", path.display())]
    NoRoom { path: PathBuf, detail: String },
    /// The host failed, not the plugin.
    #[error("loading plugin {} failed in the runtime: {detail}", path.display())]
    Internal { path: PathBuf, detail: String },
}

impl LoadError {
    /// The same about a component that was fetched: where it lies is of no use to whoever reads it,
    /// where it is from and which one it is are.
    pub fn of(mut self, source: &PluginSource) -> Self {
        if source.remote.is_some() {
            *self.path_mut() = source.identified().into();
        }
        self
    }

    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Self::Missing { path }
            | Self::Unreadable { path, .. }
            | Self::TooLarge { path }
            | Self::Digest { path, .. }
            | Self::NotWasm { path }
            | Self::Truncated { path, .. }
            | Self::Corrupt { path, .. }
            | Self::CoreModule { path }
            | Self::NoHandler { path, .. }
            | Self::Version { path, .. }
            | Self::NotSupported { path, .. }
            | Self::NotGranted { path, .. }
            | Self::UnknownImport { path, .. }
            | Self::Mismatch { path, .. }
            | Self::Compile { path, .. }
            | Self::Costly { path, .. }
            | Self::Start { path, .. }
            | Self::Limits { path, .. }
            | Self::NoRoom { path, .. }
            | Self::Internal { path, .. } => path,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Missing { .. } => "build the plugin first, or correct `plugin`; a relative path \
                                     is relative to the configuration file"
                .into(),
            Self::Unreadable { .. } => "let the user that runs millstream read the file".into(),
            Self::TooLarge { .. } => "build it in release mode and strip debug information".into(),
            Self::Digest { actual, .. } => format!(
                "if this file is the one that you mean, write sha256 = \"{actual}\"; else restore \
                 the one that you reviewed"
            ),
            Self::NotWasm { .. } => "give the .wasm file that the build writes, not its source or \
                                     a folder"
                .into(),
            Self::Truncated { .. } => {
                "copy or build it again; the copy may have been interrupted".into()
            }
            Self::Corrupt { .. } | Self::Compile { .. } => {
                "build it again; if it stays so, its tool chain is newer than this runtime".into()
            }
            Self::CoreModule { .. } => "build for the target wasm32-wasip2, which yields a \
                                        component (wasm32-wasip1 and wasm32-unknown-unknown do not)"
                .into(),
            Self::NoHandler { .. } => "with the Rust SDK: is `export!(…)` there, and is the crate \
                                       type only \"cdylib\"?"
                .into(),
            Self::Version { .. } => format!(
                "build it with an SDK for {SUPPORTED}, or use the \
                                             runtime that matches it"
            ),
            Self::NotSupported { .. } => "leave the interface out of the plugin's world, or use a \
                                          runtime that has it"
                .into(),
            Self::NotGranted { line, .. } => {
                let hosts = match line.contains("http = ") {
                    true => ", with the hosts that it may reach",
                    false => "",
                };
                format!(
                    "if you mean to grant that, write `{line}` into its [[consumer]]{hosts}; else \
                     leave the interface out of the plugin"
                )
            }
            Self::UnknownImport { .. } => "a plugin may import millstream:plugin and wasi:* \
                                           interfaces only; link the rest into it"
                .into(),
            Self::Mismatch { .. } => {
                "build it against the unchanged millstream:plugin package".into()
            }
            Self::Costly { .. } => {
                "build it in release mode; a function that a generator wrote may \
                                    have to be split"
                    .into()
            }
            Self::Start { .. } => "mend what the plugin does before `init` (constructors, start \
                                   functions), or raise `limits.init` of the consumer"
                .into(),
            Self::Limits { .. } => "raise `limits.memory` of the consumer (and [runtime] \
                                    max_plugin_memory), or let the plugin start smaller"
                .into(),
            Self::NoRoom { .. } => "raise [runtime] plugin_memory or max_instances, or lower what \
                                    other consumers use"
                .into(),
            Self::Internal { .. } => {
                "look at the log before this line; this is not the plugin's fault".into()
            }
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let rest = names.len() - shown.len();
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}
