//! A plugin's author: a new project, its cases, and builds at each save.

use std::fs;

use anyhow::{Context, Result, ensure};
use millstream_test_support::process::{Finished, Running};
use millstream_test_support::wait::eventually;
use millstream_test_support::workspace;
use millstream_whole_tests::project::{PATIENCE, Project};
use millstream_whole_tests::setting;
use serde_json::Value;

fn code(finished: &Finished, code: i32) -> Result<&str> {
    ensure!(finished.status.code() == Some(code), "{finished:#?}");
    Ok(&finished.stdout)
}

/// The JSON report of cases.
fn report(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:#?}"))
}

/// What is wrong with a new project would be the first thing that its author sees.
#[test]
fn a_new_project_builds_and_passes_at_once() -> Result<()> {
    let project = Project::new("first-plugin")?;
    let finished = project.test(&[])?;
    let printed = code(&finished, 0)?;
    ensure!(printed.contains("2 cases: 2 passed"), "{printed}");

    let tests = std::process::Command::new(std::env::var_os("CARGO").context("no CARGO")?)
        .args(["test", "--quiet", "--offline"])
        .env("CARGO_TARGET_DIR", workspace::target_dir().join("projects"))
        .current_dir(project.path(""))
        .output()?;
    let words = String::from_utf8_lossy(&tests.stdout).into_owned();
    ensure!(
        tests.status.success() && words.contains("1 passed"),
        "{tests:?}"
    );

    // Its configuration is one, and names the component that a plain build makes.
    let config = project.path("millstream.toml").display().to_string();
    let built = workspace::target_dir().join("projects/wasm32-wasip2/release/first_plugin.wasm");
    let named = project.path("target/wasm32-wasip2/release/first_plugin.wasm");
    fs::create_dir_all(named.parent().context("no folder")?)?;
    fs::copy(built, &named)?;
    let valid = project.site.succeed(&["validate", &config])?;
    ensure!(valid.contains("1 consumer (first-plugin)"), "{valid}");
    Ok(())
}

#[test]
fn what_is_there_is_not_overwritten_and_bad_names_are_refused() -> Result<()> {
    let project = Project::new("second-plugin")?;
    project.write("src/lib.rs", "mine")?;
    let again = setting::fail(&project.site, 1, &["new", "second-plugin"])?;
    ensure!(again.stderr.contains("not empty"), "{}", again.stderr);
    ensure!(project.read("src/lib.rs")? == "mine");
    for (name, reason) in [("Orders", "holds 'O'"), ("match", "a word of the language")] {
        let refused = setting::fail(&project.site, 2, &["new", name])?;
        ensure!(refused.stderr.contains(reason), "{}", refused.stderr);
        ensure!(!project.site.path().join(name).exists());
    }
    setting::fail(&project.site, 2, &["new", "other", "--language", "cobol"])?;
    setting::fail(&project.site, 2, &["new", "other", "--sdk", "."])?;
    let made = project.site.succeed(&["new", "other", "--json"])?;
    let made: Value = serde_json::from_str(&made)?;
    let sdk = workspace::root().join("plugins/sdk/rust");
    ensure!(made["sdk"] == sdk.display().to_string(), "{made}");
    Ok(())
}

