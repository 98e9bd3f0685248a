//! All pages of an answer, or none.

use std::future::Future;
use std::time::Duration;

use kip_core::error::{Error, ErrorKind, Result};

use crate::api::catalogue::{Page, REFRESH};

/// Pages of one answer. The longest honest one, the types of a region by a hundred, has about fifteen.
const PAGES: usize = 200;
/// Elements of one answer. The longest honest one, the spot prices of a region, has about ten thousand.
const ELEMENTS: usize = 100_000;
/// How long all pages together may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks for all pages, one after the other.
///
/// # Errors
/// Those of a page; `Unexpected` for an answer without end, `Timeout` when it takes longer than five minutes.
pub(super) async fn all<T, F, A>(ask: F) -> Result<Vec<T>>
where
    F: Fn(Option<String>) -> A + Send + Sync,
    A: Future<Output = Result<Page<T>>> + Send,
    T: Send,
{
    let asking = async {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let (elements, next) = ask(token.clone()).await?;
            all.extend(elements);
            let next = next.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(all);
            }
            if next == token || all.len() > ELEMENTS {
                break;
            }
            token = next;
        }
        let message = format!(
            "the answer has no end: {} elements so far; is `endpointURL` that of EC2?",
            all.len()
        );
        Err(Error::new(ErrorKind::Unexpected, REFRESH, message))
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
        let message = "the pages of the answer did not come in five minutes";
        Err(Error::new(ErrorKind::Timeout, REFRESH, message))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn all_pages_are_read_and_an_empty_token_is_the_end() {
        let all = all(|token| async move {
            Ok(match token.as_deref() {
                None => (vec![1, 2], Some("a".to_owned())),
                // EC2 answers empty pages that are not the last.
                Some("a") => (vec![], Some("b".to_owned())),
                _ => (vec![3], Some(String::new())),
            })
        });
        assert_eq!(all.await.unwrap(), [1, 2, 3]);
    }

    /// A broken endpoint must not keep a controller asking, or collecting, for ever.
    #[tokio::test]
    async fn an_answer_without_end_is_broken_off() {
        let calls = AtomicUsize::new(0);
        let call = || calls.fetch_add(1, Ordering::Relaxed);
        let same = all(|_| {
            call();
            async { Ok((vec![0], Some("same".to_owned()))) }
        });
        assert_eq!(same.await.unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(calls.swap(0, Ordering::Relaxed), 2);
        let endless = all(|_| {
            let token = call().to_string();
            async { Ok((vec![0], Some(token))) }
        });
        assert_eq!(endless.await.unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(calls.swap(0, Ordering::Relaxed), PAGES);
        let huge = all(|_| {
            let token = call().to_string();
            async { Ok((vec![0; ELEMENTS], Some(token))) }
        });
        assert_eq!(huge.await.unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up() {
        let never = all(|_| std::future::pending::<Result<Page<u8>>>());
        assert_eq!(never.await.unwrap_err().kind(), ErrorKind::Timeout);
    }
}
