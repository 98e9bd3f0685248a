//! Real instances on this machine. Needs root and what `LocalCloud::check` lists: says so when it is missing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kip_core::ids::{InstanceType, LaunchToken, OfferingId, Zone};
use kip_core::model::{CapacityType, InstancePhase};
use kip_core::provider::{CloudProvider as _, LaunchRequest, ListOptions, UserData};
use kip_local::{Leftovers, LocalCloud, LocalConfig};

/// A data folder of this test's own, and a stand-in for the agent that only waits.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        if let Err(missing) = LocalCloud::check() {
            let text: Vec<_> = missing.iter().map(ToString::to_string).collect();
            anyhow::bail!(
                "this test needs a machine that can run instances: {}",
                text.join("; ")
            );
        }
        let folder = tempfile::Builder::new()
            .prefix("kip-local-test-")
            .tempdir_in("/var/tmp")?;
        let agent = folder.path().join("agent");
        std::fs::write(&agent, "#!/bin/sh\nexec sleep 1000000\n")?;
        std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn config(&self) -> LocalConfig {
        let mut config = LocalConfig::default();
        config.data_dir = self.data();
        config.agent_path = Some(self.folder.path().join("agent"));
        config
    }

    async fn nothing_left(&self) -> Result<()> {
        let left = Leftovers::of(&self.data()).await?;
        ensure!(left.is_empty(), "left on the machine: {left}");
        Ok(())
    }
}

fn offering(name: &str) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(name),
        zone: Zone::new("local-a"),
        capacity_type: CapacityType::OnDemand,
    }
}

fn request(token: &str) -> LaunchRequest {
    let user_data = "#cloud-config\n{\"write_files\":[{\"path\":\"/etc/kip/cell.json\",\"permissions\":\"0600\",\"content\":\"{}\"}]}\n";
    LaunchRequest::new(
        LaunchToken::from_stored(token),
        offering("local.nano"),
        UserData::new(user_data),
    )
    .with_tag("test", token)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        ensure!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn console(cloud: &LocalCloud, id: &kip_core::ids::InstanceId) -> String {
    let folder = cloud.instance_dir(id);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    format!(
        "{}\n{}",
        read(&folder.join("console.log")),
        read(&folder.join("root/var/log/containerd.log"))
    )
}

/// Boots an instance, sees its containerd serve, terminates it: nothing may be left, or every pod would cost a little forever.
#[tokio::test]
async fn an_instance_boots_with_containerd_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let started = Instant::now();
    let cloud = LocalCloud::new(place.config()).await?;
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
