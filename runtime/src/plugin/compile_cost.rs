//! What a component would cost the compiler, estimated from its bytes.
//!
//! Compiling cannot be interrupted and its memory is the host's, so what would cost too much is
//! refused before. Two things grow out of proportion to a component's size:
//!
//! ```text
//! instances   each instantiation of a nested component repeats all that it instantiates: 2^n of n lines
//! variables   each loop and block of a function may carry each of its locals: the product of both
//! ```

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, FunctionBody, Instance, Operator, Parser, Payload,
};

/// Core instances of a component with all that it nests: more than an instance of it may have.
const MAX_INSTANCES: u64 = 1_000;

/// Locals times blocks of one function. The largest functions of interpreters that were compiled to
/// WebAssembly have some millions.
const MAX_CARRIED: u64 = 8_000_000;

/// Locals times blocks of all functions.
const MAX_CARRIED_IN_ALL: u64 = 256_000_000;

/// What is known of a component that may be instantiated: its core instances in all.
type Known = Option<u64>;

/// A component that is being read.
#[derive(Default)]
struct Scope {
    /// A module has no instances; its sections are passed over.
    is_module: bool,
    instances: u64,
    /// By index; `None` for one that comes from elsewhere.
    components: Vec<Known>,
}

/// Refuses a component that would cost too much to compile. It must be valid.
///
/// # Errors
/// What is too much, for a person; or that the bytes cannot be read.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let broken = |error: BinaryReaderError| error.to_string();
    let mut scopes: Vec<Scope> = Vec::new();
    let mut carried = 0_u64;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
            Payload::Version { encoding, .. } => scopes.push(Scope {
                is_module: encoding == wasmparser::Encoding::Module,
                ..Scope::default()
            }),
            Payload::End(_) => {
                let ended = scopes.pop().unwrap_or_default();
                if let Some(outer) = scopes.last_mut().filter(|_| !ended.is_module) {
                    outer.components.push(Some(ended.instances));
                }
            }
            Payload::CodeSectionEntry(body) => {
                let of_function = carries(&body).map_err(broken)?;
                if of_function > MAX_CARRIED {
                    return Err(format!(
                        "a function has so many locals and blocks that compiling it would take \
                         minutes ({of_function} in their product, {MAX_CARRIED} at most)"
                    ));
                }
                carried = carried.saturating_add(of_function);
            }
            other => note(&mut scopes, other).map_err(broken)??,
        }
        let instances = scopes.last().map_or(0, |scope| scope.instances);
        if instances > MAX_INSTANCES {
            return Err(format!(
                "with all that it nests it has more than {MAX_INSTANCES} core instances"
            ));
        }
    }
    if carried > MAX_CARRIED_IN_ALL {
        return Err(format!(
            "its functions have so many locals and blocks that compiling them would take minutes \
             ({carried} in the sum of their products, {MAX_CARRIED_IN_ALL} at most)"
        ));
    }
    Ok(())
}

/// Takes up what a section adds to the innermost component.
fn note(
    scopes: &mut [Scope],
    payload: Payload<'_>,
) -> Result<Result<(), String>, BinaryReaderError> {
    let outer = |scopes: &[Scope], count: u32, index: u32| {
        let scope = scopes.len().checked_sub(count as usize + 1)?;
        *scopes.get(scope)?.components.get(index as usize)?
    };
    match payload {
        Payload::InstanceSection(section) => {
            for instance in section {
                if let (Instance::Instantiate { .. }, Some(scope)) = (instance?, scopes.last_mut())
                {
                    scope.instances = scope.instances.saturating_add(1);
                }
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section {
                let ComponentInstance::Instantiate {
                    component_index, ..
                } = instance?
                else {
                    continue;
                };
                let Some(more) = outer(scopes, 0, component_index) else {
                    return Ok(Err(
                        "it instantiates a component that it does not define itself".into(),
                    ));
                };
                if let Some(scope) = scopes.last_mut() {
                    scope.instances = scope.instances.saturating_add(more);
                }
            }
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section {
                let known = match alias? {
                    ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::Component,
                        count,
                        index,
                    } => outer(scopes, count, index),
                    ComponentAlias::InstanceExport {
                        kind: ComponentExternalKind::Component,
                        ..
                    } => None,
                    _ => continue,
                };
                define(scopes, known);
            }
        }
        Payload::ComponentImportSection(section) => {
            for import in section {
                if let ComponentTypeRef::Component(_) = import?.ty {
                    define(scopes, None);
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section {
                let export = export?;
                if export.kind == ComponentExternalKind::Component {
                    let known = outer(scopes, 0, export.index);
                    define(scopes, known);
                }
            }
        }
        _ => {}
    }
    Ok(Ok(()))
}

fn define(scopes: &mut [Scope], known: Known) {
    if let Some(scope) = scopes.last_mut() {
        scope.components.push(known);
    }
}

/// Locals times blocks.
fn carries(body: &FunctionBody<'_>) -> Result<u64, BinaryReaderError> {
    let mut locals = 0_u64;
    for group in body.get_locals_reader()? {
        locals += u64::from(group?.0);
    }
    // Nothing to multiply, or too little to matter: most functions are told by their size alone.
    if locals.saturating_mul(body.range().len() as u64 / 2) <= u64::from(u16::MAX) {
        return Ok(0);
    }
    let mut blocks = 0_u64;
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        if let Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::TryTable { .. } = operators.read()?
        {
            blocks += 1;
        }
    }
    Ok(locals.saturating_mul(blocks))
}
