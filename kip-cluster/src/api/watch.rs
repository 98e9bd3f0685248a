//! Answer watches: replay what happened since a version, then follow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Call;
use super::read::{Selection, bad_version, select, too_large};
use super::respond::{BoxError, Form, Reply, Stamped, partial, shown, typed_reply};
use crate::app::App;
use crate::registry::Resource;
use crate::status::{ApiError, ApiResult, Problem};
use crate::store::{Change, ChangeKind, Changes, Object};
use crate::table;

/// How often a quiet watch that allows it is told the current version.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lives that names no end itself; clients start again from where they are.
const LIFETIME: Duration = Duration::from_secs(1800);
/// How many changes are taken from the log at once.
const BATCH: usize = 256;
/// How long a request may wait for a version that does not exist yet.
const WAIT_FOR_VERSION: Duration = Duration::from_secs(3);

struct Watch {
    app: Arc<App>,
    resource: Arc<Resource>,
    namespace: Option<String>,
    selection: Selection,
    form: Form,
    include: String,
    cursor: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    changes: Changes,
    /// Bytes to send before following.
    initial: Vec<Bytes>,
    started: bool,
    done: bool,
    _permit: OwnedSemaphorePermit,
}

/// `GET` of a collection with `watch=true`.
pub(super) async fn watch(call: &Call<'_>) -> ApiResult<Reply> {
    let permit = Arc::clone(&call.app.watches).try_acquire_owned().map_err(|_| {
        ApiError::too_many(format!(
            "{} watches are open, which is the limit of this server",
            call.app.limits.watches
        ))
    })?;
    let selection = Selection::of(call)?;
    let requested = match call.query.get("resourceVersion") {
        "" | "0" => None,
        text => Some(
            text.parse::<u64>()
                .map_err(|_| ApiError::new(500, "", bad_version(text)))?,
        ),
    };
    let send_initial = call.query.get("sendInitialEvents");
    let bookmarks = call.query.flag("allowWatchBookmarks");
    check_initial_events(call, send_initial)?;
    let changes = call.app.store.subscribe(&call.resource.table);
    if let Some(version) = requested {
        wait_for(call.app, version).await?;
    }
    let lifetime = call
        .query
        .number::<u64>("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let now = Instant::now();
    let mut watch = Watch {
        app: Arc::clone(call.app),
        resource: Arc::clone(call.resource),
        namespace: call.namespace().map(str::to_owned),
        selection,
        form: call.form,
        include: call.query.get("includeObject").to_owned(),
        cursor: requested.unwrap_or(0),
        bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        ends: now + lifetime.map_or(LIFETIME, Duration::from_secs),
        changes,
        initial: Vec::new(),
        started: false,
        done: false,
        _permit: permit,
    };
    let list_first = match send_initial {
        "" => requested.is_none(),
        other => other == "true",
    };
    if list_first {
        let (objects, meta) = select(call)?;
        watch.cursor = meta.version;
        watch.initial = objects
            .iter()
            .map(|object| watch.event("ADDED", object))
            .collect();
        if send_initial == "true" {
            watch.initial.push(watch.bookmark(true));
        }
    } else if requested.is_none() {
        watch.cursor = call.app.store.version();
    }
    let stream = stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(frame)), watch))
    });
    let mut reply = typed_reply(200, "application/json", Bytes::new());
    *reply.body_mut() = StreamBody::new(stream).boxed_unsync();
    Ok(reply)
}

fn check_initial_events(call: &Call<'_>, send_initial: &str) -> ApiResult<()> {
    let rule = call.query.get("resourceVersionMatch");
    let problem = match (send_initial, rule) {
        ("", "") => return Ok(()),
        ("", _) => "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        (_, "NotOlderThan") => return Ok(()),
        _ => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    };
    let problem = Problem::forbidden("resourceVersionMatch", problem);
    Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![problem]))
}

async fn wait_for(app: &App, version: u64) -> ApiResult<()> {
    if app.store.version() >= version {
        return Ok(());
    }
    let any = app.store.subscribe_all();
    let reached = async {
        loop {
            let changed = any.changed();
            if app.store.version() >= version {
                return;
            }
            changed.await;
        }
    };
    tokio::time::timeout(WAIT_FOR_VERSION, reached)
        .await
        .map_err(|_| too_large(version, app.store.version()))
}

