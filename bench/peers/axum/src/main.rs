//! A peer of the benchmarks: what a Rust developer writes first, WebSockets of axum and a broadcast channel of tokio for each
//! room.
//!
//! Kept as one would write it and not tuned, but for `--read-buffer`, which is the one setting that counts for memory (axum
//! reserves 128 KiB a connection by default). A member that lags behind the channel misses messages, and nobody is told.

use std::{
    collections::HashMap,
    env,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{
        Path, State,
        ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, header::ORIGIN},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
    time::{MissedTickBehavior, interval},
};

/// Messages that a room's channel holds for its slowest member.
const QUEUE: usize = 256;

struct Chat {
    origin: String,
    ping_period: Duration,
    read_buffer: Option<usize>,
    rooms: Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>,
}

impl Chat {
    fn room(&self, name: String) -> broadcast::Sender<Utf8Bytes> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(name).or_insert_with(|| broadcast::channel(QUEUE).0).clone()
    }
}

async fn join(
    State(chat): State<Arc<Chat>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    mut upgrade: WebSocketUpgrade,
) -> Response {
    if headers.get(ORIGIN).is_none_or(|origin| origin != chat.origin.as_str()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(bytes) = chat.read_buffer {
        upgrade = upgrade.read_buffer_size(bytes);
    }
    let room = chat.room(format!("{namespace}/{name}"));
    let ping_period = chat.ping_period;
    upgrade.on_upgrade(move |socket| member(socket, room, ping_period))
}

async fn member(socket: WebSocket, room: broadcast::Sender<Utf8Bytes>, ping_period: Duration) {
    let mut messages = room.subscribe();
    let (mut sender, mut receiver) = socket.split();
    let mut writing = tokio::spawn(async move {
        let mut pings = interval(ping_period);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.tick().await;
        loop {
            let frame = tokio::select! {
                message = messages.recv() => match message {
                    Ok(text) => Message::Text(text),
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => break,
                },
                _ = pings.tick() => Message::Ping(Default::default()),
            };
            if sender.send(frame).await.is_err() {
                break;
            }
        }
    });
    let mut reading = tokio::spawn(async move {
        while let Some(Ok(message)) = receiver.next().await {
            if let Message::Text(text) = message {
                let _ = room.send(text);
            }
        }
    });
    tokio::select! {
        _ = &mut writing => reading.abort(),
        _ = &mut reading => writing.abort(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = HashMap::new();
    let mut words = env::args().skip(1);
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        options.insert(option, value);
    }
    let option = |name: &str, default: &str| {
        options.get(name).map_or_else(|| default.to_owned(), Clone::clone)
    };
    let address: SocketAddr = option("--addr", "127.0.0.1:0").parse()?;
    let pong_wait: u64 = option("--pong-wait", "60").parse()?;
    let chat = Chat {
        origin: option("--origin", "https://chat.example.com"),
        ping_period: Duration::from_millis(pong_wait * 900),
        read_buffer: options.get("--read-buffer").map(|bytes| bytes.parse()).transpose()?,
        rooms: Mutex::default(),
    };
    let router =
        Router::new().route("/rooms/{namespace}/{name}", get(join)).with_state(Arc::new(chat));
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
