//! How to reach NATS: plain data that the command line fills, and its check before the first connection, so that a
//! missing file ends the start with a sentence instead of an endless row of failed tries.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    time::Duration,
};

use nats::{
    ConnectOptions, ServerAddr,
    rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// A frozen server is noticed after three of these: 9 s, within the 10 s that readiness promises.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// A server that takes a connection and says nothing is given up after this.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The first and the longest wait between two tries.
const RECONNECT_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Messages that the client buffers while NATS is away or slow.
const BUFFERED_MESSAGES: usize = 2048;

/// Why the options cannot work.
#[derive(Debug, thiserror::Error)]
pub enum NatsOptionsError {
    /// No server is named.
    #[error(
        "no NATS server is named: give a URL such as nats://127.0.0.1:4222, or several with commas"
    )]
    NoServer,
    /// A server's URL cannot be read.
    #[error("{server} is not a NATS URL ({fault}): write nats://host:port or tls://host:port")]
    Server {
        /// What was given, without user and password.
        server: String,
        /// What is wrong.
        fault: String,
    },
    /// A file cannot be read or is not what it should be.
    #[error("the {what} {} cannot be used: {fault}", path.display())]
    File {
        /// What the file should be.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// What is wrong, and what is right.
        fault: String,
    },
    /// Two options only work together.
    #[error("{given} is given without {missing}: give both or neither")]
    Pair {
        /// The option that is there.
        given: &'static str,
        /// The option that is not.
        missing: &'static str,
    },
    /// A prefix that is no subject.
    #[error(
        "{given} cannot stand before the names of inboxes: write letters, digits, - and _, such as _INBOX_hubbub_gateway"
    )]
    Inbox {
        /// What was given.
        given: String,
    },
    /// More than one way to log in.
    #[error("{0} and {1} are two ways to log in to NATS: give one")]
    TwoLogins(&'static str, &'static str),
}

/// How to reach NATS. Everything but `servers` is optional.
#[derive(Clone, Default)]
pub struct NatsOptions {
    /// URLs with commas between: `nats://host:4222`, `tls://host`, or with `user:password@`.
    pub servers: String,
    /// The name that NATS shows for this client: the gateway's id.
    pub name: String,
    /// A credentials file (`.creds`) with JWT and seed.
    pub credentials: Option<PathBuf>,
    /// A user; with `password`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// A file with an nkey's seed.
    pub nkey_seed: Option<PathBuf>,
    /// PEM certificates to trust instead of the system's. Asks for TLS.
    pub ca: Option<PathBuf>,
    /// A PEM certificate to show; with `client_key`. Asks for TLS.
    pub client_certificate: Option<PathBuf>,
    /// The PEM key of `client_certificate`.
    pub client_key: Option<PathBuf>,
    /// Refuse to talk without TLS.
    pub require_tls: bool,
    /// Begin with TLS instead of waiting for the server's offer (the server's `handshake_first`).
    pub tls_first: bool,
    /// What stands before the names of inboxes, to which answers come; `_INBOX` if none. With one of its own, a user needs
    /// no right to hear what others are answered.
    pub inbox: Option<String>,
}

