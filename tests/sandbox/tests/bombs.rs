//! Components that are small and cost much to read, to compile or to start, or that are merely huge.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;

use millstream::plugin::LoadError;
use millstream_sandbox_tests::handmade::{self, Core, section};
use millstream_sandbox_tests::{Bench, call};

/// A plugin that works, with sections behind it.
fn plugin_and(sections: &[Vec<u8>]) -> Vec<u8> {
    let mut component = Core::default().component().unwrap();
    component.extend(sections.concat());
    component
}

/// As above, with further fields of its main module.
fn plugin_with(more: String) -> Vec<u8> {
    let core = Core {
        more,
        ..Core::default()
    };
    core.component().unwrap()
}

async fn refused(component: &[u8]) -> LoadError {
    let bench = Bench::new().unwrap();
    let consumer = bench.made("bomb", component).unwrap();
    match bench.host.load(&consumer, 1).await {
        Ok(_) => panic!("it was loaded"),
        Err(error) => {
            assert!(!error.remedy().is_empty());
            error
        }
    }
}

async fn works(component: &[u8]) {
    let bench = Bench::new().unwrap();
    let consumer = bench.made("large", component).unwrap();
    let mut instance = bench.instance(&consumer).await.unwrap();
    call(&mut *instance, &["a"]).await.unwrap();
}

/// A component that instantiates what instantiates what …: a thousand bytes, a billion instances,
/// each of which the compiler would write down.
#[tokio::test]
async fn instances_that_double_are_refused_before_they_are_compiled() {
    for depth in [12, 30] {
        let doubling = handmade::doubling(depth).unwrap();
        let mut bomb = plugin_and(&[section(handmade::COMPONENT, &doubling)]);
        let index = handmade::count(&bomb, handmade::COMPONENT).unwrap() - 1;
        let mut instance = handmade::number(1);
        instance.push(0);
        instance.extend(handmade::number(index));
        instance.push(0);
        bomb.extend(section(handmade::INSTANCE, &instance));
        let error = refused(&bomb).await;
        assert!(matches!(error, LoadError::Costly { .. }), "{error}");
        assert!(error.to_string().contains("core instances"), "{error}");
    }
}

/// Each loop of a function may carry each of its locals: a few kilobytes, gigabytes and minutes in
/// the compiler.
#[tokio::test]
async fn functions_with_loops_times_locals_are_refused_before_they_are_compiled() {
    let error = refused(&plugin_with(handmade::carrying(4_000, 4_000))).await;
    assert!(matches!(error, LoadError::Costly { .. }), "{error}");
    assert!(error.to_string().contains("locals and blocks"), "{error}");
    let many = handmade::carrying(7_000, 1_000).repeat(40);
    let error = refused(&plugin_with(many)).await;
    assert!(matches!(error, LoadError::Costly { .. }), "{error}");
}

/// What a large honest plugin has a lot of must go on to work.
#[tokio::test]
async fn many_functions_work() {
    works(&plugin_with(
        "(func (result i32) (i32.const 7))".repeat(20_000),
    ))
    .await;
    works(&plugin_with(handmade::carrying(100, 100))).await;
}

/// Nothing reads them, so they cost what they weigh.
#[tokio::test]
async fn giant_custom_sections_are_passed_over() {
    works(&plugin_and(&[handmade::custom(32 << 20)])).await;
    let error = refused(&plugin_and(&[handmade::custom(64 << 20)])).await;
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
}

/// A reader that calls itself for each level would end the process with its stack.
#[tokio::test]
async fn deep_nesting_ends_in_an_error_or_works() {
    let nested = handmade::nested(3_000);
    works(&plugin_and(&[section(handmade::COMPONENT, &nested)])).await;
    let lists = handmade::deep_type(50_000);
    let bench = Bench::new().unwrap();
    let consumer = bench.made("deep", &plugin_and(&[section(handmade::COMPONENT, &lists)]));
    if let Err(error) = bench.host.load(&consumer.unwrap(), 1).await {
        assert!(
            matches!(error, LoadError::Corrupt { .. } | LoadError::Compile { .. }),
            "{error}"
        );
    }
}

/// More modules, instances or imports than anything needs.
#[tokio::test]
async fn crowds_are_refused() {
    let module = section(handmade::CORE_MODULE, b"\0asm\x01\0\0\0");
    let error = refused(&plugin_and(&vec![module; 2_000])).await;
    assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");

    let crowd = Core {
        outside: "(core module $m (memory 1)) ".to_owned()
            + &"(core instance (instantiate $m)) ".repeat(200),
        ..Core::default()
    };
    let error = refused(&crowd.component().unwrap()).await;
    assert!(!matches!(error, LoadError::Internal { .. }), "{error}");
}

/// Tool chains import much of WASI that they never call; thousands of it are linked to a trap each.
#[tokio::test]
async fn thousands_of_imports_work_until_they_are_called() {
    let mut outside = String::new();
    for interface in 0..50 {
        write!(
            outside,
            "(import \"wasi:made{interface}/up@0.2.0\" (instance "
        )
        .unwrap();
        for function in 0..100 {
            write!(outside, "(export \"f{function}\" (func)) ").unwrap();
        }
        outside.push_str("))");
    }
    let core = Core {
        outside,
        ..Core::default()
    };
    works(&core.component().unwrap()).await;
}

/// Proposals that the engine knows and this runtime does not offer.
#[tokio::test]
async fn features_that_are_off_are_refused() {
    for more in [
        "(memory i64 1)",
        "(memory 1 1 shared)",
        "(table i64 1 funcref)",
        "(tag $t)",
        "(type (struct))",
    ] {
        let error = refused(&plugin_with(more.into())).await;
        let fits = matches!(
            error,
            LoadError::Corrupt { .. } | LoadError::Compile { .. } | LoadError::Limits { .. }
        );
        assert!(fits, "{more}: {error}");
    }
}
