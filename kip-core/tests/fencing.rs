//! Two controllers act for one node: the older one was cut off, and comes back with an old view. It may delay, but never undo.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kip_core::driver::{CellStore, DriverConfig, DriverHandle, Kip, PodIntent, StoredCell};
use kip_core::ids::{CellName, PodUid};
use kip_core::machine::Phase;
use kip_core::model::{CellRecord, PodDemand};
use kip_core::plan::Policy;
use kip_core::{Error, ErrorKind, Result};
use kip_testkit::{FakeStore, Fault, Op, World, invariants, samples};
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(1800);

/// The record store as one controller reaches it.
#[derive(Debug)]
struct Line {
    store: Arc<FakeStore>,
    is_cut: AtomicBool,
}

impl Line {
    fn pass(&self) -> Result<()> {
        if self.is_cut.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "reach the store", "cut off"));
        }
        Ok(())
    }
}

#[async_trait]
impl CellStore for Line {
    async fn create(&self, record: &CellRecord) -> Result<CellRecord> {
        self.pass()?;
        self.store.create(record).await
    }

    async fn update(&self, record: &CellRecord) -> Result<CellRecord> {
        self.pass()?;
        self.store.update(record).await
    }

    async fn remove(&self, name: &CellName, version: &str) -> Result<()> {
        self.pass()?;
        self.store.remove(name, version).await
    }

    async fn get(&self, name: &CellName) -> Result<Option<StoredCell>> {
        self.pass()?;
        self.store.get(name).await
    }

    async fn list(&self) -> Result<Vec<StoredCell>> {
        self.pass()?;
        self.store.list().await
    }
}

struct Controller {
    handle: DriverHandle,
    line: Arc<Line>,
    task: JoinHandle<()>,
}

impl Controller {
    /// A controller that nobody tells anything yet.
    fn start(world: &World) -> Self {
        let line = Arc::new(Line {
            store: Arc::clone(&world.store),
            is_cut: AtomicBool::new(false),
        });
        let mut config = DriverConfig::default();
        config.policy = Policy::default().with_grace(Duration::from_secs(30));
        let driver = Kip::builder(Arc::new(world.cloud.clone()))
            .identity(samples::cluster(), samples::node())
            .runtime(Arc::new(world.runtime.clone()))
            .source(Arc::new(world.source.clone()))
            .store(Arc::clone(&line) as Arc<_>)
            .clock(Arc::clone(&world.clock))
            .config(config)
            .build()
            .expect("builds");
        let handle = driver.handle();
        let task = tokio::spawn(driver.run(std::future::pending()));
        Self { handle, line, task }
    }

    /// The one the source speaks to from now on; the one before hears nothing more.
    fn lead(world: &World) -> Self {
        let controller = Self::start(world);
        world.source.attach(controller.handle.clone());
        controller
    }

    fn cut(&self, is_cut: bool) {
        self.line.is_cut.store(is_cut, Ordering::SeqCst);
    }

    fn phase(&self, pod: &PodUid) -> Option<Phase> {
        let all = self.handle.snapshot();
        all.into_iter()
            .find(|cell| cell.pod.uid == *pod)
            .map(|cell| cell.phase)
    }