/// Without the secrets.
impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("servers", &self.shown_servers())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl NatsOptions {
    /// Options for one URL, the rest as it comes.
    #[must_use]
    pub fn new(servers: impl Into<String>, name: impl Into<String>) -> Self {
        Self { servers: servers.into(), name: name.into(), ..Self::default() }
    }

    /// The servers as they may be shown: without users, passwords and tokens.
    #[must_use]
    pub fn shown_servers(&self) -> String {
        self.servers.split(',').map(|url| without_login(url.trim())).collect::<Vec<_>>().join(",")
    }

    /// Checks everything that can be checked without a server.
    ///
    /// # Errors
    ///
    /// The first thing that cannot work, and how to mend it.
    pub fn prepare(&self) -> Result<(Vec<ServerAddr>, ConnectOptions), NatsOptionsError> {
        let servers = self.servers()?;
        let options = ConnectOptions::new()
            .name(&self.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECTION_TIMEOUT)
            .client_capacity(BUFFERED_MESSAGES)
            // Subjects are made of checked names.
            .skip_subject_validation(true)
            .reconnect_delay_callback(reconnect_delay);
        let options = match &self.inbox {
            Some(prefix) => options.custom_inbox_prefix(checked_inbox(prefix)?),
            None => options,
        };
        let options = self.login(&servers, options)?;
        Ok((servers, self.tls(options)?))
    }

    fn servers(&self) -> Result<Vec<ServerAddr>, NatsOptionsError> {
        let mut servers = Vec::new();
        for text in self.servers.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let wrong =
                |fault: String| NatsOptionsError::Server { server: without_login(text), fault };
            let server: ServerAddr =
                text.parse().map_err(|_| wrong("cannot be read".to_owned()))?;
            if !matches!(server.scheme(), "nats" | "tls") {
                return Err(wrong(format!("unknown scheme {}", server.scheme())));
            }
            if server.host().is_empty() {
                return Err(wrong("no host".to_owned()));
            }
            // Such as of a URL whose colon was forgotten: its host would be `nats`.
            let url = server.clone().into_inner();
            if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some()
            {
                return Err(wrong("something follows the host".to_owned()));
            }
            servers.push(server);
        }
        if servers.is_empty() { Err(NatsOptionsError::NoServer) } else { Ok(servers) }
    }

    fn login(
        &self,
        servers: &[ServerAddr],
        options: ConnectOptions,
    ) -> Result<ConnectOptions, NatsOptionsError> {
        let in_url = servers.iter().find(|server| server.has_user_pass());
        let ways: Vec<&'static str> = [
            (self.credentials.is_some(), "a credentials file"),
            (self.user.is_some(), "a user"),
            (self.token.is_some(), "a token"),
            (self.nkey_seed.is_some(), "an nkey seed"),
            (in_url.is_some(), "a user in the URL"),
        ]
        .into_iter()
        .filter_map(|(given, way)| given.then_some(way))
        .collect();
        if let [first, second, ..] = ways[..] {
            return Err(NatsOptionsError::TwoLogins(first, second));
        }
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                return Ok(options.user_and_password(user.clone(), password.clone()));
            }
            (Some(_), None) => return Err(pair("a NATS user", "its password")),
            (None, Some(_)) => return Err(pair("a NATS password", "its user")),
            (None, None) => {}
        }
        if let Some(path) = &self.credentials {
            let what = "NATS credentials file";
            let text = read(what, path)?;
            return options.credentials(&text).map_err(|error| NatsOptionsError::File {
                what,
                path: path.clone(),
                fault: format!("{error}; it holds a user JWT and an nkey seed, as nsc writes it"),
            });
        }
        if let Some(path) = &self.nkey_seed {
            let what = "nkey seed file";
            let seed = read(what, path)?.trim().to_owned();
            // A user's seed: `SU` and 56 more characters of base 32.
            let base32 = |b: u8| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b);
            if !(seed.starts_with("SU") && seed.len() == 58 && seed.bytes().all(base32)) {
                return Err(NatsOptionsError::File {
                    what,
                    path: path.clone(),
                    fault: "it must hold one line, a user's seed that begins with SU".to_owned(),
                });
            }
            return Ok(options.nkey(seed));
        }
        if let Some(token) = &self.token {
            return Ok(options.token(token.clone()));
        }
        if let Some(server) = in_url {
            let user = server.username().unwrap_or_default().to_owned();
            return Ok(match server.password() {
                Some(password) => options.user_and_password(user, password.to_owned()),
                // The way NATS' own programs read a URL with one word before the @.
                None => options.token(user),
            });
        }
        Ok(options)
    }

    fn tls(&self, mut options: ConnectOptions) -> Result<ConnectOptions, NatsOptionsError> {
        let mut required = self.require_tls;
        if let Some(path) = &self.ca {
            certificates("CA file for NATS", path)?;
            options = options.add_root_certificates(path.clone());
            required = true;
        }
        match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                certificates("client certificate for NATS", certificate)?;
                PrivateKeyDer::from_pem_file(key).map_err(|error| NatsOptionsError::File {
                    what: "client key for NATS",
                    path: key.clone(),
                    fault: format!("{error}; it must be a private key in PEM"),
                })?;
                options = options.add_client_certificate(certificate.clone(), key.clone());
                required = true;
            }
            (Some(_), None) => return Err(pair("a client certificate for NATS", "its key")),
            (None, Some(_)) => return Err(pair("a client key for NATS", "its certificate")),
            (None, None) => {}
        }
        options = options.require_tls(required);
        Ok(if self.tls_first { options.tls_first() } else { options })
    }
}

/// The prefix, if it is a subject without wildcards.
fn checked_inbox(prefix: &str) -> Result<&str, NatsOptionsError> {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if prefix.split('.').all(is_word) {
        Ok(prefix)
    } else {
        Err(NatsOptionsError::Inbox { given: prefix.to_owned() })
    }
}

fn pair(given: &'static str, missing: &'static str) -> NatsOptionsError {
    NatsOptionsError::Pair { given, missing }
}

fn read(what: &'static str, path: &Path) -> Result<String, NatsOptionsError> {
    std::fs::read_to_string(path).map_err(|error| NatsOptionsError::File {
        what,
        path: path.to_owned(),
        fault: error.to_string(),
    })
}

