//! What happens to a member: it connects, hears, is closed, leaves, comes back.

use std::{cmp::Reverse, io, time::Duration};

use hubbub_telemetry::{Kind, OpenSpan, Traces, names};
use hubbub_websocket::{
    Event, Limits, Opcode,
    handshake::client::{Key, Request, ResponseError},
    write_close,
};
use mio::{Interest, Token};

use crate::{
    control::Stage,
    link::{Input, Link, Phase},
    plan::{Part, Target},
    reconnect::{self, ABNORMAL, Cause},
    tally::Closed,
};

use super::{Worker, hearing::Ears, publishing};

/// Far more than this program sends; what somebody else says in the room must pass too.
const LIMITS: Limits = Limits::for_message_bytes(16 << 20);

/// The code noted for a close frame without one (RFC 6455, section 7.1.5).
const NO_CODE: u16 = 1005;

/// A connection that lasted so long ends a series of failures.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);

/// A member of a room, connected or not.
#[derive(Debug)]
pub(super) struct Member {
    /// Its number over all workers.
    pub(super) index: u64,
    pub(super) room: u32,
    pub(super) part: Part,
    pub(super) link: Option<Link>,
    pub(super) ears: Ears,
    /// Since when it is away, if it means to come back.
    away_since: Option<u64>,
    /// Whether it came back at least once.
    pub(super) came_back: bool,
    /// Failures in a row.
    attempts: u32,
    /// Connections tried so far.
    connections: u64,
    /// Whether its first connection has succeeded or failed for good.
    settled: bool,
}

