//! A real WebSocket room server, on a free port of this machine, that can be told to misbehave.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use hubbub_load::payload;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::broadcast,
    task::JoinSet,
};
use tokio_websockets::{CloseCode, Message, ServerBuilder};

/// What the server does wrong, with the sixth message of each publisher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manners {
    /// Nothing.
    Good,
    /// Members do not get it.
    Drop,
    /// Members get it twice.
    Double,
    /// Members get it after the seventh.
    Swap,
    /// Members get it with a changed letter.
    Corrupt,
    /// Members of all rooms get it.
    Misroute,
    /// Members are closed with this code instead, once each connection.
    Close(u16),
    /// Its sender alone is closed with this code.
    CloseSender(u16),
}

/// The sequence number of the message that is treated so.
const VICTIM: u32 = 5;

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

type Rooms = Arc<Mutex<HashMap<String, broadcast::Sender<Message>>>>;

impl Server {
    pub(crate) fn start(manners: Manners) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let rooms = Rooms::default();
            let mut members = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                members.spawn(serve(stream, Arc::clone(&rooms), manners));
            }
        });
        Self { address, _runtime: runtime }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}

async fn serve(stream: TcpStream, rooms: Rooms, manners: Manners) {
    stream.set_nodelay(true).unwrap();
    let Ok((request, mut socket)) = ServerBuilder::new().accept(stream).await else { return };
    let (room, mut messages) = {
        let mut rooms = rooms.lock().unwrap();
        let name = request.uri().path().to_owned();
        let room = rooms.entry(name).or_insert_with(|| broadcast::channel(4096).0);
        (room.clone(), room.subscribe())
    };
    let mut held: Option<Message> = None;
    loop {
        tokio::select! {
            incoming = socket.next() => {
                let Some(Ok(message)) = incoming else { return };
                if !(message.is_text() || message.is_binary()) {
                    continue;
                }
                if manners == Manners::Misroute && is_victim(&message) {
                    for room in rooms.lock().unwrap().values() {
                        let _ = room.send(message.clone());
                    }
                } else {
                    let victim = is_victim(&message);
                    let _ = room.send(message);
                    if let Manners::CloseSender(code) = manners && victim {
                        let code = CloseCode::try_from(code).unwrap();
                        let _ = socket.send(Message::close(Some(code), "as told")).await;
                        return;
                    }
                }
            }
            outgoing = messages.recv() => {
                let Ok(message) = outgoing else { return };
                let victim = is_victim(&message);
                let mut deliver = vec![message.clone()];
                match manners {
                    Manners::Drop if victim => deliver.clear(),
                    Manners::Double if victim => deliver.push(message),
                    Manners::Swap if victim => held = deliver.pop(),
                    Manners::Swap => deliver.extend(held.take()),
                    Manners::Corrupt if victim => deliver = vec![with_changed_letter(&message)],
                    Manners::Close(code) if victim => {
                        let code = CloseCode::try_from(code).unwrap();
                        let _ = socket.send(Message::close(Some(code), "as told")).await;
                        return;
                    }
                    _ => {}
                }
                for message in deliver {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn is_victim(message: &Message) -> bool {
    payload::read(message.as_payload()).is_ok_and(|stamp| stamp.sequence == VICTIM)
}

fn with_changed_letter(message: &Message) -> Message {
    let mut text = message.as_text().unwrap().to_owned();
    let last = text.pop().unwrap();
    text.push(if last == 'x' { 'y' } else { 'x' });
    Message::text(text)
}
