//! Instances on this machine, without pods. Needs root and what `LocalCloud::check` lists: says so when it is missing.

mod support;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kip_core::error::ErrorKind;
use kip_core::ids::InstanceId;
use kip_core::model::{CapacityType, InstancePhase};
use kip_core::provider::{CloudProvider as _, ListOptions, OfferingQuery};
use kip_local::{Addressing, Leftovers, LocalCloud};
use support::{Place, bare_request, console, processes, until};

async fn gone(cloud: &LocalCloud, id: &InstanceId) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while cloud
        .list(ListOptions::default())
        .any(|one| std::future::ready(one.is_ok_and(|one| one.id == *id)))
        .await
    {
        anyhow::ensure!(std::time::Instant::now() < deadline, "{id} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Boots an instance, sees its containerd serve, terminates it: nothing may be left, or every pod would cost a little forever.
#[tokio::test]
async fn an_instance_boots_with_containerd_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    for round in ["first", "second"] {
        let instance = cloud.launch(bare_request(round)).await?;
        assert_eq!(instance.phase, InstancePhase::Running);
        assert_eq!(instance.token.as_ref().map(|token| token.as_str()), Some(round));
        let folder = cloud.instance_dir(&instance.id);
        let log = folder.join("root/var/log/containerd.log");
        until("containerd serves", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("successfully booted"))
        })
        .await
        .with_context(|| console(&cloud, &instance.id))?;
        assert_eq!(
            std::fs::read_to_string(folder.join("root/etc/kip/cell.json"))?,
            "{}"
        );
        let listed: Vec<_> = cloud
            .list(ListOptions::default().with_tag("test", round))
            .collect()
            .await;
        assert_eq!(listed.len(), 1);
        let left = cloud.leftovers().await?;
        assert!(
            left.namespaces.len() == 1 && left.links.len() == 2 && left.tables.len() == 1,
            "{left}"
        );
        assert!(!left.processes.is_empty() && left.mounts.is_empty(), "{left}");
        assert_eq!(
            memory_limit(&cloud, &instance.id)?,
            256 << 20,
            "the size that is paid for"
        );
        cloud.terminate(&instance.id).await?;
        assert_eq!(
            cloud.terminate(&instance.id).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            cloud.get(&instance.id).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        place.nothing_left().await?;
    }
    Ok(())
}

/// A retried launch must not buy twice, and a reused token must not silently get something else.
#[tokio::test]
async fn a_token_is_one_instance() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    let (one, two) = tokio::join!(cloud.launch(bare_request("t")), cloud.launch(bare_request("t")));
    assert_eq!(one?.id, two?.id);
    let error = cloud
        .launch(bare_request("t").with_tag("another", "tag"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(cloud.purge().await?.len(), 1);
    let again = cloud.launch(bare_request("t")).await?;
    assert_eq!(again.phase, InstancePhase::Running);
    cloud.terminate(&again.id).await?;
    place.nothing_left().await
}

#[tokio::test]
async fn faults_and_limits_are_answered_by_kind() -> Result<()> {
    let place = Place::new()?;
    let mut config = place.bare()?;
    config.offerings = Some(vec![serde_json::from_value(serde_json::json!({
        "type": "local.nano", "cpu": "250m", "memory": "256Mi", "price": 0.1, "spotPrice": 0.01, "capacity": 1,
    }))?]);
    let cloud = LocalCloud::new(config).await?;
    assert_eq!(cloud.offerings(&OfferingQuery::default()).await?.len(), 4);
    let faults = cloud.faults();
    faults.fail_launches(1, ErrorKind::RateLimited);
    assert_eq!(
        cloud.launch(bare_request("a")).await.unwrap_err().kind(),
        ErrorKind::RateLimited
    );
    faults.lose_replies(1);
    assert_eq!(
        cloud.launch(bare_request("a")).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    let found: Vec<_> = cloud.list(ListOptions::default()).collect().await;
    assert_eq!(found.len(), 1, "the lost reply's effect");
    assert_eq!(
        cloud.launch(bare_request("b")).await.unwrap_err().kind(),
        ErrorKind::InsufficientCapacity
    );
    let mut unknown = bare_request("c");
    unknown.offering.capacity_type = CapacityType::Reserved;
    assert_eq!(
        cloud.launch(unknown).await.unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );

    let id = found.into_iter().next().context("one")??.id;
    let mut notices = cloud.interruptions().context("spot is sold")?.notices();
    cloud.interrupt(&id, Duration::from_millis(50)).await?;
    assert_eq!(notices.next().await.context("a notice")??.instance, id);
    gone(&cloud, &id).await?;
    assert_eq!(cloud.get(&id).await?.reason.as_deref(), Some("interrupted"));
    place.nothing_left().await
}

/// An instance whose init dies is an instance that crashed: it is shown as ended and costs nothing any more.
#[tokio::test]
async fn an_instance_whose_init_dies_is_gone_with_everything_in_it() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    let instance = cloud.launch(bare_request("crash")).await?;
    support::kill(support::init(&cloud, &instance.id)?)?;
    gone(&cloud, &instance.id).await?;
    let ended = cloud.get(&instance.id).await?;
    assert_eq!(ended.phase, InstancePhase::Terminated);
    assert_eq!(ended.reason.as_deref(), Some("its init has ended"));
    assert_eq!(
        cloud.terminate(&instance.id).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    place.nothing_left().await
}

/// The machine looks at both keepers' children: killed containerd or agent come back, as under systemd.
#[tokio::test]
async fn containerd_and_agent_are_started_again_when_killed() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    let instance = cloud.launch(bare_request("heal")).await?;
    for program in ["containerd --config", "sleep 1000000"] {
        until(program, || processes(&instance.id, program).len() == 1).await?;
        let first = processes(&instance.id, program);
        support::kill(first[0])?;
        until("it comes back", || {
            let now = processes(&instance.id, program);
            now.len() == 1 && now != first
        })
        .await
        .with_context(|| format!("{program}: {}", console(&cloud, &instance.id)))?;
    }
    // And the init collects whoever lost its parent.
    let init = support::init(&cloud, &instance.id)?;
    let orphan = [
        "--target",
        &init.to_string(),
        "--pid",
        "sh",
        "-c",
        "sleep 0.1 & exit",
    ];
    anyhow::ensure!(
        std::process::Command::new("nsenter")
            .args(orphan)
            .status()?
            .success()
    );
    until("no process of the instance is a zombie", || {
        zombies_below(init) == 0
    })
    .await?;
    cloud.purge().await?;
    place.nothing_left().await
}

/// How many children of a process have ended and were not collected.
fn zombies_below(parent: i32) -> usize {
    let wanted = format!("Z {parent} ");
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, fields)| fields.starts_with(&wanted))
        })
        .count()
}

