//! The `kip` command. See `kip --help`.

mod admin;
mod args;
mod asks;
mod aws_environment;
mod boot;
mod catalogue;
mod completion;
mod config;
mod controller;
#[cfg(feature = "local")]
mod dev;
mod exposition;
mod freshness;
mod get;
mod instance_data;
mod legacy;
mod logging;
mod manifest;
#[cfg(all(test, feature = "aws", feature = "local"))]
mod migration;
mod office;
mod output;
mod preflight;
mod run;
mod signals;
mod size;
mod standing;
mod system;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match args.run() {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
