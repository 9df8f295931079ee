//! What was put in order in the bucket of policies.

use tracing::warn;

use super::OperatorEvents;
use crate::bucket::Tidied;

impl OperatorEvents {
    /// Something in the bucket was put in order.
    pub fn tidied(&self, what: Tidied<'_>) {
        match what {
            Tidied::Stray(key) => {
                self.wrote("stray");
                if self.is_news("stray".to_owned()) {
                    warn!(
                        ?key,
                        "the bucket held what is no room's; it is taken out. See docs/operations.md, a stolen login"
                    );
                }
            }
            Tidied::Consumer(name) => {
                self.wrote("consumer");
                if self.is_news("consumer".to_owned()) {
                    warn!(
                        name,
                        "a consumer of the bucket that follows nothing is deleted. See docs/operations.md, a stolen login"
                    );
                }
            }
            Tidied::Unswept(cause) => {
                if self.is_news("unswept".to_owned()) {
                    warn!(
                        cause,
                        "the consumers of the bucket cannot be looked at; give the operator's user what `hubbub-operator nats-permissions` prints"
                    );
                }
            }
            Tidied::Statement => {
                self.wrote("statement");
                if self.is_news("statement".to_owned()) {
                    warn!(
                        "the operator's statement in the bucket was overwritten; it is written again. See docs/operations.md, a stolen login"
                    );
                }
            }
        }
    }
}
