//! The reconciler against a scripted runtime: failures a real one would not give on demand.

mod fake;

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kip_cell_api::v1::container_state::State;
use kip_cell_api::v1::{Pod, PullSecret, StatusSnapshot};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::credentials::tests::{answering, providers};
use crate::cri;
use crate::pod::fixtures;
use fake::{Call, Fake};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    handle: Handle,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Bench {
    fn start(folder: &Path, socket: &Path) -> Self {
        Self::start_for(folder, socket, "")
    }

    fn start_for(folder: &Path, socket: &Path, pod_uid: &str) -> Self {
        Self::start_with(folder, socket, pod_uid, CredentialProviders::default())
    }

    fn start_with(folder: &Path, socket: &Path, pod_uid: &str, providers: CredentialProviders) -> Self {
        let runtime = Runtime::new(socket);
        let setup = Setup {
            runtime: runtime.clone(),
            host: Host::read(),
            state_dir: folder.join("state"),
            cgroup_parent: String::new(),
            pod_uid: pod_uid.into(),
            providers,
        };
        let (reconciler, handle) = Reconciler::new(setup, Timestamp::now()).expect("state");
        let messages = handle.messages.clone();
        let (sender, mut events) = mpsc::channel(8);
        let forward = async move {
            while let Some(event) = events.recv().await {
                drop(messages.send(Message::Runtime(event)).await);
            }
        };
        let tasks = vec![
            tokio::spawn(reconciler.run()),
            tokio::spawn(cri::watch(runtime, sender)),
            tokio::spawn(forward),
        ];
        Self { handle, tasks }
    }

    async fn ask(&self, message: impl FnOnce(message::Reply) -> Message + Send) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.handle.messages.send(message(reply)).await.expect("runs");
        answer.await.expect("answers")
    }

    async fn deploy(&self, pod: &Pod) -> Result<(), Refusal> {
        let pod = Box::new(pod.clone());
        self.ask(|reply| Message::Deploy(pod, reply)).await
    }

    async fn stop(&self, pod: &Pod) -> Result<(), Refusal> {
        let (pod_uid, deadline) = (pod.uid.clone(), Timestamp::now() + SignedDuration::from_secs(1));
        self.ask(|reply| Message::Stop {
            pod_uid,
            deadline,
            reason: "Deleted".into(),
            reply,
        })
        .await
    }

    async fn wait(
        &self,
        what: &str,
        condition: impl Fn(&StatusSnapshot) -> bool + Send + Sync,
    ) -> StatusSnapshot {
        let mut status = self.handle.status.clone();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| condition(status))).await;
        match waited {
            Ok(found) => found.expect("runs").as_ref().clone(),
            Err(_) => panic!(
                "waited in vain until {what}; last: {:#?}",
                self.handle.status.borrow()
            ),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn reason(status: &StatusSnapshot) -> String {
    match status
        .containers
        .first()
        .and_then(|c| c.state.clone())
        .and_then(|state| state.state)
    {
        Some(State::Waiting(waiting)) => waiting.reason,
        Some(State::Running(_)) => "Running".into(),
        Some(State::Terminated(terminated)) => terminated.reason,
        None => String::new(),
    }
}

fn runs(status: &StatusSnapshot) -> bool {
    reason(status) == "Running"
}

/// A runtime that is not there yet is waited for, and the user is told what is missing.
#[tokio::test]
async fn missing_socket_is_reported_and_awaited() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let bench = Bench::start(folder.path(), &socket);
    let pod = fixtures::pod("Always", &["c"]);
    bench.deploy(&pod).await.expect("deploy");
    let status = bench
        .wait("the error shows", |status| !status.sandbox_error.is_empty())
        .await;
    assert!(
        status.sandbox_error.contains("cri.sock"),
        "{}",
        status.sandbox_error
    );
    assert!(
        status.containers.is_empty(),
        "nothing is known of the containers, so nothing is said"
    );
    let _fake = Fake::serve(&socket);
    let status = bench.wait("it runs", runs).await;
    assert_eq!(status.sandbox_error, "");
}

