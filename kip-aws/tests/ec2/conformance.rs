//! The suite every provider has to pass, on an EC2 that answers at once and on ones that do not.

use std::sync::Arc;
use std::time::Duration;

use crate::fake::{FakeEc2, Leads as _};
use anyhow::{Result, ensure};
use kip_testkit::conformance;

async fn passes(ec2: &FakeEc2, list_lag: Duration) -> Result<()> {
    let mut config = ec2.config();
    config.list_lag = list_lag;
    let cloud = ec2.open(config).await?;
    let options = conformance::Options {
        patience: Duration::from_secs(30),
        interval: Duration::from_millis(5),
        ..conformance::Options::default()
    };
    let report = conformance::run(Arc::new(cloud), options).await;
    ensure!(report.is_success(), "{report}");
    Ok(())
}

#[tokio::test]
async fn every_promise_is_kept_on_an_ec2_that_answers_at_once() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    passes(&ec2, Duration::ZERO).await
}

/// Instances that are not shown yet, boot for a while and take their time to go: what the real one is like.
#[tokio::test]
async fn every_promise_is_kept_on_an_ec2_that_lags() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    {
        let mut state = ec2.state();
        state.lag = Duration::from_millis(100);
        state.boot = Some(Duration::from_millis(150));
        state.shutdown = Duration::from_millis(50);
        state.page = 1;
    }
    passes(&ec2, Duration::from_millis(200)).await
}
