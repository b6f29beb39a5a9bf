use serde::Serialize;
#[derive(Serialize)]
pub struct Inspection { pub contract: String, pub digest: String, pub size: u64, pub imports: Vec<Import> }
#[derive(Serialize)]
pub struct Import { pub name: String, #[serde(flatten)] pub needs: Needs }
#[derive(Serialize)]
#[serde(tag = "grant", rename_all = "snake_case")]
pub enum Needs { Nothing, Inert, Capability { capability: &'static str, supported: bool }, Unknown }
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct LoadError;
impl LoadError { pub fn remedy(&self) -> String { String::new() } }
pub fn inspect(_: &std::path::Path) -> Result<Inspection, LoadError> { Err(LoadError) }
