//! What is in each room now, counted when somebody asks.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::room::Rooms;

/// Members and messages by room.
#[derive(Debug)]
pub struct RoomMetrics {
    rooms: Arc<Rooms>,
    by_room: bool,
}

impl RoomMetrics {
    /// Registers the metrics; with `by_room` one line a room, which with thousands of rooms is more than some stores
    /// like to keep.
    pub fn register(registry: &mut Registry, rooms: Arc<Rooms>, by_room: bool) {
        registry.register_collector(Box::new(Self { rooms, by_room }));
    }
}

impl Collector for RoomMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if !self.by_room {
            return Ok(());
        }
        let rooms = self.rooms.all();
        let mut members = encoder.encode_descriptor(
            "room_members",
            "Members of a room on this gateway.",
            None,
            MetricType::Gauge,
        )?;
        for room in &rooms {
            let labels = [("namespace", room.name().namespace()), ("room", room.name().name())];
            ConstGauge::new(i64::from(room.members())).encode(members.encode_family(&labels)?)?;
        }
        let mut messages = encoder.encode_descriptor(
            "room_messages",
            "Messages that reached a room on this gateway.",
            None,
            MetricType::Counter,
        )?;
        for room in &rooms {
            let labels = [("namespace", room.name().namespace()), ("room", room.name().name())];
            ConstCounter::new(room.messages()).encode(messages.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
