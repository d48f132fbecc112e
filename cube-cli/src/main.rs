//! `cube`, the command line: reads `~/.cube/config`, asks the leader, prints. It decides nothing about the cluster.

mod cli;
mod commands;
mod complete;
mod config;
mod error;
mod output;
mod target;
mod terminal;
mod wait;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    complete::answer();
    let cli = cli::Cli::parse();
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => Err(error::CliError::io("can't start the runtime", error)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}
