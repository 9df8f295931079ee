//! What gateways and operator use of NATS, and so what their users must be allowed: no more, or a stolen login could do it too.
//!
//! The lists are made of the same constants as the subjects that the programs use, and a test has each line left out once. One
//! account holds both users, so that they meet on the same subjects; what keeps them apart are these lists, and that
//! each has inboxes of its own: what NATS answers the one, the other cannot hear.

use std::fmt::Write as _;

use crate::names::{
    BUCKET, BUCKET_STREAM, REPORT_WILDCARD, SUBJECT_ECHO_PREFIX, SUBJECT_ROOM_PREFIX,
    report_wildcard,
};

/// What stands before the names of a gateway's inboxes, if it is told so.
pub const GATEWAY_INBOX: &str = "_INBOX_hubbub_gateway";

/// What stands before the names of the operator's inboxes, if it is told so.
pub const OPERATOR_INBOX: &str = "_INBOX_hubbub_operator";

/// A subject that a user needs, maybe with wildcards, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The subject.
    pub subject: String,
    /// What it is for, for people.
    pub purpose: &'static str,
}

/// All that one user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// A name for the user.
    pub user: &'static str,
    /// A name for the lists, where a configuration of nats-server takes them by one.
    pub variable: &'static str,
    /// The program's flag `--nats-inbox`.
    pub inbox: &'static str,
    /// What it may publish.
    pub publish: Vec<Grant>,
    /// What it may subscribe to.
    pub subscribe: Vec<Grant>,
}

fn grant(subject: impl Into<String>, purpose: &'static str) -> Grant {
    Grant { subject: subject.into(), purpose }
}

/// What following the bucket takes. The client makes a consumer without a name first, and then, after a break, with one.
fn following_the_bucket() -> [Grant; 5] {
    let filter = format!("$KV.{BUCKET}.>");
    [
        grant(format!("$JS.API.STREAM.INFO.{BUCKET_STREAM}"), "whether the bucket is there"),
        grant(format!("$JS.API.CONSUMER.CREATE.{BUCKET_STREAM}"), "reading the policies"),
        grant(
            format!("$JS.API.CONSUMER.CREATE.{BUCKET_STREAM}.*.{filter}"),
            "reading on after a break",
        ),
        grant(format!("$JS.API.CONSUMER.DELETE.{BUCKET_STREAM}.*"), "ending a reading that broke"),
        grant(format!("$JS.FC.{BUCKET_STREAM}.>"), "being sent no more than is read"),
    ]
}

impl Permissions {
    /// Those of a gateway of one of these pools; of any if there is none.
    #[must_use]
    pub fn gateway(pools: &[String]) -> Self {
        let rooms = grant(format!("{SUBJECT_ROOM_PREFIX}*.*"), "what is said in rooms");
        let echo = grant(format!("{SUBJECT_ECHO_PREFIX}*"), "round trips to itself");
        let report = |subject| grant(subject, "members by room, told to the other gateways");
        let mut both = vec![rooms];
        match pools {
            [] => both.push(report(REPORT_WILDCARD.to_owned())),
            pools => both.extend(pools.iter().map(|pool| report(report_wildcard(pool)))),
        }
        both.push(echo);
        let mut subscribe = both.clone();
        subscribe.push(grant(format!("{GATEWAY_INBOX}.>"), "answers, and the policies"));
        let mut publish = both;
        publish.extend(following_the_bucket());
        Self {
            user: "hubbub-gateway",
            variable: "hubbub_gateway",
            inbox: GATEWAY_INBOX,
            publish,
            subscribe,
        }
    }

