//! Ending instances of which some may not be ended: they keep no other alive, and are never taken for gone.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures::future::{join_all, try_join_all};
use kip_aws::AwsCloud;
use kip_core::ErrorKind;
use kip_core::ids::InstanceId;
use kip_core::model::{CapacityType, InstancePhase};
use kip_core::provider::CloudProvider as _;

use crate::behaviour::request;
use crate::fake::{FakeEc2, Leads as _, offering};

async fn launched(cloud: &AwsCloud, count: usize) -> Result<Vec<InstanceId>> {
    let requests = (0..count).map(|i| request(&format!("t{i}")));
    let launched = try_join_all(requests.map(|request| cloud.launch(request))).await?;
    Ok(launched.into_iter().map(|instance| instance.id).collect())
}

/// Ends all; every one that is not `spared` is on its way out after the one round, and `spared` got an error of this kind that says so.
async fn ends_all_but(
    ec2: &FakeEc2,
    cloud: &AwsCloud,
    ids: &[InstanceId],
    spared: &InstanceId,
    says: &str,
) -> Result<()> {
    let results = join_all(ids.iter().map(|id| cloud.terminate(id))).await;
    for (id, result) in ids.iter().zip(results) {
        let phase = cloud.get(id).await?.phase;
        if id == spared {
            let Err(error) = result else {
                bail!("{id} was ended");
            };
            ensure!(error.kind() == ErrorKind::PermissionDenied, "{error:?}");
            ensure!(
                error.message().contains(says) && error.to_string().contains(id.as_str()),
                "{error}"
            );
            ensure!(phase == InstancePhase::Running, "{id}: {phase:?}");
        } else {
            ensure!(result.is_ok(), "{id}: {result:?}");
            ensure!(phase == InstancePhase::Terminating, "{id}: {phase:?}");
        }
    }
    let calls = ec2.calls("TerminateInstances").len();
    ensure!(calls <= 17, "{calls} calls");
    Ok(())
}

/// Somebody set termination protection on one of Kip's instances: all others of its batch would be paid for until it is taken off.
#[tokio::test]
async fn one_protected_instance_keeps_no_other_alive_and_says_what_to_do() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().shutdown = Duration::from_secs(3600);
    let cloud = ec2.open(ec2.config()).await?;
    let mut ids = launched(&cloud, 40).await?;
    let mut elsewhere = request("elsewhere");
    elsewhere.offering = offering("t3.small", "us-east-1b", CapacityType::OnDemand);
    ids.push(cloud.launch(elsewhere).await?.id);
    let spared = ids[17].clone();
    ec2.state().protected.insert(spared.to_string());
    ends_all_but(&ec2, &cloud, &ids, &spared, "DisableApiTermination").await
}

/// A policy that goes by tags, and a tag that somebody changed.
#[tokio::test]
async fn one_instance_that_the_policy_does_not_cover_keeps_no_other_alive() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().shutdown = Duration::from_secs(3600);
    let cloud = ec2.open(ec2.config()).await?;
    let ids = launched(&cloud, 40).await?;
    let spared = ids[39].clone();
    ec2.state().denied.insert(spared.to_string());
    ends_all_but(&ec2, &cloud, &ids, &spared, "IAM policy").await
}

/// One that is gone, and one that may not be ended, in the same call: only the first is gone.
#[tokio::test]
async fn a_protected_instance_beside_an_unknown_one_is_never_taken_for_gone() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().shutdown = Duration::from_secs(3600);
    let cloud = ec2.open(ec2.config()).await?;
    let mut ids = launched(&cloud, 6).await?;
    ec2.state().protected.insert(ids[2].to_string());
    ids.push(InstanceId::new("i-0000000000000dead"));
    let results = join_all(ids.iter().map(|id| cloud.terminate(id))).await;
    let kinds: Vec<Option<ErrorKind>> = results
        .iter()
        .map(|result| result.as_ref().err().map(kip_core::Error::kind))
        .collect();
    let mut expected = vec![None; 7];
    expected[2] = Some(ErrorKind::PermissionDenied);
    expected[6] = Some(ErrorKind::NotFound);
    assert_eq!(kinds, expected);
    Ok(())
}

/// Protected ones that come before it, more than are taken for single cases: it would be paid for as long as they are.
#[tokio::test]
async fn many_protected_instances_keep_no_other_alive() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    ec2.state().shutdown = Duration::from_secs(3600);
    let cloud = ec2.open(ec2.config()).await?;
    let mut ids = launched(&cloud, 26).await?;
    ids.sort();
    ec2.state().protected = ids[..25].iter().map(InstanceId::to_string).collect();
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut results = join_all(ids.iter().map(|id| cloud.terminate(id))).await;
        let healthy = results.pop();
        ensure!(results.iter().all(Result::is_err), "a protected one was ended");
        if matches!(healthy, Some(Ok(()))) {
            break;
        }
        ensure!(rounds < 4, "it was never its turn");
    }
    // One whose protection is taken off has its turn too, wherever it stands.
    ec2.state().protected.remove(ids[24].as_str());
    for round in 1.. {
        let results = join_all(ids[..25].iter().map(|id| cloud.terminate(id))).await;
        if results[24].is_ok() {
            break;
        }
        ensure!(round < 4, "it was never its turn");
    }
    Ok(())
}

/// A policy without the permission at all: it is found out with few calls, not with one for each instance in each round.
#[tokio::test]
async fn a_denied_permission_is_not_asked_about_for_each_instance() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let cloud = ec2.open(ec2.config()).await?;
    let ids = launched(&cloud, 90).await?;
    ec2.state().denied = ids.iter().map(InstanceId::to_string).collect();
    for result in join_all(ids.iter().map(|id| cloud.terminate(id))).await {
        let Err(error) = result else {
            bail!("one was ended");
        };
        // The ones that had no turn say why.
        ensure!(
            error.kind() == ErrorKind::PermissionDenied
                || error.kind() == ErrorKind::Unavailable && error.to_string().contains("IAM policy"),
            "{error:?}"
        );
    }
    let calls = ec2.calls("TerminateInstances").len();
    ensure!(calls <= 22, "{calls} calls");
    Ok(())
}

/// Else a pod whose instance its owner ended, or whose end was answered to nobody, would wait until it is old.
#[tokio::test]
async fn a_young_instance_that_is_terminated_is_known_before_it_is_gone() -> Result<()> {
    let ec2 = FakeEc2::start().await?;
    let mut config = ec2.config();
    config.list_lag = Duration::from_secs(600);
    let cloud = ec2.open(config).await?;
    let id = launched(&cloud, 1).await?.remove(0);
    ec2.state()
        .end(id.as_str(), "Client.UserInitiatedShutdown", "by its owner");
    cloud.terminate(&id).await?;
    let gone = cloud.terminate(&id).await.unwrap_err();
    ensure!(gone.kind() == ErrorKind::NotFound, "{gone:?}");
    Ok(())
}
