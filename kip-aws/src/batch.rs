//! Questions about single instances that come together go to EC2 as one call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;

use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;
use tokio::sync::{mpsc, oneshot};

/// Instances a call: EC2 advises to stay below 1,000, and answers a hundred as fast as one.
const MOST: usize = 100;
/// Questions that wait for a call. Whoever comes after them waits to ask.
const WAITING: usize = 1024;

/// Asks about instances, many at once while a call is under way; a question that comes alone is asked at once.
///
/// Dropping an answer's future does not take the question back. The task that asks ends with the last clone.
pub(crate) struct Batcher<V>(mpsc::Sender<Question<V>>);

struct Question<V> {
    id: InstanceId,
    reply: oneshot::Sender<Result<Option<V>>>,
}

impl<V: Clone + Send + 'static> Batcher<V> {
    /// Starts the task that asks. `call` answers what it knows; an instance it leaves out is unknown.
    pub(crate) fn start<F, A>(call: F) -> Self
    where
        F: Fn(Vec<InstanceId>) -> A + Send + 'static,
        A: Future<Output = Result<BTreeMap<InstanceId, V>>> + Send,
    {
        let (sender, mut questions) = mpsc::channel::<Question<V>>(WAITING);
        tokio::spawn(async move {
            let mut waiting = Vec::with_capacity(MOST);
            while questions.recv_many(&mut waiting, MOST).await > 0 {
                let ids: BTreeSet<InstanceId> = waiting.iter().map(|question| question.id.clone()).collect();
                let answer = call(ids.into_iter().collect()).await;
                for question in waiting.drain(..) {
                    let one = match &answer {
                        Ok(found) => Ok(found.get(&question.id).cloned()),
                        Err(error) => Err(copy(error).with_context("instance", &question.id)),
                    };
                    // Whoever went away does not want to know.
                    let _ = question.reply.send(one);
                }
            }
        });
        Self(sender)
    }

    /// Asks about one instance. None when EC2 does not know it.
    ///
    /// # Errors
    /// What the call answers.
    pub(crate) async fn ask(&self, operation: &'static str, id: &InstanceId) -> Result<Option<V>> {
        let ended = || Error::new(ErrorKind::Unexpected, operation, "nobody asks EC2 any more");
        let (reply, answer) = oneshot::channel();
        let id = id.clone();
        let sent = self.0.send(Question { id, reply }).await;
        sent.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl<V> fmt::Debug for Batcher<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batcher")
    }
}

/// The same error for another who waited for the same call.
fn copy(error: &Error) -> Error {
    let chain = error.chain().to_string();
    let message = chain
        .strip_prefix(error.operation())
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(&chain);
    Error::new(error.kind(), error.operation(), message).with_retry(error.retry())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use kip_core::Retry;

    use super::*;

    fn ids(count: usize) -> Vec<InstanceId> {
        (0..count).map(|i| InstanceId::new(format!("i-{i}"))).collect()
    }

    #[tokio::test]
    async fn a_burst_of_two_hundred_costs_a_handful_of_calls_and_everyone_gets_his_own_answer() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let batcher = Batcher::start(move |ids| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(ids.into_iter().map(|id| (id.clone(), id)).collect()) }
        });
        let ids = ids(200);
        let answers = join_all(ids.iter().map(|id| batcher.ask("get", id))).await;
        for (id, answer) in ids.iter().zip(answers) {
            assert_eq!(answer.unwrap().as_ref(), Some(id));
        }
        let calls = calls.load(Ordering::Relaxed);
        assert!(calls <= 4, "{calls} calls");
    }

    #[tokio::test]
    async fn an_error_reaches_all_who_asked_with_its_kind_and_retry() {
        let batcher = Batcher::<()>::start(|_| async {
            Err(Error::new(ErrorKind::QuotaExceeded, "get", "too many").with_retry(Retry::Spent))
        });
        let ids = ids(3);
        for answer in join_all(ids.iter().map(|id| batcher.ask("get", id))).await {
            let error = answer.unwrap_err();
            assert_eq!(
                (error.kind(), error.retry()),
                (ErrorKind::QuotaExceeded, Retry::Spent)
            );
            assert_eq!(error.message(), "too many");
        }
    }

    #[tokio::test]
    async fn what_the_call_leaves_out_is_unknown() {
        let batcher = Batcher::<()>::start(|_| async { Ok(BTreeMap::new()) });
        assert_eq!(batcher.ask("get", &InstanceId::new("i-1")).await.unwrap(), None);
    }
}
