//! Reading a command line, and values that flags of both programs take.

use std::net::{IpAddr, SocketAddr};

use clap::{Command, Parser, builder::Resettable};
use hubbub_api::is_dns_label;
use ipnet::IpNet;

/// Reads the command line of this process, and ends it where help is asked for or something is wrong. A variable that
/// is set to nothing counts as one that is not set: that is how compose files and charts leave one out.
#[must_use]
pub fn parse<C: Parser>() -> C {
    let matches = without_empty_variables(C::command()).get_matches();
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn without_empty_variables(command: Command) -> Command {
    let command =
        command.mut_args(|argument| match argument.get_env().and_then(std::env::var_os) {
            Some(value) if value.is_empty() => argument.env(Resettable::Reset),
            _ => argument,
        });
    command.mut_subcommands(without_empty_variables)
}

/// Where to listen: `IP:PORT`, `:PORT` for all addresses of both families, or `localhost:PORT`.
///
/// # Errors
/// What is right, when it is none of them.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None if text.starts_with("localhost:") => text.replacen("localhost", "127.0.0.1", 1),
        None => text.to_owned(),
    };
    full.parse().map_err(|_| {
        "must be an IP address and a port, such as 127.0.0.1:8080 or [::]:8080, or :8080 for all addresses"
            .to_owned()
    })
}

/// A name that Kubernetes takes for a namespace, a label or a part of a name.
///
/// # Errors
/// What is right, when it is not one.
pub fn dns_label(text: &str) -> Result<String, String> {
    if is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a DNS label: lower-case letters, digits and hyphens, at most 63 characters"
            .to_owned())
    }
}

/// The host's name, which in a container is the pod's, or `nameless` if it has none. Elsewhere several may share a
/// host, and two of one name would take each other for themselves, so the process id is added.
#[must_use]
pub fn own_name(nameless: &str) -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = if name.is_empty() { nameless.to_owned() } else { name };
    match std::process::id() {
        1 => name,
        process => format!("{name}-{process}"),
    }
}

/// A network in CIDR notation, such as `10.0.0.0/8`; an address is the network of itself alone.
///
/// # Errors
///
/// What it must be.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().ok().or_else(|| text.parse().ok().map(|one: IpAddr| one.into()));
    let network: IpNet = network
        .ok_or("must be an address or a network, such as 10.0.0.0/8, 192.0.2.7 or fd00::/8")?;
    if network.trunc() != network {
        return Err(format!(
            "has bits beyond its prefix: write {}, or the address alone",
            network.trunc()
        ));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_out_the_host() {
        for (text, right) in [
            (":8080", "[::]:8080"),
            ("localhost:1", "127.0.0.1:1"),
            ("10.0.0.1:0", "10.0.0.1:0"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(right));
        }
        for wrong in ["8080", "", ":", "example.com:80", "10.0.0.1:65536"] {
            assert!(address(wrong).unwrap_err().contains("such as 127.0.0.1:8080"), "{wrong}");
        }
    }
}
