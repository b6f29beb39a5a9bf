//! Which SDK a new project is built with.
//!
//! ```text
//! --sdk PATH ──────────────────────────────▶ that path
//! the checkout that this binary came from ─▶ its path, and the versions of its Cargo.lock
//! else ────────────────────────────────────▶ the version of this binary, from the registry
//! ```

use std::path::{Path, PathBuf};

use super::super::Failure;

/// The SDK's crate.
const CRATE: &str = "millstream-plugin";
/// Where the SDK stands in a checkout.
const IN_CHECKOUT: &str = "plugins/sdk/rust";

/// Where the SDK comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// A folder that somebody named.
    Named(PathBuf),
    /// The checkout with this root, which the runtime was built from.
    Checkout(PathBuf),
    /// A release.
    Release(&'static str),
}

impl Sdk {
    /// The one that was named, else that of the checkout where there still is one, else a release.
    ///
    /// # Errors
    /// What was named is no SDK.
    pub fn choose(named: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = named {
            return Self::named(path);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        Ok(match root.filter(|root| is_sdk(&root.join(IN_CHECKOUT))) {
            Some(root) => Self::Checkout(root.to_owned()),
            None => Self::Release(env!("CARGO_PKG_VERSION")),
        })
    }

    fn named(path: &Path) -> anyhow::Result<Self> {
        let candidates = [path.to_owned(), path.join(IN_CHECKOUT)];
        let found = candidates.iter().find(|candidate| is_sdk(candidate));
        let found = found.ok_or_else(|| {
            Failure::Usage(format!(
                "--sdk {}: there is no Cargo.toml of {CRATE}; name the folder {IN_CHECKOUT} of a \
                 checkout of Millstream, or the checkout",
                path.display()
            ))
        })?;
        Ok(Self::Named(found.canonicalize()?))
    }

    /// The folder, where it is one.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Named(path) => Some(path.clone()),
            Self::Checkout(root) => Some(root.join(IN_CHECKOUT)),
            Self::Release(_) => None,
        }
    }

    /// The lock file whose versions are known to work with it: a project that begins with them needs
    /// no look at the registry for what was built before.
    pub fn lock_file(&self) -> Option<PathBuf> {
        let path = self.path()?;
        let root = path.ancestors().nth(3)?;
        Some(root.join("Cargo.lock")).filter(|file| file.is_file())
    }

    /// The value of the dependency in a `Cargo.toml`.
    pub fn dependency(&self) -> String {
        match self.path() {
            Some(path) => {
                let path = toml::Value::from(path.display().to_string());
                format!("{{ path = {path} }}")
            }
            None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Self::Named(path) => format!("the SDK is the one in {}", path.display()),
            Self::Checkout(root) => format!(
                "the SDK is that of the checkout which this runtime was built from, {}; name \
                 another by --sdk",
                root.join(IN_CHECKOUT).display()
            ),
            Self::Release(version) => format!(
                "the SDK is {CRATE} {version} from the registry, for the checkout which this \
                 runtime was built from is not here; name one by --sdk"
            ),
        }
    }
}

fn is_sdk(folder: &Path) -> bool {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"));
    name.and_then(toml::Value::as_str) == Some(CRATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout that was moved away must not leave a path that leads nowhere.
    #[test]
    fn a_path_is_written_only_where_an_sdk_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Sdk::choose(Some(folder.path())).expect_err("no SDK");
        assert!(error.to_string().contains("no Cargo.toml of"), "{error}");
        let sdk = folder.path().join(IN_CHECKOUT);
        std::fs::create_dir_all(&sdk).expect("a folder");
        std::fs::write(
            sdk.join("Cargo.toml"),
            "[package]\nname = \"millstream-plugin\"\n",
        )
        .expect("written");
        let whole = Sdk::choose(Some(folder.path())).expect("an SDK");
        let inner = Sdk::choose(Some(&sdk)).expect("an SDK");
        assert_eq!(whole, inner, "a checkout may be named too");
        let dependency = whole.dependency();
        assert!(dependency.contains("plugins/sdk/rust"), "{dependency}");
        assert!(format!("a = {dependency}").parse::<toml::Table>().is_ok());
    }

    #[test]
    fn this_build_knows_its_checkout() {
        let sdk = Sdk::choose(None).expect("an SDK");
        assert!(matches!(sdk, Sdk::Checkout(_)), "{sdk:?}");
        assert!(sdk.lock_file().is_some());
        assert_eq!(Sdk::Release("0.1.0").dependency(), "\"0.1.0\"");
    }
}
