//! What a component says of itself, read from its bytes without compiling it.
//!
//! ```text
//! file ─▶ bytes, digest ─▶ kind (component?) ─▶ validate ─▶ exports: handler and its version
//!                                                        └▶ imports: each with what it needs
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wasmparser::{Encoding, Parser, Payload, Validator};

use super::error::LoadError;

/// Bytes that a component may have: three times what an interpreter with its library takes.
pub const MAX_COMPONENT: u64 = 64 << 20;

/// The versions of the contract that this runtime speaks, for people.
pub const SUPPORTED: &str = "0.1.x";

const PACKAGE: &str = "millstream:plugin/";
const HANDLER: &str = "handler";

/// What is known of a component without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Version of `millstream:plugin` that its handler was built against, such as `0.1.0`.
    pub contract: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// In the order of the component.
    pub imports: Vec<Import>,
    /// In the order of the component.
    pub exports: Vec<String>,
}

/// An import of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// As the component writes it, such as `wasi:io/poll@0.2.6`.
    pub name: String,
    #[serde(flatten)]
    pub needs: Needs,
}

/// What an import needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "grant", rename_all = "snake_case")]
pub enum Needs {
    /// Always granted.
    Nothing,
    /// A `wasi:` interface: always there, with nothing behind it.
    Inert,
    /// The capability of this name.
    Capability {
        capability: &'static str,
        /// Whether this version offers it.
        supported: bool,
    },
    /// Nobody offers it.
    Unknown,
}

/// Reads a component and says what it is. Blocks on the file.
///
/// # Errors
/// What makes it no plugin for this runtime, imports that this version refuses included.
pub fn inspect(path: &Path) -> Result<Inspection, LoadError> {
    let bytes = read(path)?;
    let inspection = describe(path, &bytes)?;
    refuse(path, &inspection)?;
    Ok(inspection)
}

/// As [`inspect`], with what this version refuses about it beside it: whoever asks what a component
/// is wants to see that, too. Blocks on the file.
///
/// # Errors
/// It is no plugin of a version of the contract that this runtime speaks.
pub fn examine(path: &Path) -> Result<(Inspection, Option<LoadError>), LoadError> {
    let bytes = read(path)?;
    let inspection = describe(path, &bytes)?;
    let refusal = refuse(path, &inspection).err();
    Ok((inspection, refusal))
}

/// Checks the bytes of a component that was read from `path`, which only errors name.
///
/// # Errors
/// As [`inspect`].
pub fn check_component(path: &Path, bytes: &[u8]) -> Result<Inspection, LoadError> {
    let inspection = describe(path, bytes)?;
    refuse(path, &inspection)?;
    Ok(inspection)
}

/// The file's bytes, at most [`MAX_COMPONENT`].
///
/// # Errors
/// The file is missing, unreadable or too large.
pub fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => LoadError::Missing { path: path.into() },
        _ => LoadError::Unreadable {
            path: path.into(),
            source,
        },
    };
    // Before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(LoadError::NotWasm { path: path.into() });
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_COMPONENT {
        return Err(LoadError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

/// 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The name of the handler's export for this version of the contract.
pub(super) fn handler_name(contract: &str) -> String {
    format!("{PACKAGE}{HANDLER}@{contract}")
}

fn describe(path: &Path, bytes: &[u8]) -> Result<Inspection, LoadError> {
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotWasm { path: path.into() });
    }
    let (imports, exports) = names(path, bytes)?;
    Validator::new()
        .validate_all(bytes)
        .map_err(|error| broken(path, &error))?;
    let contract = contract(path, &exports)?;
    let imports = imports.into_iter().map(|name| Import {
        needs: needs(&name),
        name,
    });
    Ok(Inspection {
        contract,
        digest: format!("sha256:{}", sha256(bytes)),
        size: bytes.len() as u64,
        imports: imports.collect(),
        exports,
    })
}

