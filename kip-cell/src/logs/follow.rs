//! Streams a run's log to a reader: the history, then (when followed) what is written, woken by the kernel, until the
//! container has ended or the reader leaves. Survives rotation.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};

use super::cursor::{Cursor, Options, Step};
use super::files;
use crate::reconcile::View;

/// Sends the log of run `id`, whose file is `path`, in pieces. Ends when it is complete or the receiver is gone.
pub(crate) async fn stream(
    path: PathBuf,
    id: String,
    options: Options,
    mut view: watch::Receiver<Arc<View>>,
    out: mpsc::Sender<std::io::Result<Vec<u8>>>,
) {
    if let Err(error) = try_stream(&path, &id, options, &mut view, &out).await {
        // A reader that left does not want the error.
        drop(out.send(Err(error)).await);
    }
}

async fn try_stream(
    path: &Path,
    id: &str,
    options: Options,
    view: &mut watch::Receiver<Arc<View>>,
    out: &mpsc::Sender<std::io::Result<Vec<u8>>>,
) -> std::io::Result<()> {
    let follow = options.follow;
    // Watched before the first read, so that nothing written in between is slept through.
    let changes = if follow { Some(Changes::new(path)?) } else { None };
    let (tail, only, owned) = (options.tail_lines, options.stream, path.to_path_buf());
    let mut cursor =
        blocking(move || files::open(&owned, tail, only).map(|files| Cursor::new(files, options))).await?;
    loop {
        // Asked before reading: what was written before the end is then read after it.
        let alive = follow && is_alive(&view.borrow_and_update(), id);
        let full = loop {
            let (step, bytes);
            (cursor, step, bytes) = blocking(move || {
                let mut bytes = Vec::new();
                let step = cursor.step(&mut bytes)?;
                Ok((cursor, step, bytes))
            })
            .await?;
            if !bytes.is_empty() && out.send(Ok(bytes)).await.is_err() {
                return Ok(());
            }
            match step {
                Step::More => {}
                Step::AtEnd if follow && next_file(&mut cursor, path)? => {}
                Step::AtEnd => break false,
                Step::Full => break true,
            }
        };
        if full {
            return Ok(());
        }
        let Some(changes) = changes.as_ref().filter(|_| alive) else {
            let mut rest = Vec::new();
            cursor.finish(&mut rest);
            if !rest.is_empty() {
                // A reader that left does not want the rest.
                drop(out.send(Ok(rest)).await);
            }
            return Ok(());
        };
        tokio::select! {
            changed = changes.wait() => changed?,
            changed = view.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = out.closed() => return Ok(()),
        }
    }
}

fn is_alive(view: &View, id: &str) -> bool {
    view.seen
        .runs
        .get(id)
        .is_some_and(crate::pod::model::Run::is_alive)
}

/// After a rotation: the path names another file than the one being read.
fn next_file(cursor: &mut Cursor, path: &Path) -> std::io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    let same = match cursor.current() {
        Some(current) => identity(current)? == identity(&file)?,
        None => false,
    };
    if !same {
        cursor.push(file);
    }
    Ok(!same)
}

/// The kernel's word that something in the log's folder was written or renamed.
struct Changes {
    /// An inotify descriptor: like a pipe, it becomes readable and is read; what it says does not matter.
    events: Receiver,
}

impl Changes {
    fn new(path: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, flags)?;
        Ok(Self {
            events: Receiver::from_owned_fd_unchecked(inotify.into())?,
        })
    }

    /// Returns after at least one change; all that are pending are taken.
    async fn wait(&self) -> std::io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut buffer) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}
