//! Questions about single things that come together go to EC2 as one call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;

use kip_core::error::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

/// Things a call: EC2 advises to stay below 1,000 instances and takes 200 values of a filter, and answers a hundred as fast as one.
const MOST: usize = 100;
/// Questions that wait for a call. Whoever comes after them waits to ask.
const WAITING: usize = 1024;

/// What a call came to for each of its things. What is left out is unknown.
pub(crate) type Answers<K, V> = BTreeMap<K, Result<V>>;

/// Asks about things by their keys, many at once while a call is under way; a question that comes alone is asked at once.
///
/// Dropping an answer's future does not take the question back. The task that asks ends with the last clone.
pub(crate) struct Batcher<K, V>(mpsc::Sender<Question<K, V>>);

struct Question<K, V> {
    key: K,
    reply: oneshot::Sender<Result<Option<V>>>,
}

impl<K, V> Batcher<K, V>
where
    K: Ord + Clone + fmt::Display + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Starts the task that asks. `call` answers what it knows of each, or fails for all. `what` the keys are is said in errors.
    pub(crate) fn start<F, A>(what: &'static str, call: F) -> Self
    where
        F: Fn(Vec<K>) -> A + Send + 'static,
        A: Future<Output = Result<Answers<K, V>>> + Send,
    {
        let (sender, mut questions) = mpsc::channel::<Question<K, V>>(WAITING);
        tokio::spawn(async move {
            let mut waiting = Vec::with_capacity(MOST);
            while questions.recv_many(&mut waiting, MOST).await > 0 {
                let keys: BTreeSet<K> = waiting.iter().map(|question| question.key.clone()).collect();
                let answer = call(keys.into_iter().collect()).await;
                for question in waiting.drain(..) {
                    let failed = |error: &Error| Err(copy(error).with_context(what, &question.key));
                    let one = match &answer {
                        Ok(found) => match found.get(&question.key) {
                            Some(Ok(value)) => Ok(Some(value.clone())),
                            Some(Err(error)) => failed(error),
                            None => Ok(None),
                        },
                        Err(error) => failed(error),
                    };
                    // Whoever went away does not want to know.
                    let _ = question.reply.send(one);
                }
            }
        });
        Self(sender)
    }

    /// Asks about one. None when EC2 does not know it.
    ///
    /// # Errors
    /// What the call answers, for this one or for all.
    pub(crate) async fn ask(&self, operation: &'static str, key: &K) -> Result<Option<V>> {
        let ended = || Error::new(ErrorKind::Unexpected, operation, "nobody asks EC2 any more");
        let (reply, answer) = oneshot::channel();
        let key = key.clone();
        let sent = self.0.send(Question { key, reply }).await;
        sent.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl<K, V> fmt::Debug for Batcher<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batcher")
    }
}

/// The same error for another who waited for the same call.
pub(crate) fn copy(error: &Error) -> Error {
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
    use kip_core::ids::InstanceId;

    use super::*;

    fn ids(count: usize) -> Vec<InstanceId> {
        (0..count).map(|i| InstanceId::new(format!("i-{i}"))).collect()
    }

    #[tokio::test]
    async fn a_burst_of_two_hundred_costs_a_handful_of_calls_and_everyone_gets_his_own_answer() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let batcher = Batcher::start("instance", move |ids: Vec<InstanceId>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(ids.into_iter().map(|id| (id.clone(), Ok(id))).collect()) }
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
        let batcher = Batcher::<InstanceId, ()>::start("instance", |_| async {
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
        let batcher = Batcher::<InstanceId, ()>::start("instance", |_| async { Ok(BTreeMap::new()) });
        assert_eq!(batcher.ask("get", &InstanceId::new("i-1")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_error_of_one_is_nobody_elses() {
        let batcher = Batcher::<InstanceId, ()>::start("instance", |ids| async move {
            let answer = |id: &InstanceId| match id.as_str() {
                "i-1" => Err(Error::new(ErrorKind::PermissionDenied, "terminate", "protected")),
                _ => Ok(()),
            };
            Ok(ids.into_iter().map(|id| (id.clone(), answer(&id))).collect())
        });
        let ids = ids(3);
        let answers = join_all(ids.iter().map(|id| batcher.ask("terminate", id))).await;
        let kinds: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().err().map(Error::kind))
            .collect();
        assert_eq!(kinds, [None, Some(ErrorKind::PermissionDenied), None]);
    }
}
