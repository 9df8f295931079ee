//! What kind of `nats-server` a test wants, and the configuration file that says so.

use std::{fmt::Write as _, path::Path};

use crate::Certificates;

/// The name of a file with lists of permissions, beside the configuration.
pub(super) const PERMISSIONS: &str = "permissions.conf";

/// Who may connect.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Anybody.
    #[default]
    Open,
    /// A user with a password, allowed everything under `hubbub.>`, and what key-value buckets need.
    User {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Several users.
    Users {
        /// A configuration file with lists of what they may do, each under a name.
        permissions: String,
        /// Who they are.
        users: Vec<NatsUser>,
    },
    /// Whoever knows the token.
    Token(String),
    /// Whoever holds the seed of this public key.
    NKey(String),
    /// The users of one account of an operator, by their JWTs. JetStream would need a system account: switch it off.
    Jwt {
        /// The operator's JWT.
        operator: String,
        /// The account's public key.
        account: String,
        /// The account's JWT.
        account_jwt: String,
    },
}

/// A user with a password.
#[derive(Debug, Clone)]
pub struct NatsUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
    /// The name of the lists of what it may do; everything if there is none.
    pub permissions: Option<String>,
}

/// What the server asks of a connection.
#[derive(Debug, Default)]
pub enum Tls {
    /// Plain TCP.
    #[default]
    Off,
    /// A server certificate.
    Server(Certificates),
    /// A server certificate, and a client certificate of the same authority.
    Mutual(Certificates),
}

/// Whether the server has JetStream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JetStream {
    /// It has, with a store of its own.
    #[default]
    On,
    /// It has not.
    Off,
}

/// What kind of server a test wants.
#[derive(Debug, Default)]
pub struct NatsConfig {
    /// Who may connect.
    pub auth: Auth,
    /// What it asks of a connection.
    pub tls: Tls,
    /// Whether it has JetStream.
    pub jetstream: JetStream,
    /// Whether it has a WebSocket listener, without TLS.
    pub websocket: bool,
}

impl NatsConfig {
    /// As the server reads it; port 0 takes any free one.
    pub(super) fn text(&self, directory: &Path, port: u16) -> String {
        let directory = directory.display();
        let port = if port == 0 { -1 } else { i32::from(port) };
        let mut text = format!(
            "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:-1\"\nports_file_dir: \"{directory}\"\n"
        );
        let mut line = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string can be written");
            text.push('\n');
        };
        if self.websocket {
            line(format_args!("websocket {{ listen: \"127.0.0.1:-1\", no_tls: true }}"));
        }
        if self.jetstream == JetStream::On {
            line(format_args!("jetstream {{ store_dir: \"{directory}/jetstream\" }}"));
        }
        match &self.auth {
            Auth::Open | Auth::Jwt { .. } => {}
            Auth::User { user, password } => line(format_args!(
                "authorization {{ users: [{{ user: \"{user}\", password: \"{password}\", permissions: {{ \
                 publish: [\"hubbub.>\", \"$JS.API.>\", \"$JS.ACK.>\", \"$JS.FC.>\"], \
                 subscribe: [\"hubbub.>\", \"_INBOX.>\"] }} }}] }}"
            )),
            Auth::Users { users, .. } => {
                line(format_args!("include {PERMISSIONS}\nauthorization {{ users: ["));
                for NatsUser { name, password, permissions } in users {
                    let permissions = permissions.as_ref();
                    let permissions = permissions.map(|name| format!(", permissions: ${name}"));
                    line(format_args!(
                        "{{ user: \"{name}\", password: \"{password}\"{} }}",
                        permissions.unwrap_or_default()
                    ));
                }
                line(format_args!("] }}"));
            }
            Auth::Token(token) => line(format_args!("authorization {{ token: \"{token}\" }}")),
            Auth::NKey(public) => {
                line(format_args!("authorization {{ users: [{{ nkey: \"{public}\" }}] }}"));
            }
        }
        if let Auth::Jwt { operator, account, account_jwt } = &self.auth {
            line(format_args!(
                "operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {account}: {account_jwt} }}"
            ));
        }
        match &self.tls {
            Tls::Off => {}
            Tls::Server(made) | Tls::Mutual(made) => line(format_args!(
                "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {} }}",
                made.server().display(),
                made.server_key().display(),
                made.authority().display(),
                matches!(self.tls, Tls::Mutual(_)),
            )),
        }
        text
    }
}
