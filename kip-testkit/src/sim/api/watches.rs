//! Watches that end, lag, fall silent, or are told that they are too old.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kip_cluster::ResponseBody;
use serde_json::json;
use tokio::time::Instant;

use crate::sim::port::Port;
use crate::sim::rng::mix;
use crate::sim::scenario::{Fault, Part, WatchHarm};

struct Watch {
    body: ResponseBody,
    port: Arc<Port>,
    nth: u32,
    /// Frames so far.
    frames: u64,
    harm: Option<(Instant, WatchHarm)>,
    is_over: bool,
}

/// The answer to a watch, with what the story does to it.
pub(super) fn follow(body: ResponseBody, port: Arc<Port>, nth: u32) -> ResponseBody {
    let harm = port.world.scenario.faults.iter().find_map(|fault| match fault {
        Fault::Watch {
            nth: of,
            after_ms,
            harm,
        } if *of == nth => Some((Instant::now() + Duration::from_millis(*after_ms), *harm)),
        _ => None,
    });
    let watch = Watch {
        body,
        port,
        nth,
        frames: 0,
        harm,
        is_over: false,
    };
    let frames = stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((Ok(Frame::data(frame)), watch))
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Watch {
    /// The next bytes that arrive; None when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let bytes = tokio::select! {
            biased;
            last = ending(&self.port, self.harm) => {
                self.is_over = true;
                let harm = if last.is_some() { "watch too old" } else { "watch lost" };
                self.port.world.lock().inject(harm);
                self.note(harm);
                return last;
            }
            frame = self.body.frame() => frame?.ok()?.into_data().ok()?,
        };
        self.frames += 1;
        let world = Arc::clone(&self.port.world);
        let draw = mix(world.scenario.seed ^ (u64::from(self.nth) << 32) ^ self.frames);
        let usual = 1 + draw % world.scenario.world.api_ms.max(1);
        tokio::time::sleep(Duration::from_millis(usual)).await;
        if let Some((from, WatchHarm::Lag { ms })) = self.harm
            && Instant::now() >= from
            && !world.lock().is_calm
        {
            world.lock().inject("lagging watch");
            self.note("watch lags");
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        self.port.link().await;
        if world.is_out(Part::Pods) {
            // The connection has not survived that.
            self.is_over = true;
            self.note("watch lost");
            return None;
        }
        Some(bytes)
    }

    fn note(&self, what: &str) {
        let port = &self.port;
        port.world
            .note(&format!("{} watch-pods#{}: {what}", port.name, self.nth));
    }
}

/// Completes when the watch ends before its time, with its last words if it has any.
async fn ending(port: &Port, harm: Option<(Instant, WatchHarm)>) -> Option<Bytes> {
    match harm {
        Some((at, harm @ (WatchHarm::Break | WatchHarm::Gone))) => {
            tokio::time::sleep_until(at).await;
            port.link().await;
            (harm == WatchHarm::Gone).then(|| {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "too old resource version", "reason": "Expired", "code": 410 });
                let event = json!({ "type": "ERROR", "object": status });
                Bytes::from(format!("{event}\n"))
            })
        }
        Some((_, WatchHarm::Lag { .. })) | None => std::future::pending().await,
    }
}
