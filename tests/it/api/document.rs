//! The description of the API: kept as a file, so that a change of the API is seen as one; and held by a tool that knows nothing else of it.

use std::path::PathBuf;

use serde_json::Value;

use super::Served;
use crate::harness::{process, server};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_description_is_the_one_that_is_kept() {
    let document = serde_json::to_value(backupd::api::document()).unwrap();
    let path = root().join("docs/openapi.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    if std::env::var_os("BACKUPD_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "docs/openapi.json is not what the routes say: run this test with BACKUPD_WRITE_OPENAPI=1");
}

#[test]
fn the_documentation_names_every_route() {
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let document = serde_json::to_value(backupd::api::document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let named = format!("`{} {path}`", method.to_uppercase());
            assert!(text.contains(&named), "docs/api.md does not name {named}");
        }
    }
}

/// With another token and port.
#[test]
fn the_commands_of_the_documentation_work() {
    let served = Served::new(0, "", "");
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let block = text.split("```").nth(1).unwrap();
    let lines: Vec<&str> = block.lines().filter(|line| !line.starts_with("TOKEN=")).collect();
    let script = format!("set -e; TOKEN=admin\n{}", lines.join("\n")).replace("8471", &served.port().to_string());
    let output = process::command("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&super::digest("admin")) && said.contains("\"snapshots\":[]"), "{said}");
}

/// Requests made from the description, right and wrong ones, are answered as it says.
fn schemathesis(examples: u32) {
    let served = Served::new(2, "requests_per_second = 100000", "");
    for cluster in ["c0", "c1"] {
        served.snapshot(cluster, &format!("of-{cluster}"));
    }
    let program = server::servers_dir().join("schemathesis/bin/schemathesis");
    let mut command = process::command(&program);
    command.current_dir(served.fleet.path("")).args([
        "run",
        &format!("http://127.0.0.1:{}/v1/openapi.json", served.port()),
        "--header=Authorization: Bearer admin",
        "--seed=1",
        "--generation-database=none",
        "--suppress-health-check=all",
        "--phases=examples,coverage,fuzzing",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        // it would wait for a job that has not ended
        "--exclude-path=/v1/jobs/{job}/events",
        &format!("--max-examples={examples}"),
    ]);
    let output =
        command.output().unwrap_or_else(|error| panic!("{}: {error}: tests/setup.sh tests", program.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let alive: Value = served.get("/v1/whoami");
    assert_eq!(alive["role"], "admin");
}

#[test]
fn requests_made_from_the_description_are_answered_as_it_says() {
    schemathesis(10);
}

/// `cargo test -p backupd --test it api::document -- --ignored`
#[test]
#[ignore = "some minutes: the full form of the test above"]
fn many_requests_made_from_the_description_are_answered_as_it_says() {
    schemathesis(500);
}
