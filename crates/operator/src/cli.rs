//! The command line.

use clap::{Parser, Subcommand};

/// Run chat rooms on Kubernetes: watch ChatRoom objects, publish their policies, run pools of gateways.
#[derive(Debug, Parser)]
#[command(name = "hubbub-operator", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Print the definition of the resource ChatRoom, for kubectl apply
    Crd,
}
