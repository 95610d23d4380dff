//! Worker and supervisor alone, for this crate's tests and for programs that want the HSM layer without the
//! daemon. The daemon itself uses its own hidden subcommands.

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("hsm-worker") => strongroom_hsm::worker::main(),
        Some("hsm-supervisor") => strongroom_hsm::supervisor::main(),
        _ => std::process::exit(64),
    }
}
