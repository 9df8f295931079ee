//! The operator's program.

use std::io::Write as _;

use clap::Parser as _;
use hubbub_operator::{
    cli::{Cli, Command},
    definition,
};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => std::io::stdout().write_all(definition::yaml()?.as_bytes())?,
    }
    Ok(())
}
