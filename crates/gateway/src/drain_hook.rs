//! `hubbub-gateway drain`: asks the gateway of this machine to drain and waits until it is done. The image has no
//! shell and no curl, so the preStop hook is the gateway's own program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail};
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Drains the gateway behind this admin address; returns its receipt as JSON.
///
/// # Errors
///
/// When no gateway answers there, or it ends before it has answered.
pub async fn drain(admin: SocketAddr) -> anyhow::Result<String> {
    let address = reachable(admin);
    let stream = TcpStream::connect(address).await.with_context(|| {
        format!("no gateway listens on {address}; is --admin the gateway's --admin-listen?")
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::post("/drain").header(header::HOST, address.to_string()).body(Body::empty())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let ((status, body), _) = tokio::try_join!(answer, async {
        // An end of the connection that matters shows in the answer.
        let _ = connection.await;
        anyhow::Ok(())
    })
    .context("the gateway ended before it said that the drain was done")?;
    if status != StatusCode::OK {
        bail!("the gateway answered {status}: {body}");
    }
    Ok(body)
}

/// A wildcard address, as a listener has it, as one that can be connected to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
