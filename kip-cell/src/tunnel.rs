//! Relays raw bytes between a gRPC stream and the runtime's streaming server, with TCP's half-close in both directions.

use kip_cell_api::v1::TunnelFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

/// Bytes of one frame at most.
const FRAME: usize = 32 * 1024;
/// Frames on the way to a slow peer; beyond that the socket is not read, so memory stays bounded.
const FRAMES: usize = 4;

/// Dials the server and relays until both sides are done, or one breaks.
pub(crate) async fn open(
    address: &str,
    frames: Streaming<TunnelFrame>,
) -> Result<impl Stream<Item = Result<TunnelFrame, Status>> + Send + use<>, Status> {
    let dialled = TcpStream::connect(address).await;
    let stream = dialled.map_err(|error| {
        Status::unavailable(format!(
            "the container runtime's streaming server on {address} does not answer: {error}"
        ))
    })?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small writes may be delayed");
    }
    let (from_server, to_server) = stream.into_split();
    let (sender, receiver) = mpsc::channel(FRAMES);
    tokio::spawn(async move {
        let errors = sender.clone();
        let down = async {
            let ended = read_server(from_server, sender).await;
            if ended.is_err() { Side::Broken } else { Side::Done }
        };
        let up = async {
            match write_server(frames, to_server).await {
                Ok(()) => Side::Done,
                Err(status) => {
                    // A client that left does not want the error.
                    drop(errors.send(Err(status)).await);
                    Side::Broken
                }
            }
        };
        let (mut down, mut up) = (std::pin::pin!(down), std::pin::pin!(up));
        // Either half may end first and the other go on, as with TCP; a broken half ends both.
        tokio::select! {
            side = &mut down => if side == Side::Done { up.await; },
            side = &mut up => if side == Side::Done { down.await; },
        }
    });
    Ok(ReceiverStream::new(receiver))
}

#[derive(PartialEq, Eq)]
enum Side {
    Done,
    Broken,
}

/// Passes the server's bytes on until it hangs up. Fails when the client is gone.
async fn read_server(
    mut server: OwnedReadHalf,
    client: mpsc::Sender<Result<TunnelFrame, Status>>,
) -> Result<(), ()> {
    let mut buffer = vec![0; FRAME];
    loop {
        let read = tokio::select! {
            read = server.read(&mut buffer) => read,
            () = client.closed() => return Err(()),
        };
        match read {
            Ok(0) => return Ok(()),
            Ok(n) => {
                let frame = TunnelFrame {
                    data: buffer[..n].to_vec(),
                };
                client.send(Ok(frame)).await.map_err(drop)?;
            }
            Err(error) => {
                let status = Status::aborted(format!(
                    "the container runtime's streaming server broke off: {error}"
                ));
                // A client that left does not want the error.
                drop(client.send(Err(status)).await);
                return Err(());
            }
        }
    }
}

/// Passes the client's bytes on until it closes its half.
async fn write_server(mut client: Streaming<TunnelFrame>, mut server: OwnedWriteHalf) -> Result<(), Status> {
    while let Some(frame) = client.next().await {
        let data = frame?.data;
        server
            .write_all(&data)
            .await
            .map_err(|error| Status::aborted(error.to_string()))?;
    }
    server
        .shutdown()
        .await
        .map_err(|error| Status::aborted(error.to_string()))
}