/// A network that fails at first must not cost the pod; what was wrong is shown meanwhile.
#[tokio::test]
async fn sandbox_is_tried_again() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    fake.fail(Call::RunPodSandbox, "no more addresses");
    let bench = Bench::start(folder.path(), &socket);
    bench
        .deploy(&fixtures::pod("Always", &["c"]))
        .await
        .expect("deploy");
    let status = bench
        .wait("the error shows", |status| !status.sandbox_error.is_empty())
        .await;
    assert_eq!(
        status.sandbox_error,
        "Failed to create pod sandbox: no more addresses"
    );
    bench.wait("it runs", runs).await;
    assert_eq!(fake.count(Call::RunPodSandbox), 2);
}

/// What the runtime says about a container it cannot create reaches the user; a corrected pod starts at once.
#[tokio::test]
async fn create_error_is_shown_and_cleared_by_an_update() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    fake.fail(Call::CreateContainer, "no such device");
    let bench = Bench::start(folder.path(), &socket);
    let mut pod = fixtures::pod("Always", &["c"]);
    bench.deploy(&pod).await.expect("deploy");
    let status = bench
        .wait("the error shows", |status| {
            reason(status) == "CreateContainerError"
        })
        .await;
    assert!(
        status
            .events
            .iter()
            .any(|event| event.message == "Error: no such device"),
        "{status:#?}"
    );
    pod.generation = 2;
    let update = Box::new(pod.clone());
    bench
        .ask(|reply| Message::Update(update, reply))
        .await
        .expect("update");
    let status = bench.wait("it runs", runs).await;
    assert_eq!(
        (status.containers[0].restart_count, status.observed_generation),
        (0, 2)
    );
}

/// A private image in the cloud's own registry needs no secret: the cell's role is the login. What fails at it is told, and the image pulled
/// without, as it may be public.
#[tokio::test]
async fn an_image_that_no_secret_covers_is_pulled_with_the_cells_own_login() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    fake.forget_images();
    let plugins = [
        (
            "ecr",
            "*.dkr.ecr.*.amazonaws.com",
            answering(folder.path(), "*.dkr.ecr.*.amazonaws.com", "AWS"),
        ),
        (
            "broken",
            "public.example.com",
            "echo no role >&2; exit 1".to_owned(),
        ),
    ];
    let providers = providers(folder.path(), &plugins);
    let bench = Bench::start_with(folder.path(), &socket, "", providers);
    let mut pod = fixtures::pod("Always", &["own", "secret", "public"]);
    pod.containers[0].image = "1.dkr.ecr.us-east-1.amazonaws.com/app:1".into();
    pod.containers[1].image = "2.dkr.ecr.us-east-1.amazonaws.com/app:1".into();
    pod.containers[2].image = "public.example.com/app:1".into();
    pod.pull_secrets = vec![PullSecret {
        registry: "2.dkr.ecr.us-east-1.amazonaws.com".into(),
        username: "secret".into(),
        ..Default::default()
    }];
    bench.deploy(&pod).await.expect("deploy");
    let all_run = |status: &StatusSnapshot| {
        status.containers.len() == 3
            && status.containers.iter().all(|container| {
                let state = container.state.clone().and_then(|state| state.state);
                matches!(state, Some(State::Running(_)))
            })
    };
    let status = bench.wait("all run", all_run).await;
    let mut users = fake.pull_users();
    users.sort();
    assert_eq!(users, ["", "AWS", "secret"]);
    let told: Vec<_> = status
        .events
        .iter()
        .filter(|event| event.reason == "FailedImageCredentialProvider")
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].warning && told[0].message.contains("no role"), "{told:?}");
}

/// A private image is pulled with the pod's own secret, and the result is used by its id.
#[tokio::test]
async fn pull_uses_the_matching_secret() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    fake.forget_images();
    let bench = Bench::start(folder.path(), &socket);
    let mut pod = fixtures::pod("Always", &["c"]);
    pod.containers[0].image = "r.example.com/team/app:1".into();
    let secret = |registry: &str| PullSecret {
        registry: registry.into(),
        username: registry.into(),
        ..Default::default()
    };
    pod.pull_secrets = vec![secret("other.example.com"), secret("r.example.com/team")];
    bench.deploy(&pod).await.expect("deploy");
    bench.wait("it runs", runs).await;
    assert_eq!(fake.pull_users(), ["r.example.com/team"]);
}

