//! An account without rights, so that gateways do not run under the namespace's default one.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Blueprint;

pub(super) fn of(blueprint: &Blueprint<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: blueprint.metadata(),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
