//! Components that no compiler would make: a plugin around any core module, and sections behind it.
//!
//! ```text
//! wat ─▶ component: libc (memory, cabi_realloc) ◀─ main (init, process) ─▶ sections appended
//!           └──────────── host functions, lowered ────────────┘
//! ```

use anyhow::{Context as _, Result};

/// The first bytes of a component.
pub const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

/// Sections of a component.
pub const CUSTOM: u8 = 0;
pub const CORE_MODULE: u8 = 1;
pub const COMPONENT: u8 = 4;
pub const INSTANCE: u8 = 5;
pub const TYPE: u8 = 7;

/// The contract's types, and what a made plugin imports besides.
const IMPORTS: &str = r#"
(import "millstream:plugin/types@0.1.0" (instance $types
  (type $s (record (field "start" u32) (field "length" u32)))
  (export "span" (type $span (eq $s)))
  (type $h (record (field "name" $span) (field "value" $span) (field "bits" u32)))
  (export "header" (type $header (eq $h)))
  (type $e (record (field "offset" u64) (field "timestamp-ms" s64) (field "topic" $span)
    (field "key" $span) (field "value" $span) (field "partition" u32) (field "headers-start" u32)
    (field "headers-count" u32) (field "attempt" u32) (field "bits" u32) (field "reserved" u32)))
  (export "event" (type $event (eq $e)))
  (type $x (record (field "item" u32) (field "kind" u32) (field "value" u64)))
  (export "extra" (type $extra (eq $x)))
  (type $events (list $event)) (type $headers (list $header)) (type $extras (list $extra))
  (type $data (list u8))
  (type $b (record (field "events" $events) (field "headers" $headers) (field "data" $data)
    (field "extras" $extras) (field "budget-ms" u32) (field "bits" u32)))
  (export "batch" (type $batch (eq $b)))
  (type $o (record (field "timestamp-ms" s64) (field "key" $span) (field "value" $span)
    (field "source" u32) (field "output" u32) (field "edit" u32) (field "headers-start" u32)
    (field "headers-count" u32)))
  (export "output" (type $output (eq $o)))
  (type $f (record (field "event" u32) (field "remedy" u32) (field "after-ms" u32)
    (field "code" $span) (field "reason" $span)))
  (export "failure" (type $failure (eq $f)))
  (type $outputs (list $output)) (type $failures (list $failure))
  (type $a (record (field "handled" u32) (field "outputs" $outputs) (field "headers" $headers)
    (field "failures" $failures) (field "data" $data) (field "extras" $extras)))
  (export "outcome" (type $outcome (eq $a)))
  (type $names (list string))
  (type $p (record (field "config" string) (field "outputs" $names)))
  (export "setup" (type $setup (eq $p)))
  (type $i (variant (case "misconfigured" string) (case "unavailable" string)))
  (export "init-error" (type $error (eq $i)))))
(alias export $types "batch" (type $batch))
(alias export $types "outcome" (type $outcome))
(alias export $types "setup" (type $setup))
(alias export $types "init-error" (type $init_error))

(import "millstream:plugin/runtime@0.1.0" (instance $runtime
  (export "property" (func (param "name" string) (result (option string))))))
(import "millstream:plugin/log@0.1.0" (instance $log
  (type $l (enum "trace" "debug" "info" "warn" "error"))
  (export "level" (type $level (eq $l)))
  (export "enabled" (func (param "level" $level) (result bool)))))