impl Member {
    pub(super) fn new(index: u64, room: u32, part: Part, ears: Ears) -> Self {
        Self {
            index,
            room,
            part,
            link: None,
            ears,
            away_since: None,
            came_back: false,
            attempts: 0,
            connections: 0,
            settled: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.link.as_ref().is_some_and(|link| matches!(link.phase, Phase::Open))
    }
}

/// The span of a handshake with this server, if handshakes are traced.
fn handshake_span(traces: &Traces, target: &Target, path: &str) -> OpenSpan {
    if !traces.is_on() {
        return OpenSpan::none();
    }
    let span = OpenSpan::begin(names::span::CLIENT_HANDSHAKE, Kind::Client);
    span.set(names::http::METHOD, "GET");
    span.set(names::http::SERVER, target.address.ip().to_string());
    span.set(names::http::SERVER_PORT, i64::from(target.address.port()));
    span.set(names::http::PATH, path.split('?').next().unwrap_or_default().to_owned());
    span
}

impl Worker<'_> {
    /// Begins a connection.
    pub(super) fn connect(&mut self, local: usize) {
        let member = &mut self.members[local];
        let target = self.plan.target(member.index, member.connections);
        let (address, secure) = (target.address, target.secure.as_ref());
        let source = self.plan.source(member.index + member.connections);
        member.connections += 1;
        self.in_flight += 1;
        let key = Key::from_nonce(self.random.nonce());
        let speech = self.plan.protocol.speech();
        let link =
            Link::connect(address, source, secure, key, speech, self.now).and_then(|mut link| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(link.stream.source(), Token(local), interest)?;
                Ok(link)
            });
        match link {
            Ok(link) => member.link = Some(link),
            Err(error) => self.connect_failed(local, &error.to_string(), Cause::Unreachable),
        }
    }

    /// The socket of a member can be read or written, or has ended.
    pub(super) fn ready(&mut self, local: usize, writable: bool, readable: bool, ending: bool) {
        let Some(link) = &mut self.members[local].link else { return };
        if matches!(link.phase, Phase::Connecting) {
            match link.connected() {
                Ok(true) => self.request(local),
                Ok(false) => return,
                Err(error) => {
                    self.connect_failed(local, &error.to_string(), Cause::Unreachable);
                    return;
                }
            }
        } else if writable && link.flush().is_err() {
            self.ended(local);
        }
        if (readable || ending) && !self.holds_back(local) {
            self.read(local, ending);
        }
    }

    /// Whether the member does not read for now.
    fn holds_back(&self, local: usize) -> bool {
        let member = &self.members[local];
        member.part == Part::Slow && member.is_open() && self.stage < Stage::Tail
    }

    /// Sends the handshake's request.
    fn request(&mut self, local: usize) {
        let member = &mut self.members[local];
        let Some(link) = &mut member.link else { return };
        let target = self.plan.target(member.index, member.connections - 1);
        let path = target.path(member.room);
        let origin = self.plan.origin.as_deref();
        link.span = handshake_span(&self.plan.traces, target, &path);
        let traceparent = link.span.context().map(|span| span.traceparent());
        let traced = traceparent.as_ref().map(|value| [(names::TRACEPARENT, value.as_str())]);
        let headers = traced.as_ref().map_or(&[][..], |header| &header[..]);
        let request = Request { origin, headers, ..Request::new(&target.authority, &path) };
        let sent = match request.to_bytes(&link.key) {
            Ok(bytes) => link.send(&bytes),
            Err(error) => Err(io::Error::other(error)),
        };
        link.phase = Phase::Handshake(Vec::new());
        if let Err(error) = sent {
            self.connect_failed(local, &error.to_string(), Cause::Unreachable);
        }
    }

    /// Reads what the socket holds.
    pub(super) fn read(&mut self, local: usize, ending: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(link) = &mut self.members[local].link {
            match link.read(&mut buffer) {
                Input::Bytes { count, drained } => {
                    self.now = self.control.now();
                    self.received(local, &mut buffer[..count]);
                    if drained && !ending {
                        break;
                    }
                }
                Input::Nothing => break,
                Input::End => self.ended(local),
                Input::Failed(reason) if !matches!(link.phase, Phase::Open | Phase::Leaving) => {
                    self.connect_failed(local, &reason, Cause::Unreachable);
                }
                Input::Failed(_) => self.ended(local),
            }
        }
        self.buffer = buffer;
    }

    fn received(&mut self, local: usize, bytes: &mut [u8]) {
        let member = &mut self.members[local];
        let Some(link) = &mut member.link else { return };
        match &mut link.phase {
            Phase::Joining { .. } | Phase::Open | Phase::Leaving => self.decode(local, bytes),
            Phase::Connecting | Phase::Closed => {}
            Phase::Handshake(head) => {
                head.extend_from_slice(bytes);
                let target = self.plan.target(member.index, member.connections - 1);
                let path = target.path(member.room);
                let request = Request::new(&target.authority, &path);
                match request.check_response(&link.key, head) {
                    Ok(None) => {}
                    Ok(Some(len)) => {
                        let mut rest = head.split_off(len);
                        self.upgraded(local);
                        self.decode(local, &mut rest);
                    }
                    Err(error) => {
                        let cause = match error {
                            ResponseError::Refused { status, .. } => Cause::Refused(status),
                            _ => Cause::Unreachable,
                        };
                        let mut reason = error.to_string();
                        if cause == Cause::Refused(403) {
                            reason.push_str(match self.plan.origin {
                                None => ": does the room want an Origin header? give it one with --origin",
                                Some(_) => ": does the room allow the page that --origin names?",
                            });
                        }
                        self.connect_failed(local, &reason, cause);
                    }
                }
            }
        }
    }

    fn decode(&mut self, local: usize, bytes: &mut [u8]) {
        let mut at = 0;
        loop {
            let member = &mut self.members[local];
            let Some(link) = &mut member.link else { return };
            let (used, event) = link.decoder.decode(&mut bytes[at..], LIMITS);
            at += used;
            match event {
                // What still comes while it leaves is not owed to it any more.
                Ok(Some(Event::Message { .. }))
                    if !matches!(link.phase, Phase::Open | Phase::Joining { .. }) => {}
                Ok(Some(Event::Message { kind, payload })) => match &mut link.speech {
                    None => {
                        member.ears.hear(&self.hearing, &mut self.tally, self.now, kind, payload);
                    }
                    Some(speech) => {
                        let kind = self.hearing.kind();
                        let hear = |payload: &[u8]| {
                            let Self { hearing, tally, now, .. } = self;
                            member.ears.hear(hearing, tally, *now, kind, payload);
                        };
                        speech.read(payload, hear, &mut self.signs);
                        self.follow_signs(local);
                    }
                },
                Ok(None) => return,
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Ping(payload))) => {
                    let payload = payload.to_vec();
                    self.count_ping();
                    self.send_frame(local, Opcode::Pong, &payload);
                }
                Ok(Some(Event::Close(close))) => {
                    let code = close.map_or(NO_CODE, |close| close.code);
                    self.close_received(local, code);
                    return;
                }
                Err(violation) => {
                    *self.tally.violations.entry(violation.reason()).or_default() += 1;
                    self.ended(local);
                    return;
                }
            }
        }
    }

    /// The server has answered the handshake with 101.
    fn upgraded(&mut self, local: usize) {
        let Some(link) = &mut self.members[local].link else { return };
        let span = std::mem::take(&mut link.span);
        span.set(names::http::STATUS, 101);
        drop(span);
        if link.speech.is_none() {
            self.opened(local);
        } else {
            link.phase = Phase::Joining { asked: false };
            self.greet(local);
        }
    }

    /// The server has let the member in.
    pub(super) fn opened(&mut self, local: usize) {
        let member = &mut self.members[local];
        let Some(link) = &mut member.link else { return };
        link.phase = Phase::Open;
        self.tally.handshakes.saturating_record(self.now - link.since_ns);
        link.since_ns = self.now;
        self.tally.connects += 1;
        self.in_flight -= 1;
        self.open += 1;
        match (member.settled, member.part) {
            (false, _) => {}
            (true, Part::Passing) => self.tally.joins += 1,
            (true, _) => self.tally.reconnects += 1,
        }
        if let Some(since) = member.away_since.take() {
            member.came_back = true;
            self.tally.absences.came_back(self.now - since, self.now);
        }
        self.settle(local);
    }

    pub(super) fn connect_failed(&mut self, local: usize, reason: &str, cause: Cause) {
        self.in_flight -= 1;
        if let Some(link) = self.members[local].link.take() {
            match cause {
                Cause::Refused(status) => {
                    link.span.set(names::http::STATUS, i64::from(status));
                    link.span.fail("refused");
                }
                _ => link.span.fail("unreachable"),
            }
        }
        self.tally.failure(reason.to_owned());
        if !self.come_back(local, cause) {
            self.lose(local);
            self.settle(local);
        }
    }

    fn settle(&mut self, local: usize) {
        if !std::mem::replace(&mut self.members[local].settled, true) {
            self.settled += 1;
        }
    }

    /// Plans the next try, if the options and the cause allow one.
    fn come_back(&mut self, local: usize, cause: Cause) -> bool {
        let member = &mut self.members[local];
        if !self.plan.reconnect || self.stage >= Stage::Tail {
            return false;
        }
        let Some(delay) = reconnect::delay(cause, member.attempts, self.random.fraction()) else {
            return false;
        };
        member.attempts += 1;
        self.returns.push(Reverse((self.now + delay.as_nanos() as u64, local)));
        true
    }

    /// The server says goodbye, and is answered with the same code.
    fn close_received(&mut self, local: usize, code: u16) {
        let member = &mut self.members[local];
        let Some(link) = &mut member.link else { return };
        if matches!(link.phase, Phase::Joining { .. }) {
            let reason = format!("the server closed with code {code} before the member was in");
            self.connect_failed(local, &reason, self.plan.protocol.cause(code));
            return;
        }
        if !matches!(link.phase, Phase::Open) {
            return; // it answers ours
        }
        self.scratch.clear();
        let answer = if code == NO_CODE { 1000 } else { code };
        write_close(&mut self.scratch, Some(self.random.key()), answer, "");
        let answered = link.send(&self.scratch);
        self.closed(local, code);
        match (&mut self.members[local].link, answered) {
            (Some(link), Ok(())) => link.phase = Phase::Closed,
            (link, _) => *link = None,
        }
    }

    /// An open member was closed by the server.
    pub(super) fn closed(&mut self, local: usize, code: u16) {
        let member = &mut self.members[local];
        if let Some(link) = &member.link
            && self.now - link.since_ns >= GOOD_CONNECTION.as_nanos() as u64
        {
            member.attempts = 0;
        }
        let slow = member.part == Part::Slow;
        self.open -= 1;
        self.tally.faults.missing += member.ears.away();
        self.tally.closes.push(Closed { at_ns: self.now, code, slow });
        let comes_back = self.come_back(local, self.plan.protocol.cause(code));
        if comes_back {
            self.members[local].away_since = Some(self.now);
        }
        let expected = self.plan.expected_closes.contains(&code);
        if !(slow || expected || comes_back) {
            self.tally.thrown_out += 1;
            self.lose(local);
        }
    }

    /// A member is away for good, and was not to be.
    fn lose(&mut self, local: usize) {
        if publishing::place(self.members[local].part).is_some() {
            self.lost_publishers += 1;
        }
    }

    /// The connection is no more, whoever ended it and however.
    pub(super) fn ended(&mut self, local: usize) {
        let Some(link) = &self.members[local].link else { return };
        match link.phase {
            Phase::Connecting | Phase::Handshake(_) | Phase::Joining { .. } => {
                let reason = "the server ended the connection during the handshake";
                self.connect_failed(local, reason, Cause::Unreachable);
            }
            Phase::Open => {
                self.closed(local, ABNORMAL);
                self.members[local].link = None;
            }
            Phase::Leaving => self.left(local),
            Phase::Closed => self.members[local].link = None,
        }
    }

    /// Begins to leave, to be followed by another member on the same seat.
    pub(super) fn leave(&mut self, local: usize) {
        let member = &mut self.members[local];
        let Some(link) = &mut member.link else { return };
        self.scratch.clear();
        write_close(&mut self.scratch, Some(self.random.key()), 1000, "");
        let sent = link.send(&self.scratch);
        link.phase = Phase::Leaving;
        link.since_ns = self.now;
        self.open -= 1;
        self.tally.faults.missing += member.ears.away();
        if sent.is_err() {
            self.left(local);
        }
    }

    pub(super) fn left(&mut self, local: usize) {
        self.members[local].link = None;
        self.tally.leaves += 1;
        if self.stage == Stage::Run {
            self.waiting.push_back(local);
        }
    }
}
