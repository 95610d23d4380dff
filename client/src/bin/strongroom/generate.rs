//! `strongroom completion` and `strongroom man`: made from the grammar, so they cannot be out of date.

use crate::{cli::Cli, failure::Failure, output::Answer};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;
use std::path::PathBuf;

/// A completion script.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom completion bash > /etc/bash_completion.d/strongroom
  strongroom completion zsh > ~/.zfunc/_strongroom
  strongroom completion fish > ~/.config/fish/completions/strongroom.fish")]
pub struct Completion {
    /// Which shell
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Result<Answer, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "strongroom", &mut script);
        Ok(Answer::raw(script))
    }
}

/// The manual.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strongroom man > strongroom.1
  strongroom man --dir /usr/local/share/man/man1")]
pub struct Man {
    /// Write one page for each command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub fn run(self) -> Result<Answer, Failure> {
        let Some(dir) = self.dir else {
            let mut page = Vec::new();
            let made = clap_mangen::Man::new(Cli::command()).render(&mut page);
            return made
                .map(|()| Answer::raw(page))
                .map_err(|e| Failure::other(format!("cannot make the page: {e}"), "report this"));
        };
        std::fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
            .map_err(|e| {
                Failure::other(
                    format!("cannot write to {}: {e}", dir.display()),
                    "check the directory's owner and mode",
                )
            })?;
        Ok(Answer::said(
            json!({"dir": dir}),
            format!("manual pages are in {}", dir.display()),
        ))
    }
}