/// From a case that fails to one that was updated, without a broker.
#[test]
fn cases_say_what_differs_and_are_updated() -> Result<()> {
    let project = Project::new("third-plugin")?;
    code(&project.test(&[])?, 0)?;
    let original = project.read("cases/large-order.json")?;
    project.replace(
        "cases/large-order.json",
        "\"points\": 250",
        "\"points\": 100",
    )?;
    project.replace(
        "cases/no-order.json",
        "\"code\": \"decode\"",
        "\"code\": \"bad\"",
    )?;

    let failed = project.test(&["--no-build"])?;
    let printed = code(&failed, 1)?;
    for line in ["-         \"points\": 100,", "+         \"points\": 250,"] {
        ensure!(printed.contains(line), "no {line:?} in\n{printed}");
    }
    ensure!(printed.contains("event 1 of 2, input/0@0"), "{printed}");
    ensure!(
        !printed.contains('\x1b'),
        "colours where nobody looks:\n{printed}"
    );

    let failed = project.test(&["--no-build", "--json", "--only", "no-order"])?;
    code(&failed, 1)?;
    let json = report(&failed)?;
    ensure!(
        json["cases"]
            .as_array()
            .is_some_and(|cases| cases.len() == 1),
        "{json}"
    );
    let difference = &json["cases"][0]["differences"][0];
    ensure!(difference["expected"]["code"] == "bad", "{json}");
    ensure!(difference["actual"]["code"] == "decode", "{json}");
    ensure!(
        difference["reason"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{json}"
    );

    let updated = project.test(&["--no-build", "--update"])?;
    ensure!(
        code(&updated, 0)?.contains("2 updated"),
        "{}",
        updated.stdout
    );
    let text = project.read("cases/large-order.json")?;
    let input = |text: &str| text.split("\"expected\"").next().map(str::to_owned);
    ensure!(
        input(&text) == input(&original),
        "the input was touched:\n{text}"
    );
    let again = project.test(&["--no-build"])?;
    ensure!(code(&again, 0)?.contains("2 passed"), "{}", again.stdout);
    Ok(())
}

/// An answer that depends on what came before is lost at the next restart.
#[test]
fn a_plugin_that_counts_in_its_memory_is_found_out() -> Result<()> {
    let project = Project::new("counting-plugin")?;
    project.write(
        "src/lib.rs",
        "use millstream_plugin::prelude::*;\n\
         struct Counting(u32);\n\
         impl Consumer for Counting {\n\
             type Settings = Value;\n\
             fn init(_: Value, _: &Setup) -> Result<Self> { Ok(Self(0)) }\n\
             fn handle(&mut self, _: Event<'_>, out: &mut Outbox) -> Result {\n\
                 self.0 += 1;\n\
                 out.text(&self.0.to_string())\n\
             }\n\
         }\n\
         #[derive(Deserialize)]\n\
         struct Value {}\n\
         export!(Counting);\n",
    )?;
    fs::remove_dir_all(project.path("cases"))?;
    let none = project.test(&[])?;
    code(&none, 1)?;
    ensure!(
        none.stderr.contains("there are no cases"),
        "{}",
        none.stderr
    );
    let case = r#"{"input": [{"value": "a"}, {"value": "b"}], "expected": null}"#;
    project.write("cases/count.json", case)?;
    let failed = project.test(&["--no-build", "--update"])?;
    let printed = code(&failed, 1)?;
    ensure!(printed.contains("with a fresh instance each"), "{printed}");
    ensure!(
        printed.contains("+ ") && printed.contains("\"value\": \"1\""),
        "{printed}"
    );
    ensure!(
        project.read("cases/count.json")? == case,
        "it was updated all the same"
    );
    Ok(())
}

/// Each mistake has an exit code that scripts know, and words for a person.
#[test]
fn mistakes_are_told_apart() -> Result<()> {
    let project = Project::new("broken-plugin")?;
    code(&project.test(&[])?, 0)?;
    project.write("cases/typo.json", "{\"input\": [{\"vaule\": 1}]}")?;
    let broken = project.test(&["--no-build"])?;
    let printed = code(&broken, 1)?;
    ensure!(printed.contains("input 1: it has neither"), "{printed}");
    ensure!(
        printed.contains("2 passed, 1 failed"),
        "others were not run:\n{printed}"
    );
    fs::remove_file(project.path("cases/typo.json"))?;

    let refused = r#"{"config": {"at_most": 1}, "input": [{"value": "a"}]}"#;
    project.write("cases/refused.json", refused)?;
    let broken = project.test(&["--no-build"])?;
    let printed = code(&broken, 1)?;
    ensure!(printed.contains("refuses its configuration"), "{printed}");
    fs::remove_file(project.path("cases/refused.json"))?;

    project.replace("millstream.toml", "at_least", "at_leest")?;
    ensure!(code(&project.test(&["--no-build"])?, 1)?.contains("at_leest"));
    project.replace("millstream.toml", "[broker]", "[broken]")?;
    let configuration = project.test(&["--no-build"])?;
    code(&configuration, 78)?;
    ensure!(
        configuration.stderr.contains("millstream.toml:3:"),
        "{configuration:?}"
    );
    fs::remove_file(project.path("millstream.toml"))?;

    project.replace("src/lib.rs", "Ok(()); // no output", "Ok(1); // no output")?;
    let wrong = project.test(&[])?;
    code(&wrong, 1)?;
    ensure!(wrong.stderr.contains("src/lib.rs:") && wrong.stderr.contains("does not compile"));
    ensure!(
        wrong.stderr.contains("error[E0308]"),
        "cargo's own words: {}",
        wrong.stderr
    );

    let nothing = project.site.command(&["test", "."])?;
    code(&nothing, 2)?;
    ensure!(
        nothing.stderr.contains("millstream new"),
        "{}",
        nothing.stderr
    );
    let cases = project.path("cases").display().to_string();
    let no_plugin = project.path("src/lib.rs").display().to_string();
    let finished = project.test(&["--component", &no_plugin, "--cases", &cases])?;
    code(&finished, 1)?;
    ensure!(
        finished.stderr.contains("is not WebAssembly"),
        "{}",
        finished.stderr
    );
    Ok(())
}

/// A dead letter of production becomes a case as it is printed.
#[test]
fn a_case_of_a_dead_letter_runs_as_it_is() -> Result<()> {
    let project = Project::new("mended-plugin")?;
    code(&project.test(&[])?, 0)?;
    let component =
        workspace::target_dir().join("projects/wasm32-wasip2/release/mended_plugin.wasm");
    let site = &project.site;
    site.configure(&format!(
        "{}\n[[consumer]]\nname = \"mended-plugin\"\nplugin = {:?}\ntopics = [\"orders\"]\n\
         start = \"beginning\"\nconfig = {{ at_least = 1.0 }}\noutputs = {{ default = \"large\" }}\n\
         dead_letter = {{ topic = \"dlq\" }}\n",
        setting::head(site),
        component.display().to_string()
    ))?;
    setting::produce(site, "orders", "a\tno order\n", &["--partition", "0"])?;
    setting::until_idle(site)?;
    let case = site.succeed(&["dlq", "show", "mended-plugin", "orders/0@0", "--as-case"])?;
    project.write("cases/from-production.json", &case)?;

    let open = project.test(&["--no-build"])?;
    let printed = code(&open, 1)?;
    for words in [
        "orders/0@0",
        "nobody has said",
        "\"failed\": \"reject\", \"code\": \"decode\"",
    ] {
        ensure!(printed.contains(words), "no {words:?} in\n{printed}");
    }
    ensure!(code(&project.test(&["--no-build", "--update"])?, 0)?.contains("1 updated"));
    let written: Value = serde_json::from_str(&project.read("cases/from-production.json")?)?;
    ensure!(written["expected"][0]["code"] == "decode", "{written}");
    ensure!(
        written["failed"]["reason"] == "rejected",
        "where it came from is kept: {written}"
    );
    code(&project.test(&["--no-build"])?, 0).map(drop)
}

/// Waits for what may show for a moment only: it is not looked for a second time.
fn until(running: &mut Running, what: &str, seen: impl Fn(&Running) -> bool) -> Result<()> {
    let mut found = false;
    let waited = eventually(what, PATIENCE, || {
        found = seen(running);
        found || !running.running()
    });
    let shown = || format!("{}\n{}", running.logs(), running.stdout());
    waited.with_context(shown)?;
    ensure!(found, "it ended before {what}:\n{}", shown());
    Ok(())
}

/// How often a text was printed.
fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

/// Processes that have a text in their command line.
fn processes(of: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").into_iter().flatten().flatten();
    lines
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(of))
        .collect()
}

