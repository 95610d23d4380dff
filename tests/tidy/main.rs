//! Style as a test: what can be checked, so that nobody has to remember it. Needs no daemon; the check of commands needs the binaries.
//! Reading order: `source` (files, and Rust without its comments and strings), `edges` (who may name whom), `code` (headers, sizes,
//! leftovers), `status` (promises and tests that cite them), `pages` (links, commands, packaging, ADRs).
#![allow(missing_docs)] // tests; their names say what they hold
#![allow(clippy::expect_used, clippy::panic)] // a repository that cannot be read is a failed test

mod code;
mod edges;
mod pages;
mod source;
mod status;

/// Fails with all findings, one a line.
#[track_caller]
fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
