//! A well-behaved member of a room that lives in the background: it hears everything, answers pings and closes, and
//! says what it is told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use hubbub_websocket::Opcode;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{Client, Received, eventually, http::Answer};

/// Messages that may wait for the background task.
const WAITING: usize = 64;

#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Received>,
    pings: usize,
    close: Option<(u16, Instant)>,
    ended: bool,
}

/// See the module. Dropped, it is gone without a word.
#[derive(Debug)]
pub struct Member {
    say: mpsc::Sender<(Opcode, Vec<u8>)>,
    heard: Arc<Mutex<Heard>>,
    /// Ends with the member.
    _task: JoinSet<()>,
}

impl Member {
    /// Joins the room at `path`.
    ///
    /// # Errors
    ///
    /// The answer, when it is refused.
    ///
    /// # Panics
    ///
    /// When the server cannot be reached or never answers.
    pub async fn join(
        server: SocketAddr,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Self, Answer> {
        Ok(Self::of(Client::join(server, path, origin).await?))
    }

    /// Lets a client live on in the background.
    #[must_use]
    pub fn of(client: Client) -> Self {
        let (say, said) = mpsc::channel(WAITING);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut task = JoinSet::new();
        task.spawn(live(client, said, Arc::clone(&heard)));
        Self { say, heard, _task: task }
    }

    /// Sends a text message.
    pub async fn send(&self, text: &str) {
        self.send_frame(Opcode::Text, text.as_bytes()).await;
    }

    /// Sends a message or a control frame. Does nothing once the connection has ended.
    pub async fn send_frame(&self, opcode: Opcode, payload: &[u8]) {
        // It fails only when the connection has ended, which the test sees by what it hears.
        let _ = self.say.send((opcode, payload.to_vec())).await;
    }

    /// Every message so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Received> {
        self.look(|heard| heard.messages.clone())
    }

    /// Every text message so far.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let messages = self.messages().into_iter();
        let texts = messages.filter_map(|message| match message {
            Received::Text(text) => Some(text),
            _ => None,
        });
        texts.collect()
    }

    /// How many messages so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.look(|heard| heard.messages.len())
    }

    /// Whether that text came.
    #[must_use]
    pub fn has_heard(&self, text: &str) -> bool {
        self.look(|heard| {
            heard.messages.iter().any(|m| matches!(m, Received::Text(t) if t == text))
        })
    }

    /// Waits until that text comes.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn hears(&self, text: &str) {
        eventually(&format!("{text:?} is heard"), || self.has_heard(text)).await;
    }

    /// How many pings came.
    #[must_use]
    pub fn pings(&self) -> usize {
        self.look(|heard| heard.pings)
    }

    /// The code of the server's close frame, if one came; 1005 for one without a code.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        self.look(|heard| heard.close.map(|(code, _)| code))
    }

    /// When the server's close frame came.
    #[must_use]
    pub fn closed_at(&self) -> Option<Instant> {
        self.look(|heard| heard.close.map(|(_, at)| at))
    }

    /// Whether the connection has ended, in whatever way.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.look(|heard| heard.ended)
    }

    /// Waits for the end, and returns the code of the server's close frame.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn ended(&self) -> Option<u16> {
        eventually("the connection ends", || self.has_ended()).await;
        self.close_code()
    }

    fn look<T>(&self, at: impl FnOnce(&Heard) -> T) -> T {
        at(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn live(
    mut client: Client,
    mut said: mpsc::Receiver<(Opcode, Vec<u8>)>,
    heard: Arc<Mutex<Heard>>,
) {
    let note = |write: &dyn Fn(&mut Heard)| {
        write(&mut heard.lock().unwrap_or_else(PoisonError::into_inner));
    };
    loop {
        // What cannot be sent any more shows as the end when the client is read.
        tokio::select! {
            received = client.receive() => match received {
                Received::Ping(payload) => {
                    note(&|heard| heard.pings += 1);
                    let _ = client.send_frame(true, Opcode::Pong, &payload).await;
                }
                Received::Pong(_) => {}
                Received::Close(close) => {
                    let code = close.map_or(1005, |(code, _)| code);
                    note(&|heard| {
                        heard.close.get_or_insert((code, Instant::now()));
                    });
                    let _ = client.send_close(if code == 1005 { 1000 } else { code }).await;
                }
                Received::End => {
                    note(&|heard| heard.ended = true);
                    return;
                }
                message => note(&|heard| heard.messages.push(message.clone())),
            },
            Some((opcode, payload)) = said.recv() => {
                let _ = client.send_frame(true, opcode, &payload).await;
            }
        }
    }
}
