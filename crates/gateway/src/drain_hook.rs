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
    let addresses = reachable(admin);
    let stream = TcpStream::connect(&addresses[..]).await.with_context(|| {
        let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let tried = tried.join(" or ");
        format!("no gateway listens on {tried}; is --admin the gateway's --admin-listen?")
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::post("/drain").header(header::HOST, admin.to_string()).body(Body::empty())?;
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

/// A wildcard address, as a listener has it, as what can be connected to. A gateway that listens on `[::]` takes IPv4 as well, or
/// IPv4 alone where there is no IPv6, and one that listens on 127.0.0.1 is on this machine, too.
fn reachable(admin: SocketAddr) -> Vec<SocketAddr> {
    let loopbacks: &[IpAddr] = match admin.ip() {
        ip if !ip.is_unspecified() => &[ip],
        IpAddr::V4(_) => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        IpAddr::V6(_) => &[IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    loopbacks.iter().map(|ip| SocketAddr::new(*ip, admin.port())).collect()
}
