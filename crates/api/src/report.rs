//! What a gateway answers: the policies it runs and the connections it holds, as JSON on its report subject.
//!
//! Every gateway and the operator hear every report. Reports are frequent and small, and the next one replaces the last,
//! so a lost one needs no repair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::room_name::{NameError, RoomName};

/// The schema of [`GatewayReport`] that this program writes, and the newest it reads.
pub const REPORT_SCHEMA: u32 = 1;

/// Why a report cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The text is not JSON, or not of this shape.
    #[error("not a gateway report: {0}")]
    Json(#[from] serde_json::Error),
    /// The report was written by a newer program.
    #[error(
        "report schema {found} is newer than {known}, the newest this program reads: upgrade this program"
    )]
    NewerSchema {
        /// The schema of the report.
        found: u32,
        /// The newest schema that this program reads.
        known: u32,
    },
    /// A key of the connections is not the name of a room.
    #[error("the report counts a room with a wrong name: {0}")]
    Room(#[from] NameError),
}

/// What became of a gateway's members when it drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainReport {
    /// Milliseconds from the beginning of the drain to the end of the last connection.
    pub milliseconds: u64,
    /// Members who were sent away in good order.
    pub moved: u64,
    /// Members who were dropped without that.
    pub cut: u64,
}

/// The state of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReport {
    /// [`REPORT_SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The gateway's id: its pod's or host's name.
    pub gateway: String,
    /// The pool that it belongs to.
    pub pool: String,
    /// The highest revision of the policy bucket that it has applied; 0 before the first and for policies from files.
    pub applied_revision: u64,
    /// When the bucket was made that this revision counts in, in nanoseconds since 1970 as NATS tells it. A bucket that
    /// was lost and made anew counts from 1 again, so a revision alone says nothing. None before the first revision
    /// and for policies from files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<i64>,
    /// Whether it is on its way out.
    #[serde(default)]
    pub draining: bool,
    /// Connections by room, `namespace/name`; rooms without any may be left out.
    #[serde(default)]
    pub connections: BTreeMap<String, u64>,
    /// A random number while its connection to NATS is new: everybody is asked to report at once, with this number
    /// among the answers. Reports that waited in an old connection are known by not having it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<u32>,
    /// The numbers of those who have asked since the last report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<u32>,
    /// How its drain went; only in its very last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainReport>,
    /// Milliseconds since 1970 by the gateway's clock, for people who read reports; nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_unix_ms: Option<u64>,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

impl GatewayReport {
    /// The connections of a room on this gateway.
    #[must_use]
    pub fn connections_of(&self, room: &RoomName) -> u64 {
        self.connections.get(room.as_str()).copied().unwrap_or(0)
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When it is not JSON of this shape, was written by a newer program, or counts a room that cannot exist.
    pub fn from_json(json: &[u8]) -> Result<Self, ReportError> {
        let SchemaOnly { schema: found } = serde_json::from_slice(json)?;
        if found > REPORT_SCHEMA {
            return Err(ReportError::NewerSchema { found, known: REPORT_SCHEMA });
        }
        let report: Self = serde_json::from_slice(json)?;
        for room in report.connections.keys() {
            room.parse::<RoomName>()?;
        }
        Ok(report)
    }

    /// Writes the report as one line of JSON.
    ///
    /// # Errors
    /// None for a value of this type; it is there because the writer has one.
    pub fn to_json(&self) -> Result<Vec<u8>, ReportError> {
        Ok(serde_json::to_vec(self)?)
    }
}
