//! The house rules that no lint can check. Each rule has a test that runs it on a snippet that breaks it.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a tree that cannot be read fails the test")]

mod code;
mod docs;
mod manifests;
mod source;

use source::{Finding, Source, tree};

fn check(rule: impl Fn(&Source) -> Vec<Finding>) {
    verdict(tree().iter().flat_map(rule).collect());
}

fn verdict(findings: Vec<Finding>) {
    let lines: Vec<String> =
        findings.iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.what)).collect();
    assert!(lines.is_empty(), "{} broken\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn unsafe_code_lives_in_its_files() {
    check(code::unsafe_outside);
}

#[test]
fn every_crate_root_bans_unsafe_code() {
    verdict(code::roots_without_ban(&tree()));
}

#[test]
fn shards_share_nothing() {
    check(code::shared_in_shard);
}

#[test]
fn files_stay_below_the_ceiling() {
    check(code::too_long);
}

#[test]
fn no_drawer_modules() {
    check(code::drawer);
}

#[test]
fn no_leftovers() {
    check(code::leftovers);
}

#[test]
fn no_commented_out_code() {
    check(code::commented_out);
}

#[test]
fn the_demo_alone_calls_the_gateway() {
    check(code::gateway_callers);
}

#[test]
fn dependencies_point_one_way() {
    check(manifests::direction);
}

#[test]
fn packages_are_private_and_linked_by_path() {
    check(manifests::linking);
}

#[test]
fn crates_come_from_the_public_registry() {
    check(manifests::origins);
}

#[test]
fn config_fields_are_the_manual() {
    verdict(docs::config_fields(&tree()));
}

#[test]
fn every_metric_is_documented() {
    verdict(docs::metrics(&tree()));
}

#[test]
fn every_reason_is_explained() {
    verdict(docs::reasons(&tree()));
}

#[test]
fn every_fuzz_target_is_documented() {
    verdict(docs::fuzz_targets(&tree()));
}

#[test]
fn the_repository_speaks_of_the_project_alone() {
    check(docs::foreign_words);
}

#[test]
fn links_lead_somewhere() {
    verdict(docs::links(&tree()));
}
