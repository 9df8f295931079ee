//! What `hubbub-operator nats-permissions` prints: the two users of NATS, for whoever runs it.

use hubbub_api::permissions::Permissions;

use crate::cli::PermissionsFormat;

/// The lists of both users, ready to be used; gateways of these pools, or of any if there is none.
#[must_use]
pub fn text(format: PermissionsFormat, pools: &[String]) -> String {
    let users = [Permissions::gateway(pools), Permissions::operator()];
    match format {
        PermissionsFormat::Conf => {
            let lists = users.each_ref().map(Permissions::configuration).join("\n");
            format!("{}\n{lists}", conf_head(&users))
        }
        PermissionsFormat::Nsc => {
            let commands = users.each_ref().map(Permissions::nsc).join("\n");
            format!("{}\n{commands}", nsc_head(&users))
        }
    }
}

/// With which flag the programs use the inboxes that the users may hear.
fn inboxes([gateway, operator]: &[Permissions; 2]) -> String {
    format!(
        "# Both programs must be told of their inboxes:\n\
         #   hubbub-gateway  --nats-inbox {}\n\
         #   hubbub-operator --nats-inbox {}\n\
         # In the chart both by nats.separateInboxes: true.\n",
        gateway.inbox, operator.inbox
    )
}

fn conf_head(users: &[Permissions; 2]) -> String {
    let [gateway, operator] = users;
    let row = |user: &Permissions| {
        format!(
            "#       {{ user: \"{}\", password: \"...\", permissions: ${} }}\n",
            user.user, user.variable
        )
    };
    format!(
        "# What gateways and the operator of Hubbub use of NATS, and nothing else. Include it in the configuration of nats-server:\n\
         #\n\
         #   include hubbub-permissions.conf\n\
         #   authorization {{\n\
         #     users: [\n\
         {}{}\
         #     ]\n\
         #   }}\n\
         #\n{}",
        row(gateway),
        row(operator),
        inboxes(users)
    )
}

fn nsc_head(users: &[Permissions; 2]) -> String {
    format!(
        "# What gateways and the operator of Hubbub use of NATS, and nothing else, as two users of the account that nsc is set to.\n{}",
        inboxes(users)
    )
}
