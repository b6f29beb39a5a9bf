//! The bytes of a component, before they are compiled.

use std::path::Path;

use millstream::plugin::inspect;
use millstream_fuzz_tests::{fuzz, mutated};
use millstream_sandbox_tests::handmade::{self, Core};
use proptest::prelude::*;

#[test]
fn components_are_described_or_refused() {
    let mut nested = Core::default().component().unwrap();
    nested.extend(handmade::section(
        handmade::COMPONENT,
        &handmade::doubling(3).unwrap(),
    ));
    let corpus = vec![
        Core::default().component().unwrap(),
        nested,
        handmade::nested(20),
        handmade::deep_type(20),
    ];
    let words: &[&[u8]] = &[
        b"\0asm\x0d\0\x01\0",
        b"\x04",
        b"\xff\xff\xff\xff\x0f",
        b"@0.9.0",
    ];
    let inputs = mutated(corpus, words);
    fuzz("components", 1_000, &inputs, |bytes| {
        match inspect::check_component(Path::new("p.wasm"), &bytes) {
            Ok(inspection) => {
                prop_assert_eq!(inspection.size, bytes.len() as u64);
                let handler = format!("millstream:plugin/handler@{}", inspection.contract);
                prop_assert!(inspection.contract.starts_with("0.1."));
                prop_assert!(inspection.exports.contains(&handler));
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty() && !error.remedy().is_empty());
            }
        }
        Ok(())
    });
}