    /// Those of the operator.
    #[must_use]
    pub fn operator() -> Self {
        let mut publish = vec![
            grant(format!("$KV.{BUCKET}.>"), "writing the policies"),
            grant("$JS.API.INFO", "making the bucket: whether JetStream is on"),
            grant(format!("$JS.API.STREAM.CREATE.{BUCKET_STREAM}"), "making the bucket"),
        ];
        publish.extend(following_the_bucket());
        publish.push(grant(
            format!("$JS.API.CONSUMER.LIST.{BUCKET_STREAM}"),
            "finding consumers that no gateway makes",
        ));
        let subscribe = vec![
            grant(REPORT_WILDCARD, "reports of the gateways of all pools"),
            grant(format!("{OPERATOR_INBOX}.>"), "answers, and the policies"),
        ];
        Self {
            user: "hubbub-operator",
            variable: "hubbub_operator",
            inbox: OPERATOR_INBOX,
            publish,
            subscribe,
        }
    }

    /// The lists as a configuration file of nats-server has them, under the name of the [variable](Self::variable).
    #[must_use]
    pub fn configuration(&self) -> String {
        let list = |grants: &[Grant]| {
            grants.iter().fold(String::new(), |mut list, Grant { subject, purpose }| {
                // Writing to a string does not fail.
                let _ = writeln!(list, "    {:<76} # {purpose}", format!("\"{subject}\""));
                list
            })
        };
        let (publish, subscribe) = (list(&self.publish), list(&self.subscribe));
        format!(
            "{}: {{\n  publish: [\n{publish}  ]\n  subscribe: [\n{subscribe}  ]\n}}\n",
            self.variable
        )
    }

    /// The command of nsc that makes the user.
    #[must_use]
    pub fn nsc(&self) -> String {
        let list = |grants: &[Grant]| {
            let subjects: Vec<_> = grants.iter().map(|grant| &*grant.subject).collect();
            subjects.join(",")
        };
        // In quotes, because a shell reads $ and > otherwise.
        format!(
            "nsc add user --name {} \\\n  --allow-pub '{}' \\\n  --allow-sub '{}'\n",
            self.user,
            list(&self.publish),
            list(&self.subscribe),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(grants: &[Grant]) -> Vec<&str> {
        grants.iter().map(|grant| &*grant.subject).collect()
    }

    #[test]
    fn no_list_reaches_beyond_what_is_ours() {
        for user in [Permissions::gateway(&[]), Permissions::operator()] {
            for subject in subjects(&user.publish).into_iter().chain(subjects(&user.subscribe)) {
                let first = subject.split('.').next().unwrap_or_default();
                assert!(
                    ["hubbub", "$KV", "$JS", user.inbox].contains(&first),
                    "{}: {subject}",
                    user.user
                );
                let ours = first != "$JS" || subject.contains(BUCKET) || subject == "$JS.API.INFO";
                assert!(ours, "{}: {subject}", user.user);
            }
        }
        let gateway = Permissions::gateway(&[]);
        assert!(!subjects(&gateway.publish).iter().any(|subject| subject.starts_with("$KV")));
        assert!(
            !subjects(&gateway.publish).iter().any(|subject| subject.contains("STREAM.CREATE"))
        );
    }

    #[test]
    fn a_gateway_of_one_pool_hears_and_tells_nothing_of_others() {
        let pools = ["blue".to_owned(), "green".to_owned()];
        let gateway = Permissions::gateway(&pools);
        for list in [&gateway.publish, &gateway.subscribe] {
            let reports: Vec<_> =
                subjects(list).into_iter().filter(|s| s.contains("report")).collect();
            assert_eq!(reports, ["hubbub.report.blue.*", "hubbub.report.green.*"]);
        }
    }

    #[test]
    fn they_are_written_as_nats_reads_them() {
        let written = Permissions::operator().configuration();
        assert!(
            written.starts_with("hubbub_operator: {\n  publish: [\n    \"$KV.hubbub-policies.>\" ")
        );
        assert!(written.contains("\"_INBOX_hubbub_operator.>\""), "{written}");
        let command = Permissions::gateway(&[]).nsc();
        assert!(
            command.starts_with(
                "nsc add user --name hubbub-gateway \\\n  --allow-pub 'hubbub.room.*.*,"
            )
        );
        assert!(command.ends_with(",hubbub.echo.*,_INBOX_hubbub_gateway.>'\n"), "{command}");
    }
}
