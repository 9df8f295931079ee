//! Writes the objects of a pool: by server-side apply, and only what is not as it should be.
//!
//! What the API server made of an object that was applied is remembered, reduced to the fields that were applied. The
//! object has drifted when those fields look different now, or when others have added to what is not theirs to say
//! ([`ownership`](super::ownership)), unless that cannot be helped ([`insistence`](super::insistence)).

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
    insistence::Insistence,
    observe::DELETION_COST,
    ownership::{Additions, adopted},
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

/// The longest wait before an object that is changed again and again is repaired once more.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long an object must have been left alone for its repairs to be forgotten.
const PEACE: Duration = Duration::from_secs(600);

/// An object as it was applied.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    desired: Value,
    /// The same fields in the API server's answer.
    made: Value,
    version: Option<u64>,
    at: Instant,
}

/// Repairs of an object. Whoever changes it without end finds the operator ever more patient, instead of a race.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repairs {
    count: u32,
    last: Instant,
}

impl Repairs {
    /// Whether the next repair is due.
    fn are_due(self, now: Instant) -> bool {
        let doubled = Duration::from_secs(1).saturating_mul(1 << (self.count - 1).min(10));
        now.duration_since(self.last) >= doubled.min(LONGEST_WAIT)
    }

    /// With one more.
    fn after(before: Option<Self>, now: Instant) -> Self {
        let before = before.filter(|repairs| now.duration_since(repairs.last) < PEACE);
        Self { count: before.map_or(0, |repairs| repairs.count).saturating_add(1), last: now }
    }
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
    let added = seen.as_deref().map(additions).unwrap_or_default();
    let now = Instant::now();
    let insistence = memory.insistence.get(&kind).cloned();
    if let Some(applied) = memory.applied.get(&kind).filter(|applied| applied.desired == json) {
        let repairs = memory.repairs.get(&kind).copied();
        let is = |look: fn(&Insistence, &Additions, Instant) -> bool| {
            insistence.as_ref().is_some_and(|insistence| look(insistence, &added, now))
        };
        match &seen {
            None if applied.at.elapsed() < LAG => return Ok(()),
            // An older one has not seen the last write yet.
            Some(seen) if version(&**seen) < applied.version => return Ok(()),
            Some(seen)
                if (added.is_empty() || is(Insistence::excuses))
                    && project(&json, &serde_json::to_value(&**seen)?) == applied.made =>
            {
                return Ok(());
            }
            _ => {}
        }
        if !is(Insistence::is_to_be_tried) {
            if repairs.is_some_and(|repairs| !repairs.are_due(now)) {
                return Ok(());
            }
            context.events.drifted(&kind, &name, &added.managers());
            memory.repairs.insert(kind.clone(), Repairs::after(repairs, now));
        }
    }
    let api: Api<K> = Api::namespaced(context.client(), &context.namespace);
    let adopted = match seen.filter(|_| !added.is_empty()) {
        Some(seen) => adopt(context, &api, &*seen).await.map(|()| true)?,
        None => false,
    };
    let mut made = put(context, &api, desired).await?;
    if !adopted && !additions(&made).is_empty() {
        // It was there and could not be seen: whoever takes an object's labels away takes it out of the watch.
        adopt(context, &api, &made).await?;
        made = put(context, &api, desired).await?;
    }
    let left = additions(&made);
    let insistence = Insistence::after(insistence, left.clone(), now);
    if insistence.as_ref().is_some_and(Insistence::is_stubborn) {
        context.events.added_to(&kind, &name, &left.managers());
    }
    match insistence {
        Some(insistence) => memory.insistence.insert(kind.clone(), insistence),
        None => memory.insistence.remove(&kind),
    };
    let applied = Applied {
        made: project(&json, &serde_json::to_value(&made)?),
        desired: json,
        version: version(&made),
        at: Instant::now(),
    };
    memory.applied.insert(kind, applied);
    Ok(())
}

async fn put<K>(context: &Context, api: &Api<K>, desired: &K) -> Result<K, ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(desired);
    let made = context.in_time(api.patch(&desired.name_any(), &parameters, &patch)).await?;
    context.events.wrote("pool");
    Ok(made)
}

/// Makes the operator the owner of what others have added to the very version that was seen.
async fn adopt<K>(context: &Context, api: &Api<K>, seen: &K) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let entries = seen.meta().managed_fields.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {
        "resourceVersion": seen.meta().resource_version,
        "managedFields": adopted(entries, &K::api_version(&())),
    }});
    let parameters =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    context.in_time(api.patch(&seen.name_any(), &parameters, &Patch::Merge(&patch))).await?;
    context.events.wrote("pool");
    Ok(())
}

fn additions<K: Resource>(object: &K) -> Additions {
    Additions::of(object.meta().managed_fields.as_deref().unwrap_or_default())
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
    fn whoever_changes_an_object_without_end_is_answered_ever_more_slowly() {
        let begun = Instant::now();
        let (mut now, mut repairs) = (begun, Repairs::after(None, begun));
        let mut count = 1;
        while now - begun < Duration::from_secs(3600) {
            now += Duration::from_millis(100);
            if repairs.are_due(now) {
                repairs = Repairs::after(Some(repairs), now);
                count += 1;
            }
        }
        assert!((50..80).contains(&count), "{count} repairs in an hour");
        let later = Repairs::after(Some(repairs), now + PEACE);
        assert!(later.are_due(now + PEACE + Duration::from_secs(1)), "and forgotten in peace");
    }

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
