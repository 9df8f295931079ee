//! How many tasks there are, counted when somebody asks.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use tokio::runtime::Handle;

/// The tasks of some runtimes.
#[derive(Debug)]
pub struct TaskMetrics {
    runtimes: Vec<Handle>,
}

impl TaskMetrics {
    /// Registers the metric, of all these runtimes together.
    pub fn register(registry: &mut Registry, runtimes: impl IntoIterator<Item = Handle>) {
        registry.register_collector(Box::new(Self { runtimes: runtimes.into_iter().collect() }));
    }
}

impl Collector for TaskMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let alive: usize =
            self.runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        let tasks = encoder.encode_descriptor(
            "tasks",
            "Asynchronous tasks: some that always run, one for each HTTP socket and each subscribed room, none for a connection.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(alive).unwrap_or(i64::MAX)).encode(tasks)
    }
}
