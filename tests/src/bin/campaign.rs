//! `campaign [--short] [--seed N] [--minutes N] kill|power|flip|rotate|soak|all`: see `strongroom_tests::campaign`. Minutes are for `soak`. Exit
//! code 1 when an invariant broke or a control stayed green. The other words it knows are the processes that it starts itself.

use std::{path::Path, process::ExitCode};
use strongroom_tests::campaign::{Plan, Scale, Tried, dice, flip, kill, power, report::say, rotate, soak};

const USAGE: &str = "usage: campaign [--short] [--seed N] [--minutes N] kill|power|flip|rotate|soak|all";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("campaign: {error}"));
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> Tried<bool> {
    match args {
        ["disk", mount, template, flags @ ..] => {
            power::device::serve(Path::new(mount), Path::new(template), flags.contains(&"--ignore-flush"))
                .map(|()| true)
        }
        ["power-load", kind, engine, dir, seed] => {
            let load = power::load::Load::parse(kind, engine)?;
            wait(power::load::run(load, Path::new(dir), seed.parse()?))?.map(|()| true)
        }
        ["power-check", kind, engine, dir, acks] => {
            let load = power::load::Load::parse(kind, engine)?;
            wait(power::check(load, Path::new(dir), &power::Acks::parse(acks)?)).map(|()| true)
        }
        ["flip-trials", dir, saved, work, flags @ ..] => {
            let bare = flags.contains(&"--bare");
            wait(flip::trials(Path::new(dir), Path::new(saved), Path::new(work), bare))?.map(|()| true)
        }
        _ => suites(args),
    }
}

fn wait<F: Future>(work: F) -> Tried<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}

fn suites(args: &[&str]) -> Tried<bool> {
    let (mut plan, mut wanted) = (
        Plan {
            scale: Scale::Whole,
            seed: dice::any_seed(),
            minutes: None,
        },
        Vec::new(),
    );
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--short" => plan.scale = Scale::Short,
            "--seed" => plan.seed = args.next().ok_or(USAGE)?.parse()?,
            "--minutes" => plan.minutes = Some(args.next().ok_or(USAGE)?.parse()?),
            "all" => wanted.extend(["power", "flip", "kill", "rotate", "soak"]),
            suite => wanted.push(suite),
        }
    }
    if wanted.is_empty() {
        return Err(USAGE.into());
    }
    let mut held = true;
    for suite in wanted {
        held &= match suite {
            "power" => power::run(plan)?,
            "flip" => flip::run(plan)?,
            "kill" => wait(kill::run(plan))??,
            "rotate" => wait(rotate::run(plan))??,
            "soak" => wait(soak::run(plan))??,
            _ => return Err(USAGE.into()),
        };
    }
    Ok(held)
}
