//! A cell's byte tunnel as something hyper can speak HTTP over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Result;
use crate::runtime::{ByteDuplex, ByteSink};

/// Largest piece handed to the tunnel at once: gRPC messages stay far below their 4 MiB limit.
const PIECE: usize = 32 * 1024;

type SinkBox = Box<dyn ByteSink>;
type Sending = Pin<Box<dyn Future<Output = (SinkBox, Result<()>)> + Send>>;

/// Reads from and writes to a [`ByteDuplex`]. One piece is in flight to the host at a time, so a slow host slows the client down.
pub(super) struct DuplexIo {
    from_host: BoxStream<'static, Result<Vec<u8>>>,
    /// Received and not yet read, from `.1` on.
    unread: (Vec<u8>, usize),
    writer: Writer,
}

enum Writer {
    Idle(SinkBox),
    Busy(Sending),
    Closing(Sending),
    Closed,
}

impl DuplexIo {
    pub(super) fn new(duplex: ByteDuplex) -> Self {
        Self {
            from_host: duplex.from_host,
            unread: (Vec::new(), 0),
            writer: Writer::Idle(duplex.to_host),
        }
    }

    /// Waits until the piece in flight is accepted.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.writer {
            Writer::Idle(_) => Poll::Ready(Ok(())),
            Writer::Busy(sending) => {
                let (sink, result) = ready!(sending.as_mut().poll(cx));
                self.writer = Writer::Idle(sink);
                Poll::Ready(result.map_err(io::Error::other))
            }
            Writer::Closing(_) | Writer::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncRead for DuplexIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let this = &mut *self;
            let rest = this.unread.0.get(this.unread.1..).unwrap_or_default();
            if !rest.is_empty() {
                let take = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..take).unwrap_or_default());
                this.unread.1 += take;
                return Poll::Ready(Ok(()));
            }
            match ready!(this.from_host.poll_next_unpin(cx)) {
                Some(Ok(bytes)) => this.unread = (bytes, 0),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for DuplexIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_idle(cx))?;
        let Writer::Idle(mut sink) = std::mem::replace(&mut self.writer, Writer::Closed) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let piece = buf.get(..buf.len().min(PIECE)).unwrap_or_default().to_vec();
        let accepted = piece.len();
        let mut sending: Sending = Box::pin(async move {
            let result = sink.send(piece).await;
            (sink, result)
        });
        // Polled at once, so that the piece is on its way before the caller is told it was taken.
        self.writer = match sending.as_mut().poll(cx) {
            Poll::Ready((sink, Ok(()))) => Writer::Idle(sink),
            Poll::Ready((_, Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
            Poll::Pending => Writer::Busy(sending),
        };
        Poll::Ready(Ok(accepted))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.writer {
            Writer::Closing(_) | Writer::Closed => Poll::Ready(Ok(())),
            Writer::Idle(_) | Writer::Busy(_) => self.poll_idle(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.writer {
                Writer::Closed => return Poll::Ready(Ok(())),
                Writer::Closing(closing) => {
                    let (_, result) = ready!(closing.as_mut().poll(cx));
                    self.writer = Writer::Closed;
                    return Poll::Ready(result.map_err(io::Error::other));
                }
                Writer::Idle(_) | Writer::Busy(_) => {
                    ready!(self.poll_idle(cx))?;
                    if let Writer::Idle(mut sink) = std::mem::replace(&mut self.writer, Writer::Closed) {
                        self.writer = Writer::Closing(Box::pin(async move {
                            let result = sink.close().await;
                            (sink, result)
                        }));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;

    use super::*;
    use crate::error::{Error, ErrorKind};

    struct Channel(Option<mpsc::Sender<Vec<u8>>>);

    #[async_trait]
    impl ByteSink for Channel {
        async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
            match &self.0 {
                Some(sender) => sender
                    .send(bytes)
                    .await
                    .map_err(|_| Error::new(ErrorKind::Unavailable, "send", "closed")),
                None => Err(Error::new(ErrorKind::Unavailable, "send", "closed")),
            }
        }
        async fn close(&mut self) -> Result<()> {
            self.0 = None;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_megabyte_through_a_slow_tunnel_arrives_whole_and_half_close_reaches_the_host() {
        let (to_host, mut host_in) = mpsc::channel::<Vec<u8>>(1);
        let (host_out, from_host) = mpsc::channel::<Vec<u8>>(1);
        let from_host = futures::stream::unfold(from_host, |mut receiver| async move {
            receiver.recv().await.map(|bytes| (Ok(bytes), receiver))
        });
        let io = DuplexIo::new(ByteDuplex {
            from_host: from_host.boxed(),
            to_host: Box::new(Channel(Some(to_host))),
        });
        let echo = tokio::spawn(async move {
            // The host answers only after it has seen the end: what `cat | sort` would do.
            let mut all = Vec::new();
            while let Some(bytes) = host_in.recv().await {
                all.extend(bytes);
            }
            for piece in all.chunks(7_000) {
                host_out
                    .send(piece.to_vec())
                    .await
                    .expect("the client reads to the end");
            }
        });
        let sent: Vec<u8> = (0..1_000_000_u32)
            .map(|i| u8::try_from(i % 251).unwrap_or(0))
            .collect();
        let (mut reader, mut writer) = tokio::io::split(io);
        writer.write_all(&sent).await.expect("writes");
        writer.shutdown().await.expect("half-closes");
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.expect("reads");
        echo.await.expect("host");
        assert!(sent == received, "the bytes differ");
    }
}
