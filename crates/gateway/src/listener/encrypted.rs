//! The way in by TLS: first its handshake, then HTTP as on any other connection.
//!
//! It has a task from the beginning, because its handshake goes back and forth. All of that must be done in the time that a
//! request head has, too. A client that does not speak TLS is told so in the words that it understands, if it speaks HTTP.

use std::{io, pin::pin};

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{StatusCode, header};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{HEAD_TIME, Site, short_way::Fresh, talk, wire::Wire};
use crate::{events::tls::TlsOutcome, tls::Handshakes};

/// The first byte of a client that speaks TLS: of a record that belongs to a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Speaks TLS on one connection, and then HTTP.
pub(super) async fn converse(fresh: Fresh, tls: Handshakes, site: Site) {
    let Fresh { socket, peer, open } = fresh;
    let socket = match TcpStream::from_std(socket.into()) {
        Ok(socket) => socket,
        Err(error) => return site.events.accept_failed(&error),
    };
    let shaken = {
        let deadline = Instant::now() + HEAD_TIME;
        let shaking = timeout_at(deadline, shake_hands(socket, &tls));
        match select(pin!(shaking), pin!(site.stop.cancelled())).await {
            Either::Left((shaken, _)) => shaken,
            Either::Right(_) => return,
        }
    };
    let (outcome, error, wire) = match shaken {
        Ok(Ok(Some((outcome, wire)))) => (outcome, None, Some(wire)),
        Ok(Ok(None)) => return,
        Ok(Err(error)) => (TlsOutcome::Failed, Some(error), None),
        Err(_) => (TlsOutcome::Timeout, None, None),
    };
    tls.events.handshake_ended(outcome, peer, error.as_ref());
    let Some(wire) = wire else { return };
    let answer = matches!(wire, Wire::Left(_)).then(speak_tls);
    talk(wire, peer, open, Bytes::new(), answer, site).await;
}

/// The connection as it is spoken on from now on, by TLS or not. Nothing of one that ends without having sent anything: so do
/// load balancers that only look whether somebody listens.
async fn shake_hands(
    socket: TcpStream,
    tls: &Handshakes,
) -> io::Result<Option<(TlsOutcome, Wire)>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first != [HANDSHAKE_RECORD] {
        return Ok(Some((TlsOutcome::NotTls, Wire::Left(socket))));
    }
    let stream = tls.acceptor.accept(socket).await?;
    Ok(Some((TlsOutcome::Done, Wire::Right(Box::new(stream)))))
}

/// The answer to whatever is asked in plain HTTP.
fn speak_tls() -> Response {
    let words = "this port speaks TLS: use https:// for its pages, and wss:// for its rooms\n";
    (StatusCode::BAD_REQUEST, [(header::CONNECTION, "close")], words).into_response()
}
