//! Whole configurations: the bad ones as a person reads them, the examples, and the schema.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const BAD: &str = "../tests/config/bad";
const EXAMPLES: &str = "../config";

fn environment(name: &str) -> Option<String> {
    match name {
        "SET" => Some("a value".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        _ => None,
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

/// Each text is meant to be read: a change of it is looked at before it is accepted.
#[test]
fn bad_configurations_read_well() {
    let files = files(BAD);
    assert!(files.len() >= 40);
    for file in files {
        let (loaded, _) = examine(&file, &environment);
        assert!(!loaded.warnings.is_empty(), "{}", file.display());
        let shown = loaded
            .warnings
            .render(false)
            .replace(&format!("{BAD}/"), "");
        let json = loaded.warnings.to_json().to_string();
        for text in [&shown, &json] {
            assert!(!text.contains("hunter2"), "{}: {text}", file.display());
        }
        let name = file.file_stem().unwrap().to_str().unwrap();
        insta::assert_snapshot!(name, shown);
    }
}

/// An editor or a script jumps to these.
#[test]
fn every_problem_has_its_place() {
    for file in files(BAD) {
        let (loaded, _) = examine(&file, &environment);
        let plain = loaded.warnings.render(false);
        let coloured = loaded.warnings.render(true);
        assert!(coloured.contains("\u{1b}[") && !plain.contains("\u{1b}["));
        for problem in loaded.warnings.to_json().as_array().unwrap() {
            let place = ["file", "line", "column"].map(|key| match &problem[key] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            assert!(plain.contains(&place.join(":")), "{problem}");
        }
    }
}

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millstream.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(folder.path().join("p.wasm"), b"").unwrap();
    (folder, file)
}

const MINIMAL: &str = "[[consumer]]\nname = \"a\"\nplugin = \"p.wasm\"\ntopics = [\"t\"]\n";

#[test]
fn a_missing_file_says_how_to_name_one() {
    let problems = load(Path::new("no-such.toml"), &environment).unwrap_err();
    assert!(problems.to_string().contains("--config"), "{problems}");
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_file_that_is_no_text_says_where() {
    let (_folder, file) = write("");
    std::fs::write(&file, b"[runtime]\ninstance = \"\xff\"\n").unwrap();
    let problems = load(&file, &environment).unwrap_err();
    assert!(
        problems.to_string().contains("line 2 holds bytes"),
        "{problems}"
    );
}

/// A wrong file must be refused at once, not after minutes of drawing.
#[test]
fn a_file_full_of_mistakes_shows_the_first_ones() {
    let text: String = (0..20_000).map(|n| format!("k{n} = 1\n")).collect();
    let (_folder, file) = write(&text);
    let problems = load(&file, &environment).unwrap_err();
    let shown = problems.to_string();
    assert!(problems.len() <= 501 && shown.contains("more problems are not shown"));
}

/// Debug output of an error ends in logs too.
#[test]
fn the_debug_form_of_problems_holds_no_text_of_the_file() {
    let (_folder, file) = write("[admin]\ntoken = \"hunter2\"\n");
    let problems = load(&file, &environment).unwrap_err();
    assert!(!format!("{problems:?}").contains("hunter2"));
}

#[test]
fn what_is_not_written_has_its_default() {
    let (folder, file) = write(MINIMAL);
    let config = load(&file, &environment).unwrap();
    let shown = show::resolved(&config);
    let cores = std::thread::available_parallelism().unwrap().get();
    let consumer = &shown["consumer"][0];
    assert_eq!(consumer["group"], "millstream.a");
    assert_eq!(consumer["delivery"], "at-least-once");
    assert_eq!(consumer["ordering"], "partition");
    assert_eq!(consumer["concurrency"], cores);
    assert_eq!(
        consumer["plugin"]["path"],
        folder.path().join("p.wasm").to_str().unwrap()
    );
    assert_eq!(config.consumers[0].start, None);
    assert_eq!(config.consumers[0].filter, filter::Filter::default());
    assert_eq!(&*config.consumers[0].config, "{}");
    assert_eq!(shown["admin"]["listen"], "127.0.0.1:9464");
    assert_eq!(shown["broker"]["durability"], "sync");
}

#[test]
fn references_stand_for_numbers_and_booleans() {
    let text = format!(
        "{MINIMAL}concurrency = \"${{env:MISSING:-3}}\"\nenabled = \"${{env:MISSING:-false}}\"\n\
         retry = {{ factor = \"${{env:MISSING:-1.5}}\" }}\n"
    );
    let (_folder, file) = write(&text);
    let config = load(&file, &environment).unwrap();
    assert_eq!(config.consumers[0].concurrency, 3);
    assert!(!config.consumers[0].enabled);
    assert!((config.consumers[0].retry.factor - 1.5).abs() < f64::EPSILON);
}

#[test]
fn any_toml_reaches_the_plugin_as_json() {
    let text = format!(
        "{MINIMAL}[consumer.config]\nday = 2026-01-31\nlist = [1, 2.5, true, \"$${{x}}\"]\n\
         [consumer.config.nested]\nkey = \"${{env:SET}}\"\n"
    );
    let (_folder, file) = write(&text);
    let config = load(&file, &environment).unwrap();
    let json: Value = serde_json::from_str(&config.consumers[0].config).unwrap();
    let expected = serde_json::json!({
        "day": "2026-01-31",
        "list": [1, 2.5, true, "${x}"],
        "nested": { "key": "a value" },
    });
    assert_eq!(json, expected);
}

#[test]
fn included_files_bring_their_consumers_and_their_folder() {
    let (folder, file) = write(&format!("include = [\"c/*.toml\"]\n{MINIMAL}"));
    let folder = folder.path().join("c");
    std::fs::create_dir(&folder).unwrap();
    for name in ["z", "b"] {
        let text =
            format!("[consumer]\nname = \"{name}\"\nplugin = \"q.wasm\"\ntopics = [\"t\"]\n");
        std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    }
    std::fs::write(folder.join("q.wasm"), b"").unwrap();
    std::fs::write(folder.join(".hidden.toml"), b"not toml").unwrap();
    let config = load(&file, &environment).unwrap();
    let names: Vec<_> = config.consumers.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["a", "b", "z"]);
    assert_eq!(config.consumers[1].plugin.path, folder.join("q.wasm"));
}

/// Kafka's properties, the token and the plugin's own configuration, in every form of output.
#[test]
fn no_secret_is_shown() {
    let text = format!(
        "[broker]\nkind = \"kafka\"\n[broker.properties]\n\"bootstrap.servers\" = \"k:9092\"\n\
         \"sasl.password\" = {{ env = \"SECRET\" }}\n\"client.id\" = {{ file = \"secret\" }}\n\
         [admin]\ntoken = {{ file = \"secret\" }}\n{MINIMAL}config = {{ password = \"hunter2\" }}\n"
    );
    let (folder, file) = write(&text);
    std::fs::write(folder.path().join("secret"), b"hunter2\n").unwrap();
    let config = load(&file, &environment).unwrap();
    let Broker::Kafka(kafka) = &config.broker else {
        panic!("not on Kafka");
    };
    assert_eq!(kafka.properties["sasl.password"].reveal(), "hunter2");
    assert_eq!(config.admin.token.as_ref().unwrap().reveal(), "hunter2");
    let toml = show::resolved_toml(&config).unwrap();
    assert!(toml.contains("k:9092"), "{toml}");
    let mut outputs = vec![toml, format!("{:?}", (&config.broker, &config.admin))];
    outputs.extend(
        super::files(&file, &environment)
            .unwrap()
            .into_iter()
            .map(|(_, text)| text),
    );
    for output in outputs {
        assert!(!output.contains("hunter2"), "{output}");
        assert!(output.contains("***"), "{output}");
    }
}

/// The shipped examples; their plugins need not be built for this.
#[test]
fn every_example_is_valid() {
    let files = files(EXAMPLES);
    assert!(files.len() >= 4);
    for file in files {
        let loaded = load_without_plugins(&file, &environment)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert!(!loaded.config.consumers.is_empty());
    }
}

/// What the guide shows works as it stands.
#[test]
fn every_snippet_of_the_guide_is_valid() {
    let guide = std::fs::read_to_string("../config/README.md").unwrap();
    let snippets: Vec<_> = guide.split("```toml\n").skip(1).collect();
    assert!(snippets.len() >= 5);
    for snippet in snippets {
        let (folder, file) = write(snippet.split("```").next().unwrap());
        for name in ["consumers", "plugins", "secrets"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["plugins/enrich.wasm", "plugins/alerts.wasm"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        for name in ["secrets/kafka", "secrets/api-key"] {
            std::fs::write(folder.path().join(name), b"secret\n").unwrap();
        }
        let included = MINIMAL.replace("[[consumer]]", "[consumer]");
        std::fs::write(folder.path().join("consumers/a.toml"), included).unwrap();
        std::fs::write(folder.path().join("consumers/p.wasm"), b"").unwrap();
        let token = |name: &str| (name == "ADMIN_TOKEN").then(|| "secret".to_owned());
        load(&file, &token).unwrap_or_else(|problems| panic!("{problems}\n{snippet}"));
    }
}

/// What applies can be written down and means the same.
#[test]
fn what_is_shown_reads_back() {
    for file in files(EXAMPLES) {
        let loaded = load_without_plugins(&file, &environment).unwrap();
        let toml = show::resolved_toml(&loaded.config).unwrap();
        let copy = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(copy.path(), &toml).unwrap();
        let again = load_without_plugins(copy.path(), &environment)
            .unwrap_or_else(|problems| panic!("{problems}\n{toml}"));
        let strip = |config: &Config| {
            let text = show::resolved(config).to_string();
            let folder = copy.path().parent().unwrap().display().to_string();
            text.replace(&format!("{folder}/"), "")
        };
        assert_eq!(strip(&again.config), strip(&loaded.config));
    }
}

/// What is off must be shown as off: a dump that leaves it out would turn it on again.
#[test]
fn the_breaker_is_on_unless_it_is_turned_off() {
    let written = |value: &str| {
        let (_folder, file) = write(&format!("{MINIMAL}\ncircuit_breaker = {value}\n"));
        let config = load(&file, &environment).unwrap();
        let shown = show::resolved(&config)["consumer"][0]["circuit_breaker"].clone();
        (config.consumers[0].circuit_breaker, shown)
    };
    assert_eq!(written("false"), (None, false.into()));
    assert_eq!(written("true").0, Some(CircuitBreaker::default()));
    let (breaker, shown) = written("{ probes = 1, window = \"1m\" }");
    let wanted = CircuitBreaker {
        probes: 1,
        window: Duration::from_secs(60),
        ..CircuitBreaker::default()
    };
    assert_eq!(breaker, Some(wanted));
    assert_eq!(
        (&shown["window"], &shown["consecutive"]),
        (&"1m".into(), &3.into())
    );
}

/// `full.toml` shows each key with its default: a default that moves must move there too.
#[test]
fn the_full_example_shows_the_defaults() {
    let full = load_without_plugins(Path::new("../config/full.toml"), &environment).unwrap();
    let (_folder, file) = write(MINIMAL);
    let minimal = load(&file, &environment).unwrap();
    let (full, minimal) = (show::resolved(&full.config), show::resolved(&minimal));
    let (full_consumer, minimal_consumer) = (&full["consumer"][0], &minimal["consumer"][0]);
    for key in [
        "batch",
        "in_flight",
        "commit",
        "limits",
        "retry",
        "circuit_breaker",
        "on_lost_position",
        "capabilities",
    ] {
        assert_eq!(full_consumer[key], minimal_consumer[key], "{key}");
    }
    for key in ["delivery", "ordering", "enabled"] {
        assert_eq!(full_consumer[key], minimal_consumer[key], "{key}");
    }
    assert_eq!(full["admin"], minimal["admin"]);
    for key in [
        "shutdown_timeout",
        "max_instances",
        "max_plugin_memory",
        "plugin_memory",
    ] {
        assert_eq!(full["runtime"][key], minimal["runtime"][key], "{key}");
    }
    for key in ["durability", "min_free_disk", "kind"] {
        assert_eq!(full["broker"][key], minimal["broker"][key], "{key}");
    }
    let text = std::fs::read_to_string("../config/full.toml").unwrap();
    for path in keys_of_schema() {
        let key = path.rsplit('.').next().unwrap();
        assert!(text.contains(key), "full.toml lacks {path}");
    }
}

/// Every key of the schema by its path; tables with free keys count as one level `NAME`.
fn keys_of_schema() -> BTreeSet<String> {
    fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
        match schema["$ref"].as_str() {
            Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }
    fn walk(root: &Value, schema: &Value, path: &str, keys: &mut BTreeSet<String>) {
        if schema["$ref"] == "#/$defs/SecretReference" {
            return;
        }
        let schema = resolve(root, schema);
        for choice in schema["anyOf"].as_array().into_iter().flatten() {
            walk(root, choice, path, keys);
        }
        if schema["items"].is_object() {
            walk(root, &schema["items"], path, keys);
        }
        if schema["additionalProperties"].is_object() {
            walk(
                root,
                &schema["additionalProperties"],
                &format!("{path}.NAME"),
                keys,
            );
        }
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            keys.insert(path.trim_start_matches('.').to_owned());
            walk(root, value, &path, keys);
        }
    }
    let schema = schema::schema();
    let mut keys = BTreeSet::new();
    walk(&schema, &schema, "", &mut keys);
    keys
}

/// A key that the reader knows and the schema does not (or the other way) would be marked as wrong
/// by an editor, or by Millstream.
#[test]
fn the_schema_knows_the_keys_that_are_read() {
    let text = format!(
        "[broker]\nkind = \"kafka\"\nproperties = {{ \"bootstrap.servers\" = \"k:1\" }}\n\
         [topics.t]\npartitions = 1\n{}dead_letter = {{ topic = \"d\" }}\n\
         outputs = {{ o = {{ topic = \"x\" }} }}\n[registries.\"localhost:5000\"]\n",
        MINIMAL.replace("\"p.wasm\"", "{ path = \"p.wasm\" }")
    );
    let (_folder, file) = write(&text);
    let (loaded, read) = examine(&file, &environment);
    assert_eq!(loaded.warnings.errors(), 0, "{}", loaded.warnings);
    assert_eq!(read, keys_of_schema());
}

#[test]
fn the_schema_has_no_null_and_describes_every_key() {
    let schema = schema::schema();
    let text = schema.to_string();
    assert!(!text.contains("\"null\""), "{text}");
    for name in [
        "Runtime", "Broker", "Topic", "Admin", "Consumer", "Limits", "Retry",
    ] {
        let definition = &schema["$defs"][name];
        assert!(definition["description"].is_string(), "{name}");
        assert_eq!(definition["additionalProperties"], false, "{name}");
    }
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (key, value) in definition["properties"].as_object().into_iter().flatten() {
            assert!(value["description"].is_string(), "{name}.{key}: {value}");
        }
    }
    let hops = &schema["$defs"]["Limits"]["properties"]["hops"];
    assert_eq!(
        (&hops["maximum"], &hops["default"]),
        (&1000.into(), &16.into())
    );
    assert!(
        hops["description"]
            .as_str()
            .unwrap()
            .contains("dead-lettered")
    );
}

proptest! {
    /// Whatever a file holds ends in a configuration or in problems that can be shown.
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_folder, file) = write("");
        std::fs::write(&file, &bytes).unwrap();
        let (loaded, _) = examine(&file, &environment);
        let _ = loaded.warnings.render(false);
    }

    /// The same near what is valid, where the checks are reached.
    #[test]
    fn no_edit_of_a_configuration_makes_it_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0usize..20,
        insert in "[\\[\\]{}=\"'$a-z0-9.\nü]{0,6}",
    ) {
        let files = files(BAD);
        let text = std::fs::read_to_string(&files[which.index(files.len())]).unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let start = at.index(characters.len());
        let end = (start + cut).min(characters.len());
        characters.splice(start..end, insert.chars());
        let (_folder, file) = write(&characters.into_iter().collect::<String>());
        let (loaded, _) = examine(&file, &environment);
        let _ = (loaded.warnings.render(false), show::resolved_toml(&loaded.config));
    }

    /// A slip anywhere else in the file, and the secret is still blanked.
    #[test]
    fn no_slip_shows_a_secret(
        before in "[\\[\\]{}=\"'#a-z0-9.\n ]{0,12}",
        after in "[\\[\\]{}=\"'#a-z0-9.\n ]{0,12}",
        secret in prop_oneof![
            Just("token = \"hunter2\""),
            Just("tokn = 'hunter2'"),
            Just("token = { env = \"a hunter2\" }"),
            Just("token = { value = \"hunter2\" }"),
            Just("\"sasl.password\" = \"\"\"x\nhunter2\"\"\""),
            Just("secrets = { a = \"hunter2\", b = [\"x\", 'hunter2'] }"),
            Just("url = \"http://x:hunter2@y/\""),
        ],
    ) {
        let text = format!("[admin]\n{before}\n{secret}\n{after}\n{MINIMAL}");
        let (_folder, file) = write(&text);
        let (loaded, _) = examine(&file, &environment);
        let shown = loaded.warnings.render(false) + &loaded.warnings.to_json().to_string();
        prop_assert!(!shown.contains("hunter2"), "{}", shown);
        if let Ok(files) = super::files(&file, &environment) {
            prop_assert!(!files[0].1.contains("hunter2"), "{}", files[0].1);
        }
    }
}
