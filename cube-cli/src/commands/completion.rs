//! `cube completion`: what a shell runs once, to ask `cube` from then on what may come next.

use clap::{Args as ClapArgs, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::complete;
use crate::error::{CliError, Result};
use crate::output::print;

/// The words of `cube completion`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "In the shell's start file:
  bash   source <(cube completion bash)        in ~/.bashrc
  zsh    source <(cube completion zsh)         in ~/.zshrc, after compinit
  fish   cube completion fish | source         in ~/.config/fish/config.fish")]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints what makes the shell ask.
pub fn run(args: Args) -> Result<()> {
    let completer: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    completer
        .write_registration(complete::VARIABLE, "cube", "cube", "cube", &mut script)
        .map_err(|error| CliError::io("can't write the completion", error))?;
    print(&String::from_utf8_lossy(&script))
}
