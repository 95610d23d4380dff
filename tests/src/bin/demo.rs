//! `make demo`: the main job, end to end, on real parts; see `strongroom_tests::demo`. Exit code 0 only when every step held.

use std::process::ExitCode;
use strongroom_tests::demo;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let shown = runtime.block_on(async {
        tokio::select! {
            shown = demo::run() => shown,
            // Dropping the show stops and removes all that it started.
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    demo::say(format_args!("\nThe demo failed: {error}"));
    ExitCode::FAILURE
}
