//! One file per command: its words, and what it does with them.

pub mod apply;
pub mod classic;
pub mod completion;
pub mod config;
pub mod cordon;
pub mod create;
pub mod delete;
pub mod drain;
pub mod events;
pub mod exec;
pub mod get;
pub mod label;
pub mod list;
pub mod logs;
pub mod manifests;
pub mod nodes;
pub mod restart;
pub mod rollout;
pub mod top;
pub mod trigger;
mod version;
pub mod wait;

use std::path::Path;
use std::process::ExitCode;

use cube_api::client::Client;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::error::Result;

/// Does what the command line says.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let path = cli.config.as_deref();
    match cli.command {
        Command::Apply(args) => apply::run(args, || client(path)).await?,
        Command::Nodes(args) => nodes::run(args, &client(path)?).await?,
        Command::List(args) => list::run(args, &client(path)?).await?,
        Command::Get(args) => get::run(args, || client(path)).await?,
        Command::Describe(args) => get::describe(args, || client(path)).await?,
        Command::Delete(args) => delete::run(args, || client(path)).await?,
        Command::Logs(args) => logs::run(args, &client(path)?).await?,
        Command::Exec(args) => return exec::run(args, &client(path)?).await,
        Command::Rollout(args) => rollout::run(args, &client(path)?).await?,
        Command::Scale(args) => rollout::scale(args, &client(path)?).await?,
        Command::Restart(args) => restart::run(args, &client(path)?).await?,
        Command::Wait(args) => wait::run(args, &client(path)?).await?,
        Command::Trigger(args) => trigger::run(args, &client(path)?).await?,
        Command::Create(args) => create::run(args, &client(path)?).await?,
        Command::Cordon(args) => cordon::run(args, &client(path)?).await?,
        Command::Uncordon(args) => cordon::undo(args, &client(path)?).await?,
        Command::Drain(args) => return drain::run(args, &client(path)?).await,
        Command::Label(args) => label::run(args, || client(path)).await?,
        Command::Events(args) => events::run(args, &client(path)?).await?,
        Command::Top(args) => top::run(args, &client(path)?).await?,
        Command::Run(args) => classic::run(args, || client(path)).await?,
        Command::Status => classic::status(&client(path)?).await?,
        Command::Stop(args) => classic::stop(args, &client(path)?).await?,
        Command::Node => classic::node(&client(path)?).await?,
        Command::Completion(args) => completion::run(args)?,
        Command::Version => version::run(|| client(path)).await?,
        Command::Config(args) => config::run(args, path)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn client(path: Option<&Path>) -> Result<Client> {
    Ok(Config::load(path)?.client())
}
