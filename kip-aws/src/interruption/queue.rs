//! The few calls of SQS: open, receive with long polling, delete.

use std::fmt;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use kip_core::error::{Error, ErrorKind, Result};

use crate::builder::START;
use crate::config::AwsConfig;
use crate::errors;

/// The operation in the errors of reading.
const READ: &str = "read interruption queue";

/// Seconds a question waits for messages, and messages an answer: the most SQS allows. Source: ReceiveMessage, Amazon SQS API Reference.
const WAIT_SECONDS: i32 = 20;
const BATCH: i32 = 10;

/// Whether this names a queue: a URL, or a name of a queue of the region. The error says what is wrong.
pub(crate) fn check(queue: &str) -> Result<(), String> {
    if is_url(queue) {
        return match origin(queue) {
            Some(_) => Ok(()),
            None => Err(format!(
                "`{queue}` is no queue's URL, such as https://sqs.us-east-1.amazonaws.com/123456789012/kip"
            )),
        };
    }
    let bare = queue.strip_suffix(".fifo").unwrap_or(queue);
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if bare.is_empty() || queue.len() > 80 || !bare.bytes().all(is_good) {
        return Err(format!(
            "`{queue}` is no queue's name: write its name or its URL, not its ARN"
        ));
    }
    Ok(())
}

fn is_url(queue: &str) -> bool {
    queue.starts_with("https://") || queue.starts_with("http://")
}

/// Scheme and authority of a queue's URL: where its calls go.
fn origin(url: &str) -> Option<&str> {
    let start = url.find("://")? + 3;
    let (authority, path) = url[start..].split_once('/')?;
    (!authority.is_empty() && !path.is_empty()).then(|| &url[..start + authority.len()])
}

/// A queue.
#[derive(Clone)]
pub(crate) struct Queue {
    client: Client,
    url: String,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.url).finish()
    }
}

/// A message, and what it is deleted with.
pub(super) struct Message {
    pub(super) body: String,
    pub(super) receipt: String,
}

impl Queue {
    /// Finds the queue and checks that it may be read. What is in it stays.
    ///
    /// # Errors
    /// `ConfigInvalid` when there is no such queue; else what the call failed with.
    pub(crate) async fn open(sdk: &SdkConfig, config: &AwsConfig, queue: &str) -> Result<Self> {
        let named = |error: Error| error.with_context("cloud.aws.interruptionQueue", queue);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(crate::builder::CONNECT)
            .operation_timeout(config.call_timeout + std::time::Duration::from_secs(20))
            .build();
        let mut builder = aws_sdk_sqs::config::Builder::from(sdk)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if is_url(queue)
            && let Some(origin) = origin(queue)
        {
            builder = builder.endpoint_url(origin);
        }
        let client = Client::from_conf(builder.build());
        let url = if is_url(queue) {
            queue.to_owned()
        } else {
            let found = client
                .get_queue_url()
                .queue_name(queue)
                .send()
                .await
                .map_err(|error| named(failed(START, "GetQueueUrl", error)))?;
            found.queue_url.ok_or_else(|| {
                named(Error::new(
                    ErrorKind::Unexpected,
                    START,
                    "SQS answers without the queue's URL",
                ))
            })?
        };
        client
            .receive_message()
            .queue_url(&url)
            .max_number_of_messages(1)
            // Whatever is read by this stays for the reading that follows.
            .visibility_timeout(0)
            .wait_time_seconds(0)
            .send()
            .await
            .map_err(|error| named(failed(START, "ReceiveMessage", error)))?;
        Ok(Self { client, url })
    }

    /// What has come; nothing after 20 s in which nothing came.
    pub(super) async fn receive(&self) -> Result<Vec<Message>> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH)
            .wait_time_seconds(WAIT_SECONDS)
            .send()
            .await
            .map_err(|error| failed(READ, "ReceiveMessage", error))?;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages
            .into_iter()
            .filter_map(|message| {
                Some(Message {
                    body: message.body.unwrap_or_default(),
                    receipt: message.receipt_handle?,
                })
            })
            .collect())
    }

    /// Deletes what was received.
    pub(super) async fn delete(&self, receipts: Vec<String>) -> Result<()> {
        let mut entries = Vec::new();
        for (id, receipt) in receipts.into_iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(receipt)
                .build()
                .map_err(|source| {
                    Error::new(ErrorKind::Unexpected, READ, "a message cannot be named").with_source(source)
                })?;
            entries.push(entry);
        }
        let answer = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| failed(READ, "DeleteMessageBatch", error))?;
        match answer.failed().first() {
            None => Ok(()),
            Some(entry) => {
                let message = format!("SQS does not delete a message: {}", entry.code());
                Err(Error::new(ErrorKind::Unavailable, READ, message))
            }
        }
    }
}

fn failed<E>(operation: &'static str, call: &'static str, error: SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    const MISSING: [&str; 2] = ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"];
    if let SdkError::ServiceError(answer) = &error
        && answer.err().code().is_some_and(|code| MISSING.contains(&code))
    {
        let message = "there is no such queue in the region, or not for these credentials";
        return Error::new(ErrorKind::ConfigInvalid, operation, message);
    }
    let cause = errors::of_sdk(operation, call, error);
    Error::new(cause.kind(), operation, "the interruption queue cannot be read")
        .with_retry(cause.retry())
        .with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_or_addressed() {
        for good in [
            "kip",
            "Karpenter-my_cluster",
            "kip.fifo",
            "https://sqs.us-east-1.amazonaws.com/123456789012/kip",
            "http://127.0.0.1:5000/123456789012/kip",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".fifo",
            "arn:aws:sqs:us-east-1:123456789012:kip",
            "https://sqs.us-east-1.amazonaws.com",
            "https:///kip",
            "a b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let url = "https://vpce-1.sqs.us-east-1.vpce.amazonaws.com/1/kip";
        assert_eq!(
            origin(url),
            Some("https://vpce-1.sqs.us-east-1.vpce.amazonaws.com")
        );
    }
}