    fn attempt(&self, pod: &PodUid) -> Option<u32> {
        let all = self.handle.snapshot();
        let cell = all.into_iter().find(|cell| cell.pod.uid == *pod)?;
        cell.record.map(|record| record.attempt)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn run(demand: PodDemand) -> PodIntent {
    PodIntent::Run {
        demand: Box::new(demand),
        refresh: false,
        active_deadline_seconds: None,
        restartable: true,
        started_before: false,
    }
}

async fn until(world: &World, what: &str, holds: impl FnMut() -> bool) {
    assert!(world.wait_until(LATER, holds).await, "not reached: {what}");
}

/// The pod runs on one instance, the only one there is, and stays there while both controllers sweep.
async fn settled(world: &World, pod: &PodUid, one: &Controller, other: &Controller) {
    until(world, "both see it run", || {
        one.phase(pod) == Some(Phase::Running) && other.phase(pod) == Some(Phase::Running)
    })
    .await;
    until(world, "one instance is left", || {
        world.cloud.instances().len() == 1
    })
    .await;
    let instance = world.cloud.instances()[0].id.clone();
    let moved = world
        .wait_until(LATER, || {
            let all = world.cloud.instances();
            all.len() != 1 || all[0].id != instance || one.phase(pod) != Some(Phase::Running)
        })
        .await;
    assert!(!moved, "{:?}", world.cloud.instances());
    assert_eq!(one.attempt(pod), other.attempt(pod));
    assert_eq!(world.store.records().len(), 1);
    invariants::never_doubled(world).expect("never doubled");
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_cannot_store_launches_nothing_and_follows_the_one_that_could() {
    let world = World::new();
    let stale = Controller::lead(&world);
    until(&world, "it is up", || stale.handle.is_recovered()).await;
    stale.cut(true);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "the stale one has decided", || {
        stale.phase(&pod) == Some(Phase::Launching)
    })
    .await;
    assert!(!world.wait_until(SOON, || world.cloud.launches() > 0).await);
    let newer = Controller::lead(&world);
    until(&world, "the newer one runs it", || {
        newer.phase(&pod) == Some(Phase::Running)
    })
    .await;
    stale.cut(false);
    settled(&world, &pod, &stale, &newer).await;
    assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_wakes_up_with_an_older_attempt_learns_of_the_newer_one_and_kills_nothing() {
    for is_cut in [true, false] {
        let world = World::new();
        let stale = Controller::lead(&world);
        let pod = world.source.run(samples::demand("web"));
        until(&world, "it runs", || stale.phase(&pod) == Some(Phase::Running)).await;
        stale.cut(is_cut);
        let newer = Controller::lead(&world);
        until(&world, "it is adopted", || {
            newer.phase(&pod) == Some(Phase::Running)
        })
        .await;
        world.cloud.kill(&world.cloud.instances()[0].id);
        until(&world, "it runs elsewhere", || {
            newer.attempt(&pod) == Some(2) && newer.phase(&pod) == Some(Phase::Running)
        })
        .await;
        // Long enough for the stale one to sweep, and to draw its own conclusions from the lost instance.
        world.wait_until(LATER, || false).await;
        stale.cut(false);
        settled(&world, &pod, &stale, &newer).await;
        assert_eq!(world.cloud.ever_made(), 2, "cut off: {is_cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deploy_that_a_stale_controller_was_about_to_make_does_not_get_through() {
    let world = World::new();
    world.cloud.set_boot_delay(Duration::from_secs(20));
    let stale = Controller::lead(&world);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "it boots", || stale.phase(&pod) == Some(Phase::Booting)).await;
    let first = world.cloud.instances()[0].id.clone();
    world.runtime.set_silent(&first, true);
    stale.cut(true);
    let newer = Controller::lead(&world);
    until(&world, "the newer one waits for the agent", || {
        newer.phase(&pod) == Some(Phase::Connecting)
    })
    .await;
    world.cloud.set_boot_delay(Duration::ZERO);
    world
        .cloud
        .interrupt(&first, world.in_future(Duration::from_secs(120)), "spot");
    until(&world, "it runs elsewhere", || {
        newer.attempt(&pod) == Some(2) && newer.phase(&pod) == Some(Phase::Running)
    })
    .await;
    world.runtime.set_silent(&first, false);
    world.wait_until(SOON, || false).await;
    assert_eq!(world.runtime.starts(&pod), 1, "the old instance was not told");
    stale.cut(false);
    settled(&world, &pod, &stale, &newer).await;
    assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_decided_by_the_newer_controller_is_not_undone_by_the_stale_one() {
    // Waking up in the middle of it, or after all is over.
    for terminate_delay in [Duration::from_secs(600), Duration::ZERO] {
        let world = World::new();
        world.cloud.set_terminate_delay(terminate_delay);
        let stale = Controller::lead(&world);
        let pod = world.source.run(samples::demand("web"));
        until(&world, "it runs", || stale.phase(&pod) == Some(Phase::Running)).await;
        stale.cut(true);
        let newer = Controller::lead(&world);
        until(&world, "it is adopted", || {
            newer.phase(&pod) == Some(Phase::Running)
        })
        .await;
        world.source.delete(&pod, Duration::from_secs(5));
        until(&world, "the pod object is gone", || !world.source.exists(&pod)).await;
        // The stale one concludes from the lost instance that another attempt is due, and cannot store it.
        world.wait_until(SOON * 3, || false).await;
        stale.cut(false);
        until(&world, "nothing is left", || {
            world.cloud.instances().is_empty() && world.store.stored().is_empty()
        })
        .await;
        until(&world, "the newer one has forgotten", || {
            newer.handle.snapshot().is_empty()
        })
        .await;
        assert!(!world.wait_until(LATER, || world.cloud.ever_made() > 1).await);
        assert!(world.store.stored().is_empty());
        // Nobody tells it that the pod is gone; it knows that there is nothing to do for it.
        assert!(matches!(stale.phase(&pod), None | Some(Phase::Finished)));
    }
}

#[tokio::test(start_paused = true)]
async fn two_controllers_that_decide_at_the_same_moment_make_one_record_and_run_the_pod_once() {
    for slow in [Duration::ZERO, Duration::from_secs(3)] {
        let world = World::new();
        let one = Controller::lead(&world);
        let other = Controller::start(&world);
        other.handle.synced();
        until(&world, "both are up", || {
            one.handle.is_recovered() && other.handle.is_recovered()
        })
        .await;
        for _ in 0..4 {
            world.cloud.faults().add(Op::Launch, Fault::Slow(slow));
        }
        let pod = world.source.run(samples::demand("web"));
        other.handle.intent(pod.clone(), run(samples::demand("web")));
        settled(&world, &pod, &one, &other).await;
        assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (1, 1));

        // Both see the instance lost, and both begin the next attempt.
        world.cloud.kill(&world.cloud.instances()[0].id);
        until(&world, "another attempt runs", || {
            one.attempt(&pod) == Some(2) && one.phase(&pod) == Some(Phase::Running)
        })
        .await;
        settled(&world, &pod, &one, &other).await;
        assert_eq!((world.cloud.ever_made(), world.runtime.starts(&pod)), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_whose_pod_cache_is_stuck_retires_nothing_that_the_api_still_knows() {
    let world = World::new();
    let stale = Controller::lead(&world);
    until(&world, "it is up", || stale.handle.is_recovered()).await;
    let newer = Controller::lead(&world);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "it runs", || newer.phase(&pod) == Some(Phase::Running)).await;
    let harmed = world.wait_until(LATER * 2, || {
        newer.phase(&pod) != Some(Phase::Running) || world.cloud.instances().len() != 1
    });
    assert!(!harmed.await);
    assert_eq!(world.runtime.starts(&pod), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_another_controller_wrote_again_is_not_removed_with_the_old_one() {
    let world = World::new();
    let leader = Controller::lead(&world);
    let pod = world.source.run(samples::demand("web"));
    until(&world, "it runs", || leader.phase(&pod) == Some(Phase::Running)).await;
    let before = world.store.records()[0].clone();
    // A label, a price: the same decision in a newer version.
    world
        .store
        .edit_by_hand(&before.name, |record| record.price.0 += 1);
    let behind = world.store.remove(&before.name, &before.version).await;
    assert_eq!(behind.expect_err("it moved on").kind(), ErrorKind::Conflict);
    assert_eq!(world.store.records().len(), 1);
    world.source.delete(&pod, SOON);
    until(&world, "nothing is left", || {
        world.store.stored().is_empty() && world.cloud.instances().is_empty()
    })
    .await;
}