(import "wasi:io/poll@0.2.0" (instance $io
  (export "pollable" (type $pollable (sub resource)))
  (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
  (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
(alias export $io "pollable" (type $pollable))
(import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
  (alias outer 1 $pollable (type $p))
  (export "pollable" (type $pollable (eq $p)))
  (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
(import "wasi:random/random@0.2.0" (instance $random
  (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
(core func $enabled (canon lower (func $log "enabled")))
"#;

/// A core module that becomes a plugin. It drops each event unless it is told otherwise; each part
/// is WebAssembly text.
///
/// All parts may import nothing more, and call `$enabled`; those of `main` also `$property`,
/// `$subscribe`, `$block`, `$poll` and `$random`. The global `$flag` is theirs in common.
#[derive(Clone, Debug)]
pub struct Core {
    /// The memory, which has to be exported as `memory`.
    pub memory: String,
    /// Body of `cabi_realloc`, for `$size` bytes at `$align`.
    pub realloc: String,
    /// Body of `init`.
    pub init: String,
    /// Body of `process`: `$events` is their number.
    pub process: String,
    /// Body of what frees an answer, if there is such a function.
    pub post_return: Option<String>,
    /// Further fields of the main module.
    pub more: String,
    /// Further fields of the component.
    pub outside: String,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            memory: "(memory (export \"memory\") 2)".into(),
            // Hands out what lies behind the last piece, aligned.
            realloc: "
                (local $at i32)
                (local.set $at (i32.and
                    (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $heap (i32.add (local.get $at) (local.get $size)))
                (local.get $at)"
                .into(),
            init: "(i32.const 1024)".into(),
            process: "(i32.store (i32.const 2048) (local.get $events)) (i32.const 2048)".into(),
            post_return: None,
            more: String::new(),
            outside: String::new(),
        }
    }
}

impl Core {
    /// The component.
    ///
    /// # Errors
    /// A part is not WebAssembly text.
    pub fn component(&self) -> Result<Vec<u8>> {
        wat::parse_str(self.text()).context("a component of a test")
    }

    fn text(&self) -> String {
        let Self {
            memory,
            realloc,
            init,
            process,
            more,
            outside,
            ..
        } = self;
        let (post, freed, freeing) = match &self.post_return {
            Some(body) => (
                format!("(func (export \"post\") (param i32) {body})"),
                "(alias core export $main \"post\" (core func $post))",
                "(post-return $post)",
            ),
            None => (String::new(), "", ""),
        };
        // The return areas lie at 1024 and 2048, what is handed out from 4096 on.
        format!(
            r#"(component
            {IMPORTS}
            (core module $libc_module
                (import "host" "enabled" (func $enabled (param i32) (result i32)))
                {memory}
                (global $heap (export "heap") (mut i32) (i32.const 4096))
                (global $flag (export "flag") (mut i32) (i32.const 0))
                (func $realloc (export "realloc")
                    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
                    (result i32)
                    {realloc}))
            (core instance $libc (instantiate $libc_module
                (with "host" (instance (export "enabled" (func $enabled))))))
            (alias core export $libc "memory" (core memory $memory))
            (alias core export $libc "realloc" (core func $realloc))
            (core func $property (canon lower (func $runtime "property")
                (memory $memory) (realloc $realloc)))
            (core func $subscribe (canon lower (func $clock "subscribe-duration")))
            (core func $block (canon lower (func $io "[method]pollable.block")))
            (core func $poll (canon lower (func $io "poll") (memory $memory) (realloc $realloc)))
            (core func $random (canon lower (func $random "get-random-bytes")
                (memory $memory) (realloc $realloc)))
            (core module $main_module
                (import "libc" "memory" (memory 0))
                (import "libc" "heap" (global $heap (mut i32)))
                (import "libc" "flag" (global $flag (mut i32)))
                (import "libc" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
                (import "host" "enabled" (func $enabled (param i32) (result i32)))
                (import "host" "property" (func $property (param i32 i32 i32)))
                (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
                (import "host" "block" (func $block (param i32)))
                (import "host" "poll" (func $poll (param i32 i32 i32)))
                (import "host" "random" (func $random (param i64 i32)))
                (func (export "init") (param i32 i32 i32 i32) (result i32)
                    (global.set $heap (i32.const 4096))
                    {init})
                (func $process (export "process")
                    (param $list i32) (param $events i32) (param i32 i32 i32 i32 i32 i32 i32 i32)
                    (result i32) (local $at i32) (local $timer i32)
                    (global.set $heap (i32.const 4096))
                    {process})
                {post}
                {more})
            (core instance $main (instantiate $main_module
                (with "libc" (instance $libc))
                (with "host" (instance
                    (export "enabled" (func $enabled))
                    (export "property" (func $property))
                    (export "subscribe" (func $subscribe))
                    (export "block" (func $block))
                    (export "poll" (func $poll))
                    (export "random" (func $random))))))
            {freed}
            (type $init_type (func (param "setup" $setup) (result (result (error $init_error)))))
            (type $process_type (func (param "batch" $batch) (result $outcome)))
            (func $init (type $init_type) (canon lift (core func $main "init")
                (memory $memory) (realloc $realloc)))
            (func $process (type $process_type) (canon lift (core func $main "process")
                (memory $memory) (realloc $realloc) {freeing}))
            (instance $handler
                (export "init" (func $init))
                (export "process" (func $process)))
            (export "millstream:plugin/handler@0.1.0" (instance $handler))
            {outside})"#
        )
    }
}

/// A section of this kind.
pub fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(number(content.len()));
    bytes.extend_from_slice(content);
    bytes
}

/// A custom section of this many bytes.
pub fn custom(bytes: usize) -> Vec<u8> {
    let mut content = number(4);
    content.extend_from_slice(b"junk");
    content.resize(content.len() + bytes, 0);
    section(CUSTOM, &content)
}

/// A number as WebAssembly writes it.
pub fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// How many sections of this kind a component has at its top.
///
/// # Errors
/// The bytes are no component.
pub fn count(component: &[u8], kind: u8) -> Result<usize> {
    let mut rest = component.get(HEADER.len()..).context("no component")?;
    let mut found = 0;
    while let Some((this, behind)) = rest.split_first() {
        found += usize::from(*this == kind);
        let (mut length, mut shift, mut at) = (0, 0, 0);
        loop {
            let byte = *behind.get(at).context("a length is cut short")?;
            length |= usize::from(byte & 0x7f) << shift;
            at += 1;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        rest = behind
            .get(at + length..)
            .context("a section is cut short")?;
    }
    Ok(found)
}

/// A component that instantiates a component twice, which instantiates one twice, and so on down to
/// a core module: `2^depth` instances from a few bytes.
///
/// # Errors
/// None of note: the text is made in memory.
pub fn doubling(depth: u32) -> Result<Vec<u8>> {
    let mut inner = "(core module $m) (core instance (instantiate $m))".to_owned();
    for _ in 0..depth {
        inner = format!(
            "(component $c {inner}) (instance (instantiate $c)) (instance (instantiate $c))"
        );
    }
    Ok(wat::parse_str(format!("(component {inner})"))?)
}

/// Components within components, this many.
pub fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(HEADER.to_vec(), |inner, _| {
        let mut outer = HEADER.to_vec();
        outer.extend(section(COMPONENT, &inner));
        outer
    })
}

/// A component with a list of lists of lists …, this deep.
pub fn deep_type(depth: usize) -> Vec<u8> {
    let mut types = number(depth + 1);
    // u8, and from then on a list of the type before.
    types.push(0x7d);
    for index in 0..depth {
        types.push(0x70);
        // A signed number: one bit more than an unsigned one of the same value.
        let mut index = index;
        while index >= 0x40 {
            types.push(index as u8 & 0x7f | 0x80);
            index >>= 7;
        }
        types.push(index as u8);
    }
    let mut component = HEADER.to_vec();
    component.extend(section(TYPE, &types));
    component
}

/// The text of a function with this many loops around a change of each of this many locals: each
/// loop carries each local, so the compiler's work is the product.
pub fn carrying(loops: usize, locals: usize) -> String {
    let mut text = String::from("(func (param $go i32)");
    text.push_str(&" (local i32)".repeat(locals));
    text.push_str(&" loop".repeat(loops));
    for local in 1..=locals {
        text.push_str(&format!(
            " local.get {local} local.get 0 i32.add local.set {local}"
        ));
    }
    text.push_str(&" local.get $go br_if 0 end".repeat(loops));
    text.push(')');
    text
}
