//! A two-way byte stream through the agent, for exec, attach and port-forward.

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream;
use kip_cell_api::v1::TunnelFrame;
use kip_cell_api::v1::cell_client::CellClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::errors::from_status;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CellName;
use crate::runtime::{ByteDuplex, ByteSink};

/// Frames under way to the host before the sender waits: with [`FRAME_BYTES`] at most half a mebibyte a session.
const FRAMES_IN_FLIGHT: usize = 8;
/// Most bytes in one frame, well below gRPC's message limit.
const FRAME_BYTES: usize = 64 * 1024;
const OP: &str = "open session";

/// Opens a tunnel to the host's streaming server.
pub(super) async fn open(mut client: CellClient<Channel>, cell: CellName) -> Result<ByteDuplex> {
    let (sender, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
    // The contract's first, empty frame. There is room: the channel is new and its receiver is alive.
    let _ = sender.send(TunnelFrame { data: Vec::new() }).await;
    let incoming = client
        .tunnel(ReceiverStream::new(receiver))
        .await
        .map_err(|status| from_status(status, OP, &cell))?
        .into_inner();
    let named = cell.clone();
    let from_host = incoming
        .map(move |frame| match frame {
            Ok(frame) => Ok(frame.data),
            Err(status) => Err(from_status(status, OP, &named)),
        })
        .filter(|frame| std::future::ready(!matches!(frame, Ok(data) if data.is_empty())));
    // Nothing follows an error.
    let from_host = stream::unfold(Some(from_host.boxed()), |state| async move {
        let mut stream = state?;
        match stream.next().await? {
            Ok(data) => Some((Ok(data), Some(stream))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(ByteDuplex {
        from_host: from_host.boxed(),
        to_host: Box::new(Sink {
            sender: Some(sender),
            cell,
        }),
    })
}

struct Sink {
    sender: Option<mpsc::Sender<TunnelFrame>>,
    cell: CellName,
}

#[async_trait]
impl ByteSink for Sink {
    async fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        let closed = || {
            Error::new(ErrorKind::Unavailable, OP, "the session is closed").with_context("cell", &self.cell)
        };
        let sender = self.sender.as_ref().ok_or_else(closed)?;
        if bytes.len() <= FRAME_BYTES {
            if bytes.is_empty() {
                return Ok(());
            }
            return sender
                .send(TunnelFrame { data: bytes })
                .await
                .map_err(|_| closed());
        }
        for chunk in bytes.chunks(FRAME_BYTES) {
            let frame = TunnelFrame { data: chunk.to_vec() };
            sender.send(frame).await.map_err(|_| closed())?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        // The end of the request stream is the half-close.
        self.sender = None;
        Ok(())
    }
}
