//! Notices of a queue that EventBridge fills: spot interruptions, recommendations to move, scheduled maintenance, and instances that end.

mod message;
mod queue;

use std::collections::VecDeque;

use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use kip_core::error::Result;
use kip_core::provider::{InterruptionFeed, InterruptionNotice};

pub(crate) use queue::{Queue, check};

/// The notices of one queue.
///
/// A message is deleted once its notices were taken, whoever it is about: a queue serves one Kip. Should the process end before, the message
/// comes again, and the same notice twice does nothing twice. What is not understood is deleted too, or it would come for ever.
#[derive(Clone, Debug)]
pub(crate) struct Feed(Queue);

impl Feed {
    pub(crate) fn new(queue: Queue) -> Self {
        Self(queue)
    }
}

impl InterruptionFeed for Feed {
    fn notices(&self) -> BoxStream<'static, Result<InterruptionNotice>> {
        let reader = Reader {
            queue: self.0.clone(),
            notices: VecDeque::new(),
            receipts: Vec::new(),
        };
        stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await;
            Some((next, reader))
        })
        .boxed()
    }
}

/// Reads the queue on.
struct Reader {
    queue: Queue,
    /// What was read and not taken yet.
    notices: VecDeque<InterruptionNotice>,
    /// The messages it came with.
    receipts: Vec<String>,
}

impl Reader {
    /// The next notice, however long it takes.
    async fn next(&mut self) -> Result<InterruptionNotice> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(notice);
            }
            let taken = std::mem::take(&mut self.receipts);
            if !taken.is_empty()
                && let Err(error) = self.queue.delete(taken).await
            {
                // They come again, and are heard again.
                tracing::warn!(error = %error.chain(), "messages of the interruption queue cannot be deleted");
            }
            for message in self.queue.receive().await? {
                match message::parse(&message.body, Timestamp::now()) {
                    Ok(notices) => self.notices.extend(notices),
                    Err(reason) => {
                        tracing::debug!(
                            reason,
                            "a message of the interruption queue is none of Kip's business"
                        );
                    }
                }
                self.receipts.push(message.receipt);
            }
        }
    }
}
