//! What must become of a member who reads too slowly, and of those beside it.

use crate::{Client, Received};

/// Lets `sender` talk, in messages of so many bytes and 8 digits, in step with `reader` and past `slow`, until that one `is_out`. Then reads what was
/// left for it, and has the two others talk on.
///
/// # Panics
///
/// When it is never out, when what it gets is not whole and in order up to a close with 1013, when it has missed nothing, or
/// when the others miss anything.
pub async fn slow_reader_is_out_alone(
    sender: &mut Client,
    reader: &mut Client,
    slow: &mut Client,
    bytes: usize,
    is_out: impl AsyncFn() -> bool,
) {
    let numbered = |n: usize| format!("{n:08}{}", "x".repeat(bytes));
    let mut sent = 0;
    while !is_out().await {
        assert!(sent < 10_000, "far more than any buffer and queue hold, and nobody was out");
        // In step, so that nobody but the third falls behind.
        say_in_step(sender, reader, &numbered(sent)).await;
        sent += 1;
    }
    let mut got = 0;
    let code = loop {
        match slow.next_message().await {
            Received::Text(text) => {
                assert_eq!(text, numbered(got), "what it gets is in order and whole");
                got += 1;
            }
            Received::Close(close) => break close.map(|(code, _)| code),
            other => panic!("{other:?} after {got} of {sent} messages"),
        }
    };
    assert_eq!(code, Some(1013));
    assert!(got < sent, "it missed some");
    for n in sent..sent + 20 {
        say_in_step(sender, reader, &numbered(n)).await;
    }
}

async fn say_in_step(sender: &mut Client, reader: &mut Client, text: &str) {
    sender.send(text).await.expect("the sender stays");
    for client in [sender, reader] {
        assert_eq!(client.next_message().await, Received::Text(text.to_owned()));
    }
}