impl Watch {
    /// The next bytes to send; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.started {
            self.started = true;
            if !self.initial.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.initial).concat()));
            }
        }
        loop {
            if self.done {
                return None;
            }
            let changed = self.changes.changed();
            let bytes = self.replay();
            if !bytes.is_empty() {
                return Some(bytes);
            }
            let stopping = self.app.stopping.clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return None,
                () = changed => {}
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    return Some(self.bookmark(false));
                }
            }
        }
    }

    /// The events since the cursor, which moves on.
    fn replay(&mut self) -> Bytes {
        let mut out = Vec::new();
        loop {
            let changes = match self.app.store.changes(&self.resource.table, self.cursor, BATCH) {
                Ok(changes) => changes,
                Err(gone) => {
                    let message = format!("too old resource version: {} ({})", self.cursor, gone.oldest);
                    out.extend_from_slice(&frame("ERROR", &ApiError::expired(message).to_status()));
                    self.done = true;
                    return out.into();
                }
            };
            let Some(last) = changes.last() else {
                return out.into();
            };
            self.cursor = last.version;
            for change in &changes {
                out.extend_from_slice(&self.translate(change));
            }
        }
    }

    /// What a change is for this watch: an object that starts to be chosen is added, one that stops is deleted.
    fn translate(&self, change: &Change) -> Bytes {
        let chosen = |object: &Object| {
            let in_namespace = self
                .namespace
                .as_deref()
                .is_none_or(|ns| crate::object::namespace(object) == ns);
            in_namespace && self.selection.matches(&shown(&self.resource, object))
        };
        let before = change.kind != ChangeKind::Added && change.previous.as_ref().is_some_and(&chosen);
        let after = change.kind != ChangeKind::Deleted && chosen(&change.object);
        match (before, after) {
            (false, true) => self.event("ADDED", &change.object),
            (true, true) => self.event("MODIFIED", &change.object),
            (true, false) if change.kind == ChangeKind::Deleted => self.event("DELETED", &change.object),
            (true, false) => {
                // The last state that was chosen, at the version it stopped to be.
                let mut last = change.previous.as_deref().cloned().unwrap_or(Value::Null);
                crate::object::meta_mut(&mut last)
                    .insert("resourceVersion".to_owned(), change.version.to_string().into());
                self.event("DELETED", &Arc::new(last))
            }
            (false, false) => Bytes::new(),
        }
    }

    fn event(&self, kind: &str, object: &Object) -> Bytes {
        let object = shown(&self.resource, object);
        match self.form {
            Form::Whole => frame(
                kind,
                &Stamped {
                    object: &object,
                    resource: &self.resource,
                },
            ),
            Form::Partial => frame(kind, &partial(&object)),
            Form::Table => {
                let meta = json!({"resourceVersion": crate::object::meta_str(&object, "resourceVersion")});
                // kubectl reads the columns from the first event; sending them with each is what the API does.
                frame(
                    kind,
                    &table::table(&self.resource, &[object], meta, &self.include),
                )
            }
        }
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        // A quiet table is as new as the whole store: nothing of it is missing up to there. The version is read first, so
        // a commit in between only makes the bookmark older than it could be.
        let newest = self.app.store.version();
        let version = self.cursor.max(if self.caught_up() { newest } else { 0 });
        let mut meta = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object =
            json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": meta});
        match self.form {
            Form::Table => frame(
                "BOOKMARK",
                &table::table(
                    &self.resource,
                    &[Arc::new(object)],
                    json!({"resourceVersion": version.to_string()}),
                    &self.include,
                ),
            ),
            Form::Partial => frame("BOOKMARK", &partial(&object)),
            Form::Whole => frame("BOOKMARK", &object),
        }
    }

    fn caught_up(&self) -> bool {
        matches!(self.app.store.changes(&self.resource.table, self.cursor, 1), Ok(changes) if changes.is_empty())
    }
}

fn frame(kind: &str, object: &impl Serialize) -> Bytes {
    #[derive(Serialize)]
    struct Event<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        object: &'a T,
    }
    let mut bytes = serde_json::to_vec(&Event { kind, object }).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