/// Deleting a pod whose image is still being pulled must not wait for the pull.
#[tokio::test]
async fn stop_abandons_a_pull() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    fake.forget_images();
    fake.hang_pulls();
    let bench = Bench::start(folder.path(), &socket);
    let pod = fixtures::pod("Always", &["c"]);
    bench.deploy(&pod).await.expect("deploy");
    bench
        .wait("the pull began", |s| {
            s.sandbox_ready && s.events.iter().any(|e| e.reason == "Pulling")
        })
        .await;
    bench.stop(&pod).await.expect("stop");
    let status = bench.wait("the pod has ended", |status| status.finished).await;
    assert!(status.stopping && !status.sandbox_ready);
    assert_eq!(fake.count(Call::CreateContainer), 0);
}

/// A stop that the runtime refuses at first is tried again, and the pod is not called finished before.
#[tokio::test]
async fn refused_stop_is_repeated() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    let bench = Bench::start(folder.path(), &socket);
    let pod = fixtures::pod("Always", &["c"]);
    bench.deploy(&pod).await.expect("deploy");
    bench.wait("it runs", runs).await;
    fake.fail(Call::StopContainer, "the shim does not answer");
    bench.stop(&pod).await.expect("stop");
    let status = bench.wait("the pod has ended", |status| status.finished).await;
    assert!(
        status
            .events
            .iter()
            .any(|event| event.message.contains("the shim does not answer")),
        "{status:#?}"
    );
    assert_eq!(fake.count(Call::StopContainer), 2);
}

/// The pod and the order to stop it survive the agent; a second pod is refused.
#[tokio::test]
async fn desired_state_survives_the_agent() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    let pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start(folder.path(), &socket);
    bench.deploy(&pod).await.expect("deploy");
    let before = bench
        .wait("it runs", |status| runs(status) && status.containers[0].ready)
        .await;
    drop(bench);
    let bench = Bench::start(folder.path(), &socket);
    let after = bench
        .wait("it is known again", |status| status.observed_generation == 1)
        .await;
    assert_eq!(after.containers, before.containers);
    assert_eq!(fake.count(Call::CreateContainer), 1);
    let mut other = pod.clone();
    other.uid = "other".into();
    assert!(matches!(
        bench.deploy(&other).await,
        Err(Refusal::OtherPod { .. })
    ));
    bench.stop(&pod).await.expect("stop");
    drop(bench);
    let bench = Bench::start(folder.path(), &socket);
    bench
        .wait("the pod has ended", |status| status.stopping && status.finished)
        .await;
}

/// A controller that was replaced must not start a pod anew on a cell where its successor had it stopped.
#[tokio::test]
async fn a_stopped_pod_is_never_started_again_by_a_later_deploy() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    let mut pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start(folder.path(), &socket);
    bench.deploy(&pod).await.expect("deploy");
    bench.wait("it runs", runs).await;
    bench.stop(&pod).await.expect("stop");
    bench.wait("the pod has ended", |status| status.finished).await;
    let stopped = Err(Refusal::Stopped(pod.uid.clone()));
    assert_eq!(bench.deploy(&pod).await, stopped);
    pod.generation += 1;
    assert_eq!(bench.deploy(&pod).await, stopped, "not by a newer one either");
    drop(bench);
    let bench = Bench::start(folder.path(), &socket);
    assert_eq!(
        bench.deploy(&pod).await,
        stopped,
        "and not after the agent was killed"
    );
    bench
        .wait("it is known to have ended", |status| {
            status.stopping && status.finished
        })
        .await;
    assert_eq!(fake.count(Call::CreateContainer), 1);
}

