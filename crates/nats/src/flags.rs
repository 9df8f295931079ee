//! The flags, each of them also an environment variable.

use std::path::PathBuf;

use clap::Args;

use crate::NatsOptions;

/// How to reach NATS. Secrets are better given by the environment than on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsFlags {
    /// NATS servers, as nats://host:4222 or tls://host, with commas between; without it rooms live in this gateway alone
    #[arg(long = "nats", env = "HUBBUB_NATS", value_name = "URL")]
    pub url: Option<String>,

    /// A credentials file (.creds) with JWT and seed
    #[arg(
        long = "nats-credentials",
        env = "HUBBUB_NATS_CREDENTIALS",
        value_name = "FILE",
        requires = "url"
    )]
    pub credentials: Option<PathBuf>,

    /// A user name; goes with --nats-password
    #[arg(long = "nats-user", env = "HUBBUB_NATS_USER", value_name = "NAME", requires = "url")]
    pub user: Option<String>,

    /// The user's password; better given by the environment
    #[arg(
        long = "nats-password",
        env = "HUBBUB_NATS_PASSWORD",
        hide_env_values = true,
        value_name = "WORD",
        requires = "url"
    )]
    pub password: Option<String>,

    /// A token; better given by the environment
    #[arg(
        long = "nats-token",
        env = "HUBBUB_NATS_TOKEN",
        hide_env_values = true,
        value_name = "WORD",
        requires = "url"
    )]
    pub token: Option<String>,

    /// A file with the seed of an nkey
    #[arg(
        long = "nats-nkey-seed",
        env = "HUBBUB_NATS_NKEY_SEED",
        value_name = "FILE",
        requires = "url"
    )]
    pub nkey_seed: Option<PathBuf>,

    /// PEM certificates to trust instead of the system's
    #[arg(long = "nats-ca", env = "HUBBUB_NATS_CA", value_name = "FILE", requires = "url")]
    pub ca: Option<PathBuf>,

    /// A PEM certificate to show; goes with --nats-key
    #[arg(
        long = "nats-certificate",
        env = "HUBBUB_NATS_CERTIFICATE",
        value_name = "FILE",
        requires = "url"
    )]
    pub certificate: Option<PathBuf>,

    /// The PEM key of --nats-certificate
    #[arg(long = "nats-key", env = "HUBBUB_NATS_KEY", value_name = "FILE", requires = "url")]
    pub key: Option<PathBuf>,

    /// Refuse to talk to NATS without TLS
    #[arg(long = "nats-tls", env = "HUBBUB_NATS_TLS", requires = "url")]
    pub tls: bool,

    /// Begin with TLS instead of waiting for the server's offer
    #[arg(long = "nats-tls-first", env = "HUBBUB_NATS_TLS_FIRST", requires = "url")]
    pub tls_first: bool,

    /// What stands before the names of inboxes, for a user who may not hear other users' [default: _INBOX]
    #[arg(long = "nats-inbox", env = "HUBBUB_NATS_INBOX", value_name = "PREFIX", requires = "url")]
    pub inbox: Option<String>,
}

impl NatsFlags {
    /// The options that the flags ask for, if they ask for NATS; `name` is what NATS shows for the client.
    #[must_use]
    pub fn options(self, name: &str) -> Option<NatsOptions> {
        let mut options = NatsOptions::new(self.url?, name);
        options.credentials = self.credentials;
        options.user = self.user;
        options.password = self.password;
        options.token = self.token;
        options.nkey_seed = self.nkey_seed;
        options.ca = self.ca;
        options.client_certificate = self.certificate;
        options.client_key = self.key;
        options.require_tls = self.tls;
        options.tls_first = self.tls_first;
        options.inbox = self.inbox;
        Some(options)
    }
}
