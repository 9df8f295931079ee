//! What a pool should be like. Pure: the clock is part of what was observed, the window is passed in.

use super::{
    children::Children,
    observe::{Observed, PodSeen},
};
use crate::scaling::{Scaler, Sight};

/// What is to be done with a pool.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nobody needs it.
    Retire,
    /// It is to be like this.
    Run {
        /// Pods to mark as the first to go, or not any more; done before the pool shrinks.
        marks: Vec<Mark>,
        children: Box<Children>,
        replicas: u32,
    },
}

/// A change of one pod's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) pod: String,
    pub(super) first: bool,
}

impl Plan {
    /// How many gateways are asked for.
    pub(super) fn replicas(&self) -> Option<u32> {
        match self {
            Self::Retire => None,
            Self::Run { replicas, .. } => Some(*replicas),
        }
    }
}

pub(super) fn plan(observed: &Observed, scaler: &mut Scaler) -> Plan {
    if !observed.wanted {
        return Plan::Retire;
    }
    let staying = observed.pods.iter().filter(|pod| !pod.leaving).count();
    let staying = u32::try_from(staying).unwrap_or(u32::MAX);
    let leaving = observed.pods.iter().any(|pod| pod.leaving);
    let surplus = observed.current.is_some_and(|current| staying > current);
    let sight = Sight {
        load: observed.load,
        min: observed.min,
        max: observed.max,
        current: observed.current,
        settled: !leaving && !surplus,
        window: observed.window,
    };
    let replicas = scaler.step(observed.now, &sight);
    let shrinks = observed.current.is_some_and(|current| replicas < current);
    let victim = if shrinks { emptiest(&observed.pods) } else { None };
    // While one is surplus, the mark is at work.
    let marks = observed.pods.iter().filter(|pod| !pod.leaving && !surplus).filter_map(|pod| {
        let first = victim == Some(pod.name.as_str());
        (first != pod.marked).then(|| Mark { pod: pod.name.clone(), first })
    });
    Plan::Run {
        marks: marks.collect(),
        children: Box::new(Children::of(&observed.blueprint(replicas))),
        replicas,
    }
}

/// The gateway with the fewest members. One that is not ready goes before all others anyway.
fn emptiest(pods: &[PodSeen]) -> Option<&str> {
    let ready = pods.iter().filter(|pod| pod.ready && !pod.leaving);
    ready.min_by_key(|pod| (pod.connections, &pod.name)).map(|pod| pod.name.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{scaling::WINDOW, settings::Settings};

    fn pod(name: &str, connections: u64) -> PodSeen {
        PodSeen {
            name: name.to_owned(),
            ready: true,
            leaving: false,
            marked: false,
            connections: Some(connections),
        }
    }

    fn observed(current: u32, load: f64, pods: &[PodSeen]) -> Observed {
        let yaml = "nats: {url: 'nats://nats'}\npools: {default: {image: a}}";
        let settings = Settings::parse(yaml).unwrap();
        Observed {
            instance: "hubbub".to_owned(),
            namespace: "chat".to_owned(),
            pool: "default".to_owned(),
            settings: settings.pool("default"),
            nats: settings.nats,
            wanted: true,
            min: 1,
            max: 10,
            load: Some(load),
            current: Some(current),
            gateways: current,
            pods: pods.to_vec(),
            fault: None,
            stuck: None,
            window: WINDOW,
            now: Instant::now(),
        }
    }

    /// The plan once the load has been so for a whole window.
    fn after_window(mut observed: Observed, scaler: &mut Scaler) -> (u32, Vec<Mark>) {
        drop(plan(&observed, scaler));
        observed.now += WINDOW;
        run(&observed, scaler)
    }

    fn run(observed: &Observed, scaler: &mut Scaler) -> (u32, Vec<Mark>) {
        match plan(observed, scaler) {
            Plan::Run { marks, replicas, children } => {
                let asked = children.deployment.spec.unwrap().replicas;
                assert_eq!(asked, i32::try_from(replicas).ok());
                (replicas, marks)
            }
            Plan::Retire => panic!("it is wanted"),
        }
    }

    fn mark(pod: &str, first: bool) -> Mark {
        Mark { pod: pod.to_owned(), first }
    }

    #[test]
    fn the_emptiest_gateway_is_marked_in_the_step_that_shrinks_the_pool() {
        let pods = [pod("a", 9), pod("b", 2), pod("c", 4)];
        let (replicas, marks) = after_window(observed(3, 1.5, &pods), &mut Scaler::default());
        assert_eq!((replicas, marks), (2, vec![mark("b", true)]));
    }

    #[test]
    fn a_mark_stays_while_it_is_at_work_and_is_taken_away_when_called_off() {
        let marked = PodSeen { marked: true, ..pod("b", 2) };
        let pods = [pod("a", 9), marked.clone(), pod("c", 4)];
        let mut scaler = Scaler::default();
        let shrinking = observed(2, 1.5, &pods);
        assert_eq!(run(&shrinking, &mut scaler), (2, Vec::new()), "one is surplus");
        let called_off = observed(2, 2.5, &pods);
        assert_eq!(run(&called_off, &mut scaler), (3, Vec::new()), "asked for again");
        let after = observed(3, 2.5, &pods);
        assert_eq!(run(&after, &mut scaler), (3, vec![mark("b", false)]));
        let leaving = PodSeen { leaving: true, ..marked };
        let gone = observed(2, 1.5, &[pod("a", 9), leaving, pod("c", 4)]);
        assert_eq!(
            after_window(gone, &mut Scaler::default()),
            (2, Vec::new()),
            "not before it is gone"
        );
    }

    #[test]
    fn a_pool_that_nobody_needs_is_retired() {
        let unwanted = Observed { wanted: false, ..observed(2, 0.0, &[]) };
        assert!(matches!(plan(&unwanted, &mut Scaler::default()), Plan::Retire));
    }
}