#[test]
fn each_save_is_built_and_its_cases_are_run() -> Result<()> {
    let project = Project::new("saved-plugin")?;
    let mut dev = project.site.launch(&["dev", "saved-plugin"])?;
    until(&mut dev, "the first build", |dev| {
        dev.stdout().contains("2 cases: 2 passed")
    })?;
    until(&mut dev, "watching", |dev| dev.logs().contains("watching"))?;

    project.replace("src/lib.rs", "order.total / 10.0", "order.total / 100.0")?;
    until(&mut dev, "a difference", |dev| {
        dev.stdout().contains("+         \"points\": 25")
    })?;

    project.replace("src/lib.rs", "order.total / 100.0", "order.totel / 10.0")?;
    until(&mut dev, "a compile error", |dev| {
        dev.logs().contains("the last build that did goes on")
    })?;
    ensure!(
        dev.logs().contains("error[E0609]"),
        "not cargo's words:\n{}",
        dev.logs()
    );

    project.replace("src/lib.rs", "order.totel / 10.0", "order.total / 10.0")?;
    until(&mut dev, "the mended build", |dev| {
        count(&dev.stdout(), "2 cases: 2 passed") == 2
    })?;
    project.replace("cases/no-order.json", "what is no order", "anything else")?;
    until(&mut dev, "the saved case", |dev| {
        dev.stdout().contains("anything else")
    })?;
    ensure!(dev.logs().contains("the same component"), "{}", dev.logs());

    // In the middle of a build.
    until(&mut dev, "watching", |dev| {
        count(&dev.logs(), "watching") == 5
    })?;
    project.replace("src/lib.rs", "order.total / 10.0", "order.total / 20.0")?;
    let building = |_: &Running| {
        processes("saved_plugin")
            .iter()
            .any(|line| line.contains("rustc"))
    };
    until(&mut dev, "the compiler", building)?;
    dev.interrupt()?;
    let status = dev.wait(PATIENCE)?;
    ensure!(status.code() == Some(130), "{status}: {}", dev.logs());
    let left = || processes("saved_plugin");
    eventually("no process is left", PATIENCE, || left().is_empty())
        .with_context(|| format!("{:?}", left()))
}