/// The memory limit of an instance's control group, in either version.
fn memory_limit(cloud: &LocalCloud, id: &InstanceId) -> Result<u64> {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", support::init(cloud, id)?))?;
    let path = |line: &str| line.rsplit(':').next().unwrap_or_default().to_owned();
    let file = match groups.lines().find(|line| line.contains(":memory:")) {
        Some(line) => format!("/sys/fs/cgroup/memory{}/memory.limit_in_bytes", path(line)),
        // Version 2: the init is in a group below the instance's.
        None => format!(
            "/sys/fs/cgroup{}/../memory.max",
            path(groups.lines().next().unwrap_or_default())
        ),
    };
    Ok(std::fs::read_to_string(file)?.trim().parse()?)
}

/// A controller that is killed and started again must find its instances, or they would run, and cost, for ever.
#[tokio::test]
async fn the_next_process_adopts_what_is_there_and_finishes_what_is_half_done() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    let kept = cloud.launch(bare_request("kept")).await?;
    let dead = cloud.launch(bare_request("dead")).await?;
    let half = cloud.launch(bare_request("half")).await?;
    let dying = cloud.launch(bare_request("dying")).await?;
    let second = LocalCloud::new(place.bare()?).await.map(|_| ()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict, "two processes on one folder");
    let folder = |id: &InstanceId| cloud.instance_dir(id);
    let stage = |id: &InstanceId, from: &str, to: &str| -> Result<()> {
        let file = folder(id).join("instance.json");
        let text = std::fs::read_to_string(&file)?.replace(from, to);
        Ok(std::fs::write(file, text)?)
    };
    // As a kill -9 at the worst moments would have left them.
    stage(&half.id, "\"running\"", "\"booting\"")?;
    stage(&dying.id, "\"running\"", "\"terminating\"")?;
    std::fs::create_dir(folder(&kept.id).with_file_name("i-0000dead"))?;
    let init = support::init(&cloud, &dead.id)?;
    drop(cloud);
    support::kill(init)?;

    let cloud = LocalCloud::new(place.bare()?).await?;
    gone(&cloud, &dead.id).await?;
    gone(&cloud, &dying.id).await?;
    assert_eq!(cloud.get(&kept.id).await?.phase, InstancePhase::Running);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while cloud.get(&half.id).await?.phase != InstancePhase::Running {
        anyhow::ensure!(std::time::Instant::now() < deadline, "not finished");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cloud.launch(bare_request("half")).await?.id, half.id);
    assert!(
        !Path::new(&cloud.instance_dir(&kept.id))
            .with_file_name("i-0000dead")
            .exists()
    );
    cloud.purge().await?;
    place.nothing_left().await
}