fn certificates(what: &'static str, path: &Path) -> Result<(), NatsOptionsError> {
    let wrong = |fault: String| NatsOptionsError::File { what, path: path.to_owned(), fault };
    let count = CertificateDer::pem_file_iter(path)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| wrong(format!("{error}; it must hold certificates in PEM")))?
        .len();
    if count == 0 { Err(wrong("it holds no certificate in PEM".to_owned())) } else { Ok(()) }
}

/// A URL as it may be shown: what stands before the `@` is secret.
fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => url.to_owned(),
    }
}

/// How long to wait before the try of that number, the first being 1: doubling, and spread over half of itself, so
/// that the gateways of a cluster do not come back to NATS in one instant.
fn reconnect_delay(attempt: usize) -> Duration {
    let (first, longest) = RECONNECT_DELAY;
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(longest);
    // A hasher's random keys are the one source of randomness in the standard library.
    let random = RandomState::new().hash_one(attempt);
    let thousandth = u32::try_from(random % 1000).unwrap_or_default();
    doubled / 2 + doubled * thousandth / 2000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> NatsOptions {
        NatsOptions::new("nats://127.0.0.1:4222", "gw")
    }

    fn fault(options: &NatsOptions) -> String {
        options.prepare().unwrap_err().to_string()
    }

    #[test]
    fn several_servers_and_short_forms_are_read() {
        let (servers, _) = NatsOptions::new("nats://a:1, b ,tls://c", "gw").prepare().unwrap();
        let hosts: Vec<_> = servers.iter().map(|s| (s.host().to_owned(), s.port())).collect();
        assert_eq!(hosts, [("a".into(), 1), ("b".into(), 4222), ("c".into(), 4222)]);
    }

    #[test]
    fn what_cannot_work_is_told_with_its_remedy() {
        assert!(fault(&NatsOptions::new(" , ", "gw")).contains("nats://127.0.0.1:4222"));
        assert!(fault(&NatsOptions::new("http://x", "gw")).contains("write nats://host:port"));
        for url in ["nats//h:4222", "nats:/h", "nats://h/a", "nats://h?a", "nats://h:70000"] {
            let fault = fault(&NatsOptions::new(url, "gw"));
            assert!(fault.contains("write nats://host:port"), "{url}: {fault}");
        }
        let one = NatsOptions { user: Some("ann".into()), ..options() };
        assert_eq!(fault(&one), "a NATS user is given without its password: give both or neither");
        let two = NatsOptions { token: Some("t".into()), nkey_seed: Some("f".into()), ..options() };
        assert!(fault(&two).contains("give one"));
        for prefix in ["", "a b", "_INBOX.>", "*", "a..b", "a.", "a\r\nSUB > 1"] {
            let wrong = NatsOptions { inbox: Some(prefix.into()), ..options() };
            assert!(fault(&wrong).contains("such as _INBOX_hubbub_gateway"), "{prefix:?}");
        }
        let missing = NatsOptions { ca: Some("/nonexistent/ca.pem".into()), ..options() };
        assert!(fault(&missing).contains("/nonexistent/ca.pem"));
        let missing = NatsOptions { credentials: Some("/nonexistent/u.creds".into()), ..options() };
        assert!(fault(&missing).contains("/nonexistent/u.creds"));
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        let path = Some(file.path().to_owned());
        assert!(fault(&NatsOptions { ca: path.clone(), ..options() }).contains("PEM"));
        assert!(fault(&NatsOptions { nkey_seed: path.clone(), ..options() }).contains("SU"));
        assert!(fault(&NatsOptions { credentials: path, ..options() }).contains("nsc"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let shown = format!(
            "{:?} {}",
            NatsOptions {
                token: Some("s3cret".into()),
                ..NatsOptions::new("nats://u:s3cret@h", "gw")
            },
            fault(&NatsOptions::new("http://u:s3cret@h", "gw")),
        );
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("nats://h"), "{shown}");
        let several = NatsOptions::new("nats://u:p@a:1, b,t0ken@c ,tls://d", "gw");
        assert_eq!(several.shown_servers(), "nats://a:1,b,c,tls://d");
    }

    #[test]
    fn tries_are_spread_and_bounded() {
        for attempt in 1..100 {
            let delay = reconnect_delay(attempt);
            let doubled =
                Duration::from_millis(50 << (attempt - 1).min(5)).min(Duration::from_secs(1));
            assert!(delay >= doubled / 2 && delay <= doubled, "try {attempt}: {delay:?}");
        }
        let spread: std::collections::HashSet<_> = (0..50).map(|_| reconnect_delay(10)).collect();
        assert!(spread.len() > 10, "gateways must not try in step");
    }
}
