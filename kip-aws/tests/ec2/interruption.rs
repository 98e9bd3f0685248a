//! The interruption queue, on `moto`'s SQS.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use futures::StreamExt as _;
use kip_aws::AwsCloud;
use kip_core::ErrorKind;
use kip_core::model::NoticeKind;
use kip_core::provider::CloudProvider as _;

use crate::moto::config;
use crate::moto::server::Moto;

const PATIENCE: Duration = Duration::from_secs(60);

fn sqs(moto: &Moto) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version_latest()
        .region(aws_sdk_sqs::config::Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIATEST", "secret", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(moto.url());
    Client::from_conf(config.build())
}

async fn queue(moto: &Moto, sqs: &Client) -> Result<String> {
    let made = sqs.create_queue().queue_name("kip").send().await?;
    let url = made.queue_url.context("a URL")?;
    // Where moto is reached is for the caller to know.
    let path = url.splitn(4, '/').nth(3).context("a path")?;
    Ok(format!("{}/{path}", moto.url()))
}

async fn send(sqs: &Client, url: &str, detail_type: &str, detail: &str) -> Result<()> {
    let body = format!(
        r#"{{"detail-type": "{detail_type}", "source": "aws.ec2", "time": "2021-02-03T14:05:06Z", "detail": {detail}}}"#
    );
    sqs.send_message()
        .queue_url(url)
        .message_body(body)
        .send()
        .await?;
    Ok(())
}

/// Messages still in the queue, whether somebody reads them now or not.
async fn left(sqs: &Client, url: &str) -> Result<u32> {
    let answer = sqs
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(QueueAttributeName::All)
        .send()
        .await?;
    let attributes = answer.attributes.context("attributes")?;
    let count = |name| {
        let value = attributes.get(&name).context("a count")?;
        value.parse::<u32>().context("a number")
    };
    Ok(count(QueueAttributeName::ApproximateNumberOfMessages)?
        + count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?)
}

#[tokio::test]
async fn notices_of_the_queue_are_told_and_every_message_is_deleted() -> Result<()> {
    let moto = Moto::start().await?;
    let sqs = sqs(&moto);
    let url = queue(&moto, &sqs).await?;
    send(&sqs, &url, "EC2 Fleet Error", "{}").await?;
    let detail = r#"{"instance-id": "i-1", "instance-action": "terminate"}"#;
    send(&sqs, &url, "EC2 Spot Instance Interruption Warning", detail).await?;
    let mut config = config(&moto);
    config.interruption_queue = Some(url.clone());
    let cloud = AwsCloud::builder(config).open().await?;
    ensure!(cloud.info().capabilities.interruption_notices);
    let mut notices = cloud.interruptions().context("a feed")?.notices();
    let first = tokio::time::timeout(PATIENCE, notices.next())
        .await?
        .context("goes on")??;
    ensure!(first.instance.as_str() == "i-1", "{first:?}");
    ensure!(first.notice.kind == NoticeKind::Interruption, "{first:?}");
    ensure!(first.notice.at.to_string() == "2021-02-03T14:07:06Z", "{first:?}");

    send(
        &sqs,
        &url,
        "EC2 Instance Rebalance Recommendation",
        r#"{"instance-id": "i-2"}"#,
    )
    .await?;
    let second = tokio::time::timeout(PATIENCE, notices.next())
        .await?
        .context("goes on")??;
    ensure!(second.instance.as_str() == "i-2", "{second:?}");
    ensure!(second.notice.kind == NoticeKind::Rebalance, "{second:?}");
    ensure!(left(&sqs, &url).await? == 1, "what was taken is deleted");
    // It is deleted when the next is asked for.
    let emptied = async {
        loop {
            tokio::select! {
                biased;
                notice = notices.next() => anyhow::bail!("nobody sent {notice:?}"),
                left = left(&sqs, &url) => if left? == 0 { return Ok(()) },
            }
        }
    };
    tokio::time::timeout(PATIENCE, emptied).await?
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_told_at_the_start() -> Result<()> {
    let moto = Moto::start().await?;
    let mut config = config(&moto);
    config.interruption_queue = Some(format!("{}/123456789012/nowhere", moto.url()));
    let error = AwsCloud::builder(config).open().await.map(|_| ()).unwrap_err();
    ensure!(error.kind() == ErrorKind::ConfigInvalid, "{error:?}");
    ensure!(error.to_string().contains("interruptionQueue"), "{error}");
    Ok(())
}

#[tokio::test]
async fn without_a_queue_there_is_no_feed() -> Result<()> {
    let moto = Moto::start().await?;
    let cloud = AwsCloud::builder(config(&moto)).open().await?;
    ensure!(cloud.interruptions().is_none() && !cloud.info().capabilities.interruption_notices);
    Ok(())
}
