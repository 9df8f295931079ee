//! Which span is meant, within this process and in the header `traceparent` between processes.

use std::num::NonZeroU64;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A span that is kept, by its trace and itself: 24 bytes, also as an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRef {
    trace: [u64; 2],
    span: NonZeroU64,
}

/// A span that another program names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Which.
    pub span: SpanRef,
    /// Whether that program keeps it.
    pub sampled: bool,
}

impl SpanRef {
    /// The trace's id: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:016x}{:016x}", self.trace[0], self.trace[1])
    }

    /// The span as a `traceparent` header names it; it is kept.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let Self { trace: [high, low], span } = self;
        format!("00-{high:016x}{low:016x}-{span:016x}-01")
    }

    pub(crate) fn of(context: &SpanContext) -> Option<Self> {
        if !context.is_sampled() {
            return None;
        }
        Self::new(
            u128::from_be_bytes(context.trace_id().to_bytes()),
            u64::from_be_bytes(context.span_id().to_bytes()),
        )
    }

    fn new(trace: u128, span: u64) -> Option<Self> {
        let span = NonZeroU64::new(span)?;
        // Both halves, without loss.
        let trace_halves = [(trace >> 64) as u64, trace as u64];
        (trace != 0).then_some(Self { trace: trace_halves, span })
    }

    pub(crate) fn context(self, sampled: bool, remote: bool) -> SpanContext {
        let [high, low] = self.trace.map(u128::from);
        SpanContext::new(
            TraceId::from(high << 64 | low),
            SpanId::from(self.span.get()),
            if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
            remote,
            TraceState::NONE,
        )
    }
}

impl Remote {
    /// Reads a `traceparent` header (W3C Trace Context, level 1): none if it is malformed, as the specification has it.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let hex = |text: &str, digits: usize| {
            text.len() == digits
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = header.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let well_formed =
            hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && version != "ff";
        // Later versions may say more; this one may not.
        if !well_formed || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let span = SpanRef::new(trace, u64::from_str_radix(span, 16).ok()?)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { span, sampled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_member_keeps_24_bytes() {
        assert_eq!(size_of::<Option<SpanRef>>(), 24);
    }

    #[test]
    fn what_is_written_is_read() {
        let header = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let remote = Remote::parse(&header).unwrap();
        assert!(remote.sampled);
        assert_eq!(remote.span.traceparent(), header);
        assert_eq!(remote.span.trace_id(), TRACE);
        let context = remote.span.context(true, true);
        assert_eq!(context.trace_id().to_string(), TRACE);
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert_eq!(SpanRef::of(&context), Some(remote.span));
        assert_eq!(SpanRef::of(&remote.span.context(false, true)), None);
    }

    #[test]
    fn flags_and_later_versions() {
        let parse = |header: String| Remote::parse(&header).map(|remote| remote.sampled);
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            assert_eq!(parse(format!("00-{TRACE}-00f067aa0ba902b7-{flags}")), Some(sampled));
        }
        assert_eq!(parse(format!("cc-{TRACE}-00f067aa0ba902b7-01-more")), Some(true));
    }

    #[test]
    fn anything_else_is_nothing() {
        let zeros = "0".repeat(32);
        let upper = TRACE.to_uppercase();
        for wrong in [
            String::new(),
            "-".repeat(55),
            "00-é".to_owned(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{upper}-00f067aa0ba902b7-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-00f067aa0ba902b-01"),
            format!("00-{TRACE}-+0f067aa0ba902b7-01"),
            format!(" 00-{TRACE}-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(Remote::parse(&wrong), None, "{wrong}");
        }
    }
}