/// One instance that cannot be removed must not keep the others, and their processes, on the machine.
#[tokio::test]
async fn a_purge_goes_on_after_what_it_cannot_remove() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    let mut ids = Vec::new();
    for token in ["a", "b", "c"] {
        ids.push(cloud.launch(bare_request(token)).await?.id);
    }
    // The first in the order of the table: something is mounted in its folder.
    ids.sort();
    let in_the_way = cloud.instance_dir(&ids[0]).join("root/tmp");
    let mount = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program)
            .args(args)
            .arg(&in_the_way)
            .status();
        anyhow::ensure!(status?.success(), "{program} failed");
        Ok(())
    };
    mount("mount", &["-t", "tmpfs", "tmpfs"])?;
    let refused = cloud.purge().await;
    let left: Vec<_> = cloud
        .list(ListOptions::default())
        .map(|one| one.map(|one| one.id))
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    mount("umount", &[])?;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(left, [ids[0].clone()], "the others are gone all the same");
    cloud.purge().await?;
    place.nothing_left().await
}

/// `kip dev` twice on one machine.
#[tokio::test]
async fn two_clouds_live_side_by_side_and_do_not_see_each_other() -> Result<()> {
    let (left, right) = (Place::new()?, Place::new()?);
    let (one, two) = (
        LocalCloud::new(left.bare()?).await?,
        LocalCloud::new(right.bare()?).await?,
    );
    let (a, b) = tokio::try_join!(one.launch(bare_request("a")), two.launch(bare_request("a")))?;
    assert_ne!(a.addresses.management, b.addresses.management);
    assert_ne!(one.gateway(), two.gateway());
    one.purge().await?;
    left.nothing_left().await?;
    assert_eq!(two.get(&b.id).await?.phase, InstancePhase::Running);
    assert!(!processes(&b.id, "init.sh").is_empty() || !processes(&b.id, "boot.sh").is_empty());

    drop(one);
    let mut third = left.bare()?;
    third.bridge = Some(bridge_of(&right).await?);
    let error = LocalCloud::new(third).await.map(|_| ()).unwrap_err();
    assert!(error.message().contains("choose another `bridge`"), "{error}");
    let mut third = left.bare()?;
    // The /24 around the other's gateway.
    let gateway = two.gateway().to_string();
    let (front, _) = gateway.rsplit_once('.').context("an IPv4 address")?;
    third.subnet = Some(format!("{front}.0/24"));
    let error = LocalCloud::new(third).await.map(|_| ()).unwrap_err();
    assert!(error.message().contains("choose another `subnet`"), "{error}");
    two.purge().await?;
    right.nothing_left().await
}

async fn bridge_of(place: &Place) -> Result<String> {
    let left = Leftovers::of(&place.data()).await?;
    left.links
        .into_iter()
        .find(|link| link.starts_with("kip"))
        .context("a bridge")
}

/// Else a cloud that has addresses but no machines could not give its instances ours.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_the_addresses_it_was_launched_at_and_nobody_else_has_them() -> Result<()> {
    let place = Place::new()?;
    let cloud = LocalCloud::new(place.bare()?).await?;
    let std::net::IpAddr::V4(gateway) = cloud.gateway() else {
        anyhow::bail!("the gateway is {}", cloud.gateway());
    };
    let address = |offset: u32| std::net::Ipv4Addr::from(u32::from(gateway) + offset);
    // The second pair's pod is where the first free pair would be.
    let pairs = [(100, 600), (101, 7)].map(|(management, pod)| Addressing {
        management: address(management),
        pod: address(pod),
    });
    let first = cloud.launch_at(bare_request("first"), pairs[0]).await?;
    ensure!(
        first.addresses.management == Some(pairs[0].management.into()),
        "{first:?}"
    );
    ensure!(first.addresses.pod == Some(pairs[0].pod.into()), "{first:?}");
    let again = cloud.launch_at(bare_request("first"), pairs[0]).await?;
    ensure!(again.id == first.id, "{again:?}");
    cloud.launch_at(bare_request("second"), pairs[1]).await?;
    let chosen = cloud.launch(bare_request("chosen by the cloud")).await?;
    ensure!(
        chosen.addresses.management != Some(pairs[1].pod.into()),
        "{chosen:?}"
    );

    for (token, at, kind) in [
        ("first", pairs[1], ErrorKind::AlreadyExists),
        ("taken", pairs[0], ErrorKind::Conflict),
        (
            "the machine's",
            Addressing {
                management: gateway,
                ..pairs[0]
            },
            ErrorKind::InvalidRequest,
        ),
    ] {
        let error = cloud.launch_at(bare_request(token), at).await.unwrap_err();
        ensure!(error.kind() == kind, "{token}: {error:?}");
    }
    drop(cloud);
    let cloud = LocalCloud::new(place.bare()?).await?;
    ensure!(
        cloud.get(&first.id).await?.addresses == first.addresses,
        "adopted at others"
    );
    cloud.purge().await?;
    place.nothing_left().await
}
