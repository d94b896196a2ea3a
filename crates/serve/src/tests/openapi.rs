//! `openapi.json` is assembled from the parts of all endpoints and compared with the routes, parameters, problems,
//! schemas and examples of the server.

use super::fake::Mood;
use super::{Bench, errors};
use crate::endpoints::{AD_ID_MAX, ENDPOINTS};
use crate::parameters::USER_ID_BYTES_MAX;
use crate::problem::ProblemKind;
use adtally_engine::status::Readiness;
use adtally_model::Country;
use adtally_store::questions::MINUTES_MAX;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use strum::{EnumMessage, EnumProperty, VariantArray};

fn description() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).unwrap()
}

/// The shared section, which precedes the parts of endpoints and begins with the head of the document.
const SHARED: &str = include_str!("../endpoints/shared.json");

/// The description of problems, which follows the parts of endpoints.
const PROBLEM: &str = include_str!("../problem.json");

/// The sections of the document, in order.
const SECTIONS: [&str; 5] = ["paths", "parameters", "schemas", "responses", "examples"];

/// If set, the test overwrites the committed `openapi.json`.
const OVERWRITE: &str = "OPENAPI_OVERWRITE";

/// The entries of each section of a part, verbatim. Parts are indented like the whole document.
fn entries(part: &'static str) -> BTreeMap<&'static str, Vec<String>> {
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut section = "";
    for line in part.lines() {
        let entry_indent = if section == "paths" { 4 } else { 6 };
        match (line.len() - line.trim_start().len(), line.trim().strip_suffix("\": {")) {
            (2 | 4, Some(name)) if SECTIONS.contains(&&name[1..]) => section = &name[1..],
            (indent, _) if section.is_empty() || indent < entry_indent => {}
            (indent, _) => {
                let entries = sections.entry(section).or_default();
                if indent == entry_indent && line.trim_start().starts_with('"') {
                    entries.push(String::new());
                }
                let entry = entries.last_mut().unwrap();
                writeln!(entry, "{line}").unwrap();
            }
        }
    }
    for entry in sections.values_mut().flatten() {
        entry.truncate(entry.trim_end_matches([',', '\n']).len());
    }
    sections
}

/// The examples of problems: the answers in the tests of errors.
fn examples() -> Vec<String> {
    let documents = errors::documents();
    let mut examples = Vec::new();
    for kind in ProblemKind::VARIANTS {
        let document = &documents.iter().find(|(found, _)| found == kind).expect("a kind of problem is never tested").1;
        let fields = ["type", "title", "status", "detail", "instance", "parameter"].into_iter();
        let fields = fields.filter(|name| !document[name].is_null());
        let fields: Vec<_> = fields.map(|name| format!("          \"{name}\": {}", document[name])).collect();
        let name = kind.uri().replace("/problems#", "");
        let (summary, fields) = (&document["title"], fields.join(",\n"));
        examples.push(format!(
            "      \"{name}\": {{\n        \"summary\": {summary},\n        \"value\": {{\n{fields}\n        }}\n      }}"
        ));
    }
    examples
}

/// The document, assembled from its parts.
fn assembled() -> String {
    let parts = [SHARED].into_iter().chain(ENDPOINTS.iter().map(|endpoint| endpoint.openapi)).chain([PROBLEM]);
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::from([("examples", examples())]);
    for (section, entries) in parts.flat_map(entries) {
        sections.entry(section).or_default().extend(entries);
    }
    let [paths, components @ ..] = SECTIONS.map(|section| sections[section].join(",\n"));
    let components: Vec<_> = SECTIONS[1..]
        .iter()
        .zip(components)
        .map(|(name, text)| format!("    \"{name}\": {{\n{text}\n    }}"))
        .collect();
    let head = SHARED.split_once("  \"components\"").unwrap().0;
    format!("{head}  \"paths\": {{\n{paths}\n  }},\n  \"components\": {{\n{}\n  }}\n}}\n", components.join(",\n"))
}

#[test]
fn the_committed_description_is_that_of_its_parts() {
    let (path, assembled) = (concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json"), assembled());
    if std::env::var_os(OVERWRITE).is_some() {
        std::fs::write(path, &assembled).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    for (line, (committed, assembled)) in committed.lines().zip(assembled.lines()).enumerate() {
        assert_eq!(committed, assembled, "line {} of openapi.json; {OVERWRITE}=1 writes it anew", line + 1);
    }
    assert_eq!(committed.len(), assembled.len(), "the end of openapi.json; {OVERWRITE}=1 writes it anew");
}

/// Follows a reference, if the value is one.
fn resolve<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => description.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

fn operation<'a>(description: &'a Value, path: &str) -> &'a Value {
    &description["paths"][path]["get"]
}

#[test]
fn routes_and_parameters_are_those_of_the_code() {
    let description = description();
    let paths: Vec<_> = description["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(paths.len(), ENDPOINTS.len());
    for endpoint in ENDPOINTS {
        let path = endpoint.path;
        let methods: Vec<_> = description["paths"][path].as_object().unwrap().keys().collect();
        assert_eq!(methods, ["get"], "{path}");
        let parameters = operation(&description, path)["parameters"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> =
            parameters.iter().map(|parameter| resolve(&description, parameter)["name"].as_str().unwrap()).collect();
        let in_path = path.split(['{', '}']).skip(1).step_by(2);
        let expected: Vec<_> = in_path.chain(endpoint.parameters.iter().copied()).collect();
        assert_eq!(names, expected, "{path}");
    }
}

#[test]
fn bounds_are_those_of_the_code() {
    let description = description();
    let check = |name: &str, expected: Value| {
        assert_eq!(description["components"]["parameters"][name]["schema"], expected, "{name}");
    };
    check("ad_id", json!({"type": "integer", "minimum": 0, "maximum": AD_ID_MAX}));
    check("minutes", json!({"type": "integer", "minimum": 1, "maximum": MINUTES_MAX}));
    check("filter_user_id", json!({"type": "string", "minLength": 1, "maxLength": USER_ID_BYTES_MAX}));
    check("filter_country", json!({"type": "string", "pattern": "^[A-Za-z]{2}$"}));
    check("include_open", json!({"type": "string", "enum": ["true", "false"], "default": "false"}));
    check("series", json!({"type": "string", "enum": ["true", "false"], "default": "false"}));
    let inputs = &description["components"]["schemas"]["Ledger"]["properties"]["inputs"];
    assert_eq!(inputs["maxItems"], json!(adtally_engine::status::LEDGER_INPUTS_MAX));
    assert!(Country::all().all(|country| country.as_str().len() == 2));
}

#[test]
fn problems_are_those_of_the_code() {
    let description = description();
    let examples = description["components"]["examples"].as_object().unwrap();
    let documents = errors::documents();
    assert_eq!(documents.len(), ProblemKind::VARIANTS.len(), "a kind of problem is never tested");
    for kind in ProblemKind::VARIANTS {
        assert!(kind.get_int("status").is_some_and(|status| status >= 400), "{kind:?} has no status");
        assert!(kind.get_message().is_some(), "{kind:?} has no title");
    }
    assert_eq!(examples.len(), documents.len());
    let schema = &description["components"]["schemas"]["Problem"];
    for (kind, document) in &documents {
        let name = kind.uri().replace("/problems#", "");
        assert_eq!(examples[&name]["value"], *document, "the example {name} should be {document}");
        conforms(&description, schema, document, &name);
    }
    for endpoint in ENDPOINTS {
        for (status, response) in operation(&description, endpoint.path)["responses"].as_object().unwrap() {
            let examples = &resolve(&description, response)["content"]["application/problem+json"]["examples"];
            for example in examples.as_object().into_iter().flat_map(|examples| examples.values()) {
                let document = &resolve(&description, example)["value"];
                assert_eq!(document["status"].to_string(), *status, "{} {document}", endpoint.path);
            }
        }
    }
}

#[test]
fn examples_are_what_the_server_answers() {
    let description = description();
    let bench = Bench::new();
    let check = |uri: &str, path: &str, status: &str, example: &str| {
        let answer: Value = serde_json::from_str(&bench.get(uri).body).unwrap();
        let response = resolve(&description, &operation(&description, path)["responses"][status]);
        let content = &response["content"]["application/json"];
        if !example.is_empty() {
            assert_eq!(content["examples"][example]["value"], answer, "the example {example} of {path}");
        }
        conforms(&description, &content["schema"], &answer, path);
    };
    let ad = "/ads/{ad_id}/clicks";
    check("/ads/42/clicks?minutes=2", ad, "200", "plain");
    check("/ads/42/clicks?minutes=2&series=true", ad, "200", "series");
    check("/ads/42/clicks?minutes=2&filter_ip=::1&filter_country=ZZ&filter_user_id=u", ad, "200", "");
    check("/ads/top100?minutes=2&filter_country=us", "/ads/top100", "200", "filtered");
    check("/ads/top100?minutes=2", "/ads/top100", "200", "");
    check("/ledger", "/ledger", "200", "one");
    check("/readyz", "/readyz", "200", "ready");
    check("/problems", "/problems", "200", "");
    check("/", "/", "200", "");
    bench.store.is(Mood::Empty);
    check("/ads/42/clicks?minutes=2", ad, "200", "empty");
    bench.process.report.lock().unwrap().inputs_left_off = 1;
    check("/ledger", "/ledger", "200", "");
    *bench.process.readiness.lock().unwrap() =
        Readiness { problems: vec!["the disk is full: free some space on /data".into()], notes: Vec::new() };
    check("/readyz", "/readyz", "503", "unready");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(serde_json::from_str::<Value>(&bench.get("/openapi.json").body).unwrap(), description);
}

/// Checks a value against a schema of the description.
fn conforms(description: &Value, schema: &Value, value: &Value, at: &str) {
    // References point to the description's components.
    let schema = json!({ "allOf": [schema], "components": description["components"] });
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let wrong: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{at}: {wrong:?}");
}

/// Undescribed fields must not occur in answers; tests would not detect them if objects were open.
#[test]
fn every_object_is_closed() {
    fn check(schema: &Value, at: &str) {
        if schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], json!(false), "{at}");
        }
        for (name, inner) in schema.as_object().into_iter().flatten() {
            check(inner, &format!("{at}.{name}"));
        }
    }
    check(&description()["components"]["schemas"], "schemas");
}
