//! Real instances on this machine. Needs root and what `LocalCloud::check` lists: says so when it is missing.

mod support;

use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use kip_core::model::InstancePhase;
use kip_core::provider::{CloudProvider as _, ListOptions};
use kip_local::LocalCloud;
use support::{Place, bare_request as request, console, until};

/// Boots an instance, sees its containerd serve, terminates it: nothing may be left, or every pod would cost a little forever.
#[tokio::test]
async fn an_instance_boots_with_containerd_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let started = Instant::now();
    let cloud = LocalCloud::new(place.bare()?).await?;
    eprintln!("opened in {:?}", started.elapsed());
    for round in 0..3 {
        let started = Instant::now();
        let instance = cloud.launch(request(&format!("boot{round}"))).await?;
        eprintln!("launched in {:?}", started.elapsed());
        assert_eq!(instance.phase, InstancePhase::Running);
        let log = cloud
            .instance_dir(&instance.id)
            .join("root/var/log/containerd.log");
        let booted = until("containerd serves", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("successfully booted"))
        })
        .await;
        eprintln!("containerd up after {:?}", started.elapsed());
        booted.with_context(|| console(&cloud, &instance.id))?;
        let listed: Vec<_> = cloud
            .list(ListOptions::default().with_tag("test", format!("boot{round}")))
            .collect()
            .await;
        assert_eq!(listed.len(), 1);
        let started = Instant::now();
        cloud.terminate(&instance.id).await?;
        eprintln!("terminated in {:?}", started.elapsed());
        place.nothing_left().await?;
    }
    Ok(())
}