#[test]
fn with_a_configuration_the_runtime_runs_what_was_built() -> Result<()> {
    let project = Project::new("running-plugin")?;
    let admin = format!("\n[admin]\nlisten = \"{}\"\n", project.site.admin());
    let config = format!("{}{admin}", project.read("millstream.toml")?);
    project.write("millstream.toml", &config)?;
    let config = "running-plugin/millstream.toml";
    let mut dev = project
        .site
        .launch(&["dev", "running-plugin", "--config", config])?;
    dev.until_ready(PATIENCE)?;
    until(&mut dev, "watching", |dev| dev.logs().contains("watching"))?;

    let produce = |id: &str| -> Result<()> {
        let order = format!("{{\"id\":\"{id}\",\"total\":2500}}\n");
        let file = project
            .site
            .write("orders.txt", format!("{order}no order\n").as_bytes())?;
        let file = file.display().to_string();
        project
            .site
            .succeed(&["produce", "orders", "--file", &file, "--config", config])?;
        Ok(())
    };
    produce("first")?;
    until(&mut dev, "the derived event", |dev| {
        dev.stdout()
            .contains(r#"first  {"id":"first","total":2500.0,"points":250}"#)
    })?;
    until(&mut dev, "the dead letter", |dev| {
        dev.stdout().contains("(rejected: decode: ")
    })?;

    project.replace("src/lib.rs", "order.total / 10.0", "order.total / 100.0")?;
    until(&mut dev, "the deploy", |dev| {
        dev.logs().contains("deployed")
    })?;
    produce("second")?;
    until(&mut dev, "the new version's event", |dev| {
        dev.stdout()
            .contains(r#"second  {"id":"second","total":2500.0,"points":25}"#)
    })?;
    dev.interrupt()?;
    let status = dev.wait(PATIENCE)?;
    ensure!(status.code() == Some(130), "{status}: {}", dev.logs());
    // It drained: who starts next finds nothing unsettled.
    let lag = project
        .site
        .succeed(&["lag", "--json", "--config", config])?;
    let lag: Value = serde_json::from_str(&lag)?;
    let behind = lag
        .as_array()
        .context("no list")?
        .iter()
        .any(|row| row["lag"] != 0);
    ensure!(!behind, "{lag}");
    Ok(())
}
