//! `cube config`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use cube_api::address::{AddressError, LeaderAddress};
use cube_api::auth::Token;

use crate::config::{self, Config};
use crate::error::{CliError, Result};
use crate::output::print;
use crate::output::table::Table;

/// A token is a line.
const MAX_PASSWORD: u64 = 4096;

/// The words of `cube config`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube config    which leader is asked, and where that is written
  cube config set --leader-url localhost:4242 --password-file FILE

What is set is written to a file that you alone can read.")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the leader's address or the password into the configuration file
    Set(SetArgs),
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
struct SetArgs {
    /// The leader: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_leader)]
    leader_url: Option<LeaderAddress>,
    /// A file with the password (the cluster's token), or - for standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

fn parse_leader(text: &str) -> std::result::Result<LeaderAddress, String> {
    text.parse().map_err(|error: AddressError| format!("{error}: {}", error.hint()))
}

/// Shows or writes the configuration.
pub fn run(args: Args, path: Option<&Path>) -> Result<()> {
    match args.command {
        None => show(&Config::load(path)?),
        Some(Verb::Set(args)) => set(args, path),
    }
}

fn show(config: &Config) -> Result<()> {
    let mut table = Table::new(vec!["KEY", "VALUE", "FROM"]);
    table.row(vec!["leaderUrl".into(), config.leader.to_string().into(), config.leader_from.to_string().into()]);
    table.row(vec!["password".into(), "(hidden)".into(), config.token_from.to_string().into()]);
    print(&table.text(crate::output::style::Style::of_stdout()))
}

fn set(args: SetArgs, path: Option<&Path>) -> Result<()> {
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    let written = config::write(path, args.leader_url.map(|leader| leader.to_string()), password)?;
    print(&format!("{} written\n", written.display()))
}

fn read_password(path: &Path) -> Result<String> {
    let read = |reader: &mut dyn Read| io::read_to_string(reader.take(MAX_PASSWORD));
    let text =
        if path == Path::new("-") { read(&mut io::stdin().lock()) } else { std::fs::File::open(path).and_then(|mut file| read(&mut file)) };
    let text = text.map_err(|error| CliError::io(format!("can't read {}", path.display()), error))?;
    let token = Token::new(&text).ok_or_else(|| CliError::failed(format!("{} holds no password", path.display())))?;
    Ok(token.expose().to_owned())
}
