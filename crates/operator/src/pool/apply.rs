//! Writes the objects of a pool: by server-side apply, and only what is not as it should be.
//!
//! What the API server made of an object that was applied is remembered, reduced to the fields that were applied. The
//! object has drifted when those fields look different now; what others add beside them is theirs.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Memory,
    children::{Children, name},
    observe::DELETION_COST,
    plan::{Mark, Plan},
};
use crate::{
    context::{Context, FIELD_MANAGER},
    error::ReconcileError,
};

/// Below every pod that is not marked: those cost 0.
const FIRST_TO_GO: &str = "-1000";

/// How long the watch may take to show what was applied, before its absence counts.
const LAG: Duration = Duration::from_secs(1);

/// An object as it was applied.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    desired: Value,
    /// The same fields in the API server's answer.
    made: Value,
    version: Option<u64>,
    at: Instant,
}

pub(super) async fn apply(
    context: &Context,
    pool: &str,
    plan: Plan,
    memory: &mut Memory,
) -> Result<(), ReconcileError> {
    match plan {
        Plan::Retire => retire(context, &name(&context.instance, pool)).await,
        Plan::Run { marks, children, replicas } => {
            for mark in marks {
                set_mark(context, &mark).await?;
            }
            run(context, pool, *children, memory).await?;
            if memory.replicas != Some(replicas) {
                context.events.scaled(pool, memory.replicas, replicas);
            }
            memory.replicas = Some(replicas);
            Ok(())
        }
    }
}

async fn run(
    context: &Context,
    pool: &str,
    children: Children,
    memory: &mut Memory,
) -> Result<(), ReconcileError> {
    // Without `..`, so that a new kind of object cannot be forgotten.
    let Children { deployment, service, pod_disruption_budget, service_account, network_policy } =
        children;
    let cluster = &context.cluster;
    // Pods need their account; all else may come in any order.
    apply_one(context, &cluster.service_accounts, &service_account, memory).await?;
    apply_one(context, &cluster.services, &service, memory).await?;
    apply_one(context, &cluster.pod_disruption_budgets, &pod_disruption_budget, memory).await?;
    match network_policy {
        Some(policy) => apply_one(context, &cluster.network_policies, &policy, memory).await?,
        None => delete(context, &cluster.network_policies, &name(&context.instance, pool)).await?,
    }
    apply_one(context, &cluster.deployments, &deployment, memory).await
}

async fn retire(context: &Context, name: &str) -> Result<(), ReconcileError> {
    let cluster = &context.cluster;
    delete(context, &cluster.deployments, name).await?;
    delete(context, &cluster.services, name).await?;
    delete(context, &cluster.pod_disruption_budgets, name).await?;
    delete(context, &cluster.network_policies, name).await?;
    delete(context, &cluster.service_accounts, name).await
}

async fn apply_one<K>(
    context: &Context,
    store: &Store<K>,
    desired: &K,
    memory: &mut Memory,
) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + 'static,
{
    let kind = K::kind(&()).into_owned();
    let name = desired.name_any();
    let json = serde_json::to_value(desired)?;
    let seen = store.get(&ObjectRef::new(&name).within(&context.namespace));
    if let Some(applied) = memory.applied.get(&kind).filter(|applied| applied.desired == json) {
        let as_applied = match &seen {
            None => applied.at.elapsed() < LAG,
            Some(seen) if version(&**seen) < applied.version => true,
            Some(seen) => project(&json, &serde_json::to_value(&**seen)?) == applied.made,
        };
        if as_applied {
            return Ok(());
        }
        context.events.drifted(&kind, &name);
    }
    let api: Api<K> = Api::namespaced(context.client(), &context.namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let made = context.in_time(api.patch(&name, &parameters, &Patch::Apply(desired))).await?;
    context.events.wrote("pool");
    let applied = Applied {
        made: project(&json, &serde_json::to_value(&made)?),
        desired: json,
        version: version(&made),
        at: Instant::now(),
    };
    memory.applied.insert(kind, applied);
    Ok(())
}

async fn delete<K>(context: &Context, store: &Store<K>, name: &str) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + 'static,
{
    let Some(seen) = store.get(&ObjectRef::new(name).within(&context.namespace)) else {
        return Ok(());
    };
    if seen.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(context.client(), &context.namespace);
    let parameters = DeleteParams {
        // Not one of that name that was made since.
        preconditions: Some(Preconditions { uid: seen.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    match context.in_time(api.delete(name, &parameters)).await {
        Ok(_) => {
            context.events.wrote("pool");
            Ok(())
        }
        Err(ReconcileError::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn set_mark(context: &Context, mark: &Mark) -> Result<(), ReconcileError> {
    let pods: Api<Pod> = Api::namespaced(context.client(), &context.namespace);
    let cost = mark.first.then_some(FIRST_TO_GO);
    let patch = json!({"metadata": {"annotations": {DELETION_COST: cost}}});
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match context.in_time(pods.patch(&mark.pod, &parameters, &Patch::Merge(&patch))).await {
        Ok(_) => {
            context.events.wrote("pod");
            Ok(())
        }
        // It went by itself.
        Err(ReconcileError::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Versions count up within one API server, so an older one has not seen the last write yet.
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref().and_then(|version| version.parse().ok())
}

/// The part of `object` that has the fields of `shape`.
fn project(shape: &Value, object: &Value) -> Value {
    match (shape, object) {
        (Value::Object(shape), Value::Object(object)) => {
            let part = |(key, shape): (&String, &Value)| {
                (key.clone(), object.get(key).map_or(Value::Null, |value| project(shape, value)))
            };
            shape.iter().map(part).collect()
        }
        (Value::Array(shape), Value::Array(object)) if shape.len() == object.len() => {
            shape.iter().zip(object).map(|(shape, value)| project(shape, value)).collect()
        }
        _ => object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_has_the_fields_of_the_shape_and_the_values_of_the_object() {
        let shape = json!({"a": 1, "b": {"c": 2}, "list": [{"name": "x"}], "gone": 1});
        let object = json!({
            "a": 5, "b": {"c": 6, "added": 7}, "list": [{"name": "y", "defaulted": true}], "more": 8
        });
        assert_eq!(
            project(&shape, &object),
            json!({"a": 5, "b": {"c": 6}, "list": [{"name": "y"}], "gone": null})
        );
        let longer = json!({"list": [{"name": "x"}, {"name": "z"}]});
        assert_eq!(project(&shape, &longer)["list"], longer["list"], "a longer list has drifted");
    }
}
