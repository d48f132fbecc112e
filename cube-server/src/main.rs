//! The `cube-server` program: reads its flags, runs the role, prints an error's whole chain.

use std::process::ExitCode;

use clap::Parser;
use cube_server::options::Options;
use cube_server::run;
use mimalloc::MiMalloc;

#[global_allocator]
static MEMORY: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    run::start_log();
    match run::run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