/// Names of the outermost component's imports and exports.
fn names(path: &Path, bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), LoadError> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| broken(path, &error))? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Module {
                    return Err(LoadError::CoreModule { path: path.into() });
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import.map_err(|error| broken(path, &error))?;
                    imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export.map_err(|error| broken(path, &error))?;
                    exports.push(export.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn broken(path: &Path, error: &wasmparser::BinaryReaderError) -> LoadError {
    let path = path.into();
    let detail = error.to_string();
    if detail.contains("unexpected end") || detail.contains("unexpected eof") {
        return LoadError::Truncated { path, detail };
    }
    LoadError::Corrupt { path, detail }
}

fn contract(path: &Path, exports: &[String]) -> Result<String, LoadError> {
    let ours = exports.iter().filter_map(|name| {
        let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
        (interface == HANDLER).then_some(version)
    });
    let versions: Vec<&str> = ours.collect();
    if let Some(version) = versions.iter().find(|version| supported(version)) {
        return Ok((*version).to_owned());
    }
    match versions.first() {
        Some(found) => Err(LoadError::Version {
            path: path.into(),
            found: (*found).to_owned(),
        }),
        None => Err(LoadError::NoHandler {
            path: path.into(),
            exports: exports.to_vec(),
        }),
    }
}

fn supported(version: &str) -> bool {
    version
        .strip_prefix("0.1.")
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

fn needs(name: &str) -> Needs {
    if name.starts_with("wasi:") {
        return Needs::Inert;
    }
    let Some((interface, version)) = name
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.split_once('@'))
    else {
        return Needs::Unknown;
    };
    if !supported(version) {
        return Needs::Unknown;
    }
    let capability = |capability, supported| Needs::Capability {
        capability,
        supported,
    };
    match interface {
        // Types alone; a component that names them imports them as an instance without functions.
        "types" | "runtime" | "log" | "metrics" => Needs::Nothing,
        "state" => capability("state", false),
        "secrets" => capability("secrets", true),
        "http" => capability("http", true),
        _ => Needs::Unknown,
    }
}

fn refuse(path: &Path, inspection: &Inspection) -> Result<(), LoadError> {
    for import in &inspection.imports {
        let path = path.into();
        match import.needs {
            Needs::Nothing | Needs::Inert => {}
            Needs::Capability {
                supported: true, ..
            } => {}
            Needs::Capability { .. } => {
                return Err(LoadError::NotSupported {
                    path,
                    import: import.name.clone(),
                    reason: "keyed state is not kept yet",
                });
            }
            Needs::Unknown => {
                return Err(LoadError::UnknownImport {
                    path,
                    import: import.name.clone(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn check(bytes: &[u8]) -> Result<Inspection, LoadError> {
        check_component(Path::new("p.wasm"), bytes)
    }

    /// Each mistake has its own remedy; one error for all of them would send people the wrong way.
    #[test]
    fn each_mistake_has_its_own_error() {
        assert!(matches!(check(b"fn main"), Err(LoadError::NotWasm { .. })));
        assert!(matches!(check(b""), Err(LoadError::NotWasm { .. })));
        assert!(matches!(
            check(EMPTY_MODULE),
            Err(LoadError::CoreModule { .. })
        ));
        assert!(matches!(
            check(EMPTY_COMPONENT),
            Err(LoadError::NoHandler { .. })
        ));
        assert!(matches!(
            check(&EMPTY_COMPONENT[..6]),
            Err(LoadError::Truncated { .. })
        ));
        let missing = inspect(Path::new("no/such/file.wasm"));
        assert!(matches!(missing, Err(LoadError::Missing { .. })));
        let folder = inspect(Path::new("."));
        assert!(matches!(folder, Err(LoadError::NotWasm { .. })));
    }

    #[test]
    fn versions_within_the_series_are_served() {
        assert!(supported("0.1.0") && supported("0.1.12"));
        assert!(!supported("0.2.0") && !supported("0.1.0-rc1") && !supported("0.10.0"));
        let path = Path::new("p");
        let exports = ["millstream:plugin/handler@0.2.0".to_owned()];
        let error = contract(path, &exports).unwrap_err();
        assert!(error.to_string().contains("0.2.0") && error.to_string().contains(SUPPORTED));
    }

    /// An interface that is granted by mistake would end in a link error that names no remedy.
    #[test]
    fn imports_are_known_by_name_and_version() {
        assert_eq!(needs("wasi:http/types@0.2.0"), Needs::Inert);
        assert_eq!(needs("millstream:plugin/log@0.1.0"), Needs::Nothing);
        assert_eq!(needs("millstream:plugin/log@0.2.0"), Needs::Unknown);
        assert_eq!(needs("acme:plugin/log@0.1.0"), Needs::Unknown);
        let state = needs("millstream:plugin/state@0.1.0");
        assert!(matches!(
            state,
            Needs::Capability {
                capability: "state",
                ..
            }
        ));
    }

    /// Scripts read these names.
    #[test]
    fn the_json_form_is_stable() {
        let import = Import {
            name: "millstream:plugin/http@0.1.0".into(),
            needs: needs("millstream:plugin/http@0.1.0"),
        };
        let json = serde_json::to_string(&import).unwrap();
        assert_eq!(
            json,
            r#"{"name":"millstream:plugin/http@0.1.0","grant":"capability","capability":"http","supported":true}"#
        );
    }
}