/// The stop of a pod whose deploy is still on the way must not be forgotten, or the pod would start after it was given up.
#[tokio::test]
async fn a_stop_that_overtakes_its_deploy_counts() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let fake = Fake::serve(&socket);
    let pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start(folder.path(), &socket);
    assert_eq!(bench.stop(&pod).await, Err(Refusal::NoPod));
    let stopped = Err(Refusal::Stopped(pod.uid.clone()));
    assert_eq!(bench.deploy(&pod).await, stopped);
    drop(bench);
    let bench = Bench::start(folder.path(), &socket);
    assert_eq!(
        bench.deploy(&pod).await,
        stopped,
        "and not after the agent was killed"
    );
    assert_eq!(fake.count(Call::RunPodSandbox), 0);
}

/// A cell takes the pod it was launched for and no other, whoever asks.
#[tokio::test]
async fn a_pod_the_cell_was_not_launched_for_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start_for(folder.path(), &socket, "another");
    assert!(matches!(bench.deploy(&pod).await, Err(Refusal::OtherCell { .. })));
    let bench = Bench::start_for(folder.path(), &socket, &pod.uid);
    bench.deploy(&pod).await.expect("its own");
}

/// Makes every write of the state fail until it is removed again.
async fn block_disk(folder: &Path) -> std::path::PathBuf {
    let in_the_way = folder.join("state/pod.new");
    let block = async {
        loop {
            match std::fs::create_dir(&in_the_way) {
                Ok(()) => return,
                // A write is under way; its file is renamed in a moment.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("folder: {error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), block)
        .await
        .expect("the write under way ends");
    in_the_way
}

/// A promise that is on no disk is gone with the agent: it must not be given, however often it is asked for.
#[tokio::test]
async fn a_stop_that_could_not_be_stored_is_not_promised_by_repeating_it() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let _fake = Fake::serve(&socket);
    let pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start(folder.path(), &socket);
    bench.deploy(&pod).await.expect("deploy");
    bench.wait("it runs", runs).await;
    let in_the_way = block_disk(folder.path()).await;
    for _ in 0..2 {
        assert!(matches!(bench.stop(&pod).await, Err(Refusal::Store(_))));
    }
    std::fs::remove_dir(&in_the_way).expect("remove");
    bench.stop(&pod).await.expect("stored now");
    drop(bench);
    let bench = Bench::start(folder.path(), &socket);
    bench
        .wait("the stop is remembered", |status| status.stopping)
        .await;
}

/// The same for an update: its files must be the new ones after a restart.
#[tokio::test]
async fn an_update_that_could_not_be_stored_is_not_promised_by_repeating_it() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let _fake = Fake::serve(&socket);
    let mut pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start(folder.path(), &socket);
    bench.deploy(&pod).await.expect("deploy");
    bench.wait("it runs", runs).await;
    let in_the_way = block_disk(folder.path()).await;
    pod.generation += 1;
    for _ in 0..2 {
        assert!(matches!(bench.deploy(&pod).await, Err(Refusal::Store(_))));
    }
    std::fs::remove_dir(&in_the_way).expect("remove");
    bench.deploy(&pod).await.expect("stored now");
    drop(bench);
    let bench = Bench::start(folder.path(), &socket);
    bench
        .wait("the update is remembered", |status| {
            status.observed_generation == 2
        })
        .await;
}

/// What could not be stored is stored once it can be, though nobody asks again.
#[tokio::test]
async fn a_failed_write_is_repeated() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("cri.sock");
    let _fake = Fake::serve(&socket);
    let pod = fixtures::pod("Always", &["c"]);
    let bench = Bench::start(folder.path(), &socket);
    bench.deploy(&pod).await.expect("deploy");
    bench.wait("it runs", runs).await;
    let in_the_way = block_disk(folder.path()).await;
    assert!(matches!(bench.stop(&pod).await, Err(Refusal::Store(_))));
    bench.wait("the pod has ended", |status| status.finished).await;
    std::fs::remove_dir(&in_the_way).expect("remove");
    let stored = async {
        let store = Store::open(&folder.path().join("state")).expect("open");
        while store.load().expect("load").stop_deadline_ms.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stored)
        .await
        .expect("the stop was never stored");
}
