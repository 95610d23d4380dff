//! The demo: the main job on real parts (SoftHSM, PostgreSQL, the daemon and its command line), told step by step, each step checked.
//! Reading order: this file (what is told and in which order), `stage` (what it is played on), `vault`, `database`, `evidence` (the steps).

mod database;
mod evidence;
mod stage;
mod vault;

use stage::Stage;
use std::{error::Error, fmt, time::Instant};

/// What a step comes to.
pub type Shown<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Plays all of it. Everything that was started is stopped and removed when this ends, however it ends.
/// # Errors
/// The first thing that was not as it must be.
pub async fn run() -> Shown {
    let began = Instant::now();
    say(format_args!(
        "Strongroom, its main job end to end. Lines with `$` are what an operator types; `ok` is what was checked.\n"
    ));
    let mut stage = Stage::set()?;
    if let Err(error) = play(&mut stage).await {
        stage.tell_log();
        return Err(error);
    }
    stage.strike()?;
    say(format_args!(
        "\nEvery step held, in {} s. Nothing is left running.",
        began.elapsed().as_secs()
    ));
    Ok(())
}

async fn play(stage: &mut Stage) -> Shown {
    vault::init(stage)?;
    vault::unseal(stage)?;
    let app = vault::secrets(stage).await?;
    database::mount(stage)?;
    let lease = database::issue(stage, &app).await?;
    database::expire(stage, lease).await?;
    database::rotate(stage, &app).await?;
    evidence::crash(stage).await?;
    evidence::verify(stage)
}

/// One line for whoever watches.
#[allow(clippy::print_stdout)] // a demo speaks
pub fn say(line: fmt::Arguments<'_>) {
    println!("{line}");
}

/// A numbered heading, and why this is shown.
fn step(number: u32, title: &str, why: &str) {
    say(format_args!("\n{number:2}. {title}\n    {why}"));
}

/// What must hold now: said when it does, an error when it does not.
fn check(holds: bool, what: impl fmt::Display) -> Shown {
    if !holds {
        return Err(format!("this does not hold: {what}").into());
    }
    say(format_args!("    ok  {what}"));
    Ok(())
}
