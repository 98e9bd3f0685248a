use std::time::Duration;

use kip_cell_api::v1::Container;
use proptest::prelude::*;

use super::*;
use crate::pod::fixtures::{at, container, exited, pod, run, running, seen};
use crate::pod::model::{Exit, Failure, Image, Sandbox};

fn ready_image() -> ImageState {
    ImageState::Ready(Image {
        name: "busybox".into(),
        id: "sha256:1".into(),
        uid: None,
        username: String::new(),
    })
}

fn memory(images: &[&str]) -> Memory {
    Memory {
        volumes_ready: true,
        images: images
            .iter()
            .map(|name| ((*name).to_owned(), ready_image()))
            .collect(),
        stopped_sandboxes: Default::default(),
        ..Default::default()
    }
}

fn start(name: &str, attempt: u32, backoff: u64) -> Action {
    Action::Start {
        container: name.into(),
        attempt,
        backoff: Duration::from_secs(backoff),
        sandbox_id: "s0".into(),
    }
}

fn now(pod: &Pod, observed: &Observed, mem: &Memory, second: i64) -> Plan {
    decide(pod, None, observed, mem, at(second))
}

/// A start must not be slower than need be: everything that can go side by side does.
#[test]
fn sandbox_image_and_volumes_go_together() {
    let plan = now(
        &pod("Always", &["a"]),
        &Observed::default(),
        &Memory::default(),
        0,
    );
    let expected = [
        Action::PrepareVolumes,
        Action::RunSandbox { attempt: 0 },
        Action::EnsureImage {
            container: "a".into(),
        },
    ];
    assert_eq!(plan.actions, expected);
}

/// Proxies that must be up before the program rely on the order of the spec.
#[test]
fn containers_start_in_order() {
    let pod = pod("Always", &["a", "b"]);
    let mut mem = memory(&["a", "b"]);
    assert_eq!(now(&pod, &seen(vec![]), &mem, 0).actions, [start("a", 0, 0)]);
    mem.busy.insert(Op::Start("a".into()));
    assert_eq!(
        now(&pod, &seen(vec![running("a", 0)]), &mem, 0).actions,
        [],
        "its post-start hook still runs"
    );
    mem.busy.clear();
    assert_eq!(
        now(&pod, &seen(vec![running("a", 0)]), &mem, 0).actions,
        [start("b", 0, 0)]
    );
}

/// One container that cannot start must not keep the others from serving.
#[test]
fn a_failing_container_holds_up_nobody() {
    let pod = pod("Always", &["a", "b"]);
    let mut mem = memory(&["b"]);
    let failure = |reason: &str| Failure {
        reason: reason.into(),
        message: String::new(),
        at: at(0),
        backoff: Duration::from_secs(10),
    };
    mem.images
        .insert("a".into(), ImageState::Failed(failure("ErrImagePull")));
    let plan = now(&pod, &seen(vec![]), &mem, 5);
    assert_eq!(plan.actions, [start("b", 0, 0)]);
    assert_eq!(plan.wake_at, Some(at(10)));
    let plan = now(&pod, &seen(vec![]), &mem, 10);
    assert!(
        plan.actions.contains(&Action::EnsureImage {
            container: "a".into()
        }),
        "{plan:?}"
    );
    let mut mem = memory(&["a", "b"]);
    mem.failures.insert("a".into(), failure("CreateContainerError"));
    assert_eq!(now(&pod, &seen(vec![]), &mem, 5).actions, [start("b", 0, 0)]);
}

#[test]
fn crashes_restart_at_once_then_wait() {
    let pod = pod("Always", &["a"]);
    let mem = memory(&["a"]);
    let first = exited("a", 0, 1, at(0), at(1));
    assert_eq!(
        now(&pod, &seen(vec![first.clone()]), &mem, 1).actions,
        [start("a", 1, 10)]
    );
    let mut second = exited("a", 1, 1, at(1), at(2));
    second.backoff = Duration::from_secs(10);
    let plan = now(&pod, &seen(vec![first.clone(), second.clone()]), &mem, 3);
    assert_eq!((plan.actions, plan.wake_at), (vec![], Some(at(12))));
    assert_eq!(
        now(&pod, &seen(vec![first, second]), &mem, 12).actions,
        [start("a", 2, 20)]
    );
}

#[test]
fn dead_runs_beyond_two_are_removed() {
    let pod = pod("Always", &["a"]);
    let runs = vec![
        exited("a", 0, 1, at(0), at(1)),
        exited("a", 1, 1, at(2), at(3)),
        running("a", 2),
    ];
    assert_eq!(
        now(&pod, &seen(runs), &memory(&[]), 4).actions,
        [Action::RemoveContainer { id: "a-0".into() }]
    );
}

/// A batch pod that is done frees its sandbox and is never begun again, whatever is listed later.
#[test]
fn completed_pod_winds_down() {
    for (policy, code) in [("Never", 0), ("Never", 3), ("OnFailure", 0)] {
        let pod = pod(policy, &["a"]);
        let mut observed = seen(vec![exited("a", 0, code, at(0), at(1))]);
        let plan = now(&pod, &observed, &memory(&[]), 2);
        assert_eq!(
            (plan.actions, plan.finished),
            (vec![Action::StopSandbox { id: "s0".into() }], false)
        );
        observed.sandboxes.get_mut("s0").expect("s0").ready = false;
        let plan = now(&pod, &observed, &memory(&[]), 3);
        assert_eq!((plan.actions, plan.finished), (vec![], true), "{policy} {code}");
    }
}

#[test]
fn failed_init_ends_a_pod_that_is_not_restarted() {
    let mut pod = pod("Never", &["a"]);
    pod.init_containers = vec![container("i")];
    let observed = seen(vec![exited("i", 0, 1, at(0), at(1))]);
    assert_eq!(
        now(&pod, &observed, &memory(&["a"]), 2).actions,
        [Action::StopSandbox { id: "s0".into() }]
    );
    pod.restart_policy = "OnFailure".into();
    assert_eq!(
        now(&pod, &observed, &memory(&["a", "i"]), 2).actions,
        [start("i", 1, 10)]
    );
}

fn with_sidecar() -> Pod {
    let mut pod = pod("Always", &["a"]);
    pod.init_containers = vec![
        Container {
            sidecar: true,
            ..container("s")
        },
        container("i"),
        Container {
            sidecar: true,
            ..container("t")
        },
    ];
    pod
}

#[test]
fn next_init_waits_until_the_sidecar_has_started() {
    let pod = with_sidecar();
    let mut mem = memory(&["s", "i", "t", "a"]);
    assert_eq!(now(&pod, &seen(vec![]), &mem, 0).actions, [start("s", 0, 0)]);
    assert_eq!(now(&pod, &seen(vec![running("s", 0)]), &mem, 0).actions, []);
    mem.started.insert("s-0".into());
    assert_eq!(
        now(&pod, &seen(vec![running("s", 0)]), &mem, 0).actions,
        [start("i", 0, 0)]
    );
}

/// Sidecars carry the main containers' traffic and logs, so they end last, in reverse order.
#[test]
fn sidecars_end_last() {
    let pod = with_sidecar();
    let stop = Stop {
        deadline: at(30),
        reason: "Deleted".into(),
    };
    let plan = |observed: &Observed| decide(&pod, Some(&stop), observed, &memory(&[]), at(0)).actions;
    let ended = |id: &str| Action::Stop {
        id: id.into(),
        deadline: at(30),
    };
    let all = vec![
        running("a", 0),
        running("s", 0),
        running("t", 0),
        exited("i", 0, 0, at(0), at(1)),
    ];
    assert_eq!(plan(&seen(all.clone())), [ended("a-0")]);
    let gone = |name: &str| exited(name, 0, 0, at(0), at(1));
    assert_eq!(
        plan(&seen(vec![gone("a"), running("s", 0), running("t", 0)])),
        [ended("t-0")]
    );
    assert_eq!(
        plan(&seen(vec![gone("a"), running("s", 0), gone("t")])),
        [ended("s-0")]
    );
    assert_eq!(
        plan(&seen(vec![gone("a"), gone("s"), gone("t")])),
        [Action::StopSandbox { id: "s0".into() }]
    );
}

/// A stop that arrives while a container is being started must wait for it, or it would be left running.
#[test]
fn stop_waits_for_a_start_under_way() {
    let pod = pod("Always", &["a"]);
    let stop = Stop {
        deadline: at(30),
        reason: String::new(),
    };
    let mut mem = memory(&[]);
    mem.busy.insert(Op::Start("a".into()));
    let plan = decide(&pod, Some(&stop), &seen(vec![]), &mem, at(0));
    assert_eq!((plan.actions, plan.finished), (vec![], false));
}

/// After a reboot of the cell: what must run runs again in a new sandbox, what must run once does not.
#[test]
fn lost_sandbox() {
    let mut observed = seen(vec![exited("a", 0, 137, at(0), at(1))]);
    observed.sandboxes.get_mut("s0").expect("s0").ready = false;
    let mut mem = memory(&["a"]);
    mem.stopped_sandboxes.insert("s0".into());
    let plan = now(&pod("Always", &["a"]), &observed, &mem, 2);
    assert_eq!(plan.actions, [Action::RunSandbox { attempt: 1 }]);
    assert!(now(&pod("Never", &["a"]), &observed, &mem, 2).finished);
    let next = Sandbox {
        id: "s1".into(),
        attempt: 1,
        ready: true,
        created_at: at(2),
        ips: vec![],
    };
    observed.sandboxes.insert("s1".into(), next);
    let expected = Action::Start {
        container: "a".into(),
        attempt: 1,
        backoff: Duration::from_secs(10),
        sandbox_id: "s1".into(),
    };
    assert_eq!(
        now(&pod("Always", &["a"]), &observed, &mem, 2).actions,
        [expected]
    );
}

/// A container left half-made by a killed agent is made anew.
#[test]
fn half_made_container_is_removed() {
    let plan = now(
        &pod("Always", &["a"]),
        &seen(vec![run("a", 0, Phase::Created)]),
        &memory(&["a"]),
        0,
    );
    assert_eq!(plan.actions, [Action::RemoveContainer { id: "a-0".into() }]);
}

#[test]
fn condemned_run_is_stopped_with_its_grace() {
    let mut mem = memory(&[]);
    mem.condemned.insert("a-0".into(), Duration::from_secs(7));
    let plan = now(&pod("Always", &["a"]), &seen(vec![running("a", 0)]), &mem, 100);
    assert_eq!(
        plan.actions,
        [Action::Stop {
            id: "a-0".into(),
            deadline: at(107)
        }]
    );
}

/// What may happen to the pod, in the property test's world.
#[derive(Debug, Clone)]
enum Happening {
    /// The n-th piece of work under way ends, well or badly.
    WorkEnds(usize, bool),
    /// The n-th living container ends with this code.
    Exits(usize, i32),
    /// Seconds pass.
    Time(i64),
    /// Termination is asked for.
    Stop,
    /// The cell reboots: all processes end, work under way is lost.
    Reboot,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        10 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(n, well)| Happening::WorkEnds(n, well)),
        4 => (any::<usize>(), prop_oneof![Just(0), Just(1)]).prop_map(|(n, code)| Happening::Exits(n, code)),
        2 => (1_i64..400).prop_map(Happening::Time),
        1 => Just(Happening::Stop),
        1 => Just(Happening::Reboot),
    ]
}

/// A world that does what the actions say.
struct World {
    pod: Pod,
    stop: Option<Stop>,
    seen: Observed,
    mem: Memory,
    work: Vec<Action>,
    second: i64,
}

impl World {
    fn new(pod: Pod) -> Self {
        Self {
            pod,
            stop: None,
            seen: Observed::default(),
            mem: Memory::default(),
            work: Vec::new(),
            second: 0,
        }
    }

    fn turn(&mut self) -> Plan {
        let plan = decide(
            &self.pod,
            self.stop.as_ref(),
            &self.seen,
            &self.mem,
            at(self.second),
        );
        for action in &plan.actions {
            assert!(
                self.mem.busy.insert(action.op()),
                "{action:?} is under way already"
            );
            if let Action::Start {
                container, attempt, ..
            } = action
            {
                assert!(self.stop.is_none(), "a start after the stop");
                let alive = self.seen.of(container).any(Run::is_alive);
                assert!(!alive, "a second {container} beside a living one");
                let newest = self.seen.newest(container).map(|run| run.attempt);
                assert_eq!(
                    *attempt,
                    newest.map_or(0, |newest| newest + 1),
                    "restart counts go up by one"
                );
                self.mem.images.remove(container);
                self.check_order(container);
            }
            self.work.push(action.clone());
        }
        plan
    }

    /// Main containers start after every init container of this sandbox is done.
    fn check_order(&self, name: &str) {
        let Some(sandbox) = self.seen.sandbox() else {
            return;
        };
        let begun = self
            .pod
            .containers
            .iter()
            .any(|c| self.seen.run_in(&sandbox.id, &c.name).is_some());
        if self.pod.containers.iter().any(|c| c.name == name) && !begun {
            for init in self.pod.init_containers.iter().filter(|c| !c.sidecar) {
                let run = self.seen.run_in(&sandbox.id, &init.name).and_then(Run::exit);
                assert_eq!(
                    run.map(|exit| exit.code),
                    Some(0),
                    "{name} before init {}",
                    init.name
                );
            }
        }
    }

    fn end(&mut self, id: &str, code: i32) {
        let finished_at = at(self.second);
        if let Some(run) = self.seen.runs.get_mut(id) {
            let Phase::Running { started_at } = run.phase else {
                return;
            };
            let exit = Exit {
                code,
                reason: "x".into(),
                message: String::new(),
                started_at,
                finished_at,
            };
            run.phase = Phase::Exited(exit);
        }
    }

    fn work_ends(&mut self, index: usize, well: bool) {
        if self.work.is_empty() {
            return;
        }
        let action = self.work.remove(index % self.work.len());
        self.mem.busy.remove(&action.op());
        let failure = || Failure {
            reason: "ErrImagePull".into(),
            message: String::new(),
            at: at(self.second),
            backoff: Duration::from_secs(10),
        };
        match action {
            Action::PrepareVolumes => self.mem.volumes_ready = well,
            Action::RunSandbox { attempt } if well => {
                let id = format!("s{attempt}");
                let sandbox = Sandbox {
                    id: id.clone(),
                    attempt,
                    ready: true,
                    created_at: at(self.second),
                    ips: vec![],
                };
                self.seen.sandboxes.insert(id, sandbox);
            }
            Action::RunSandbox { .. } => self.mem.sandbox_failure = Some(failure()),
            Action::EnsureImage { container } => {
                let state = if well {
                    ready_image()
                } else {
                    ImageState::Failed(failure())
                };
                self.mem.images.insert(container, state);
            }
            Action::Start {
                container,
                attempt,
                backoff,
                sandbox_id,
            } => {
                if well && self.seen.sandboxes.get(&sandbox_id).is_some_and(|s| s.ready) {
                    let mut new = run(
                        &container,
                        attempt,
                        Phase::Running {
                            started_at: at(self.second),
                        },
                    );
                    new.sandbox_id = sandbox_id;
                    new.backoff = backoff;
                    self.mem.started.insert(new.id.clone());
                    self.seen.runs.insert(new.id.clone(), new);
                } else {
                    let failure = failure();
                    self.mem.failures.insert(container, failure);
                }
            }
            Action::Stop { id, .. } => self.end(&id, 137),
            Action::StopSandbox { id } => {
                self.mem.stopped_sandboxes.insert(id.clone());
                if let Some(sandbox) = self.seen.sandboxes.get_mut(&id) {
                    sandbox.ready = false;
                }
            }
            Action::RemoveContainer { id } => drop(self.seen.runs.remove(&id)),
            Action::RemoveSandbox { id } => drop(self.seen.sandboxes.remove(&id)),
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::WorkEnds(index, well) => self.work_ends(*index, *well),
            Happening::Exits(index, code) => {
                let alive: Vec<String> = self
                    .seen
                    .runs
                    .values()
                    .filter(|r| r.is_alive())
                    .map(|r| r.id.clone())
                    .collect();
                if !alive.is_empty() {
                    self.end(&alive[index % alive.len()], *code);
                }
            }
            Happening::Time(seconds) => self.second += seconds,
            Happening::Stop => {
                self.stop.get_or_insert(Stop {
                    deadline: at(self.second),
                    reason: String::new(),
                });
            }
            Happening::Reboot => {
                self.work.clear();
                self.mem = Memory::default();
                let alive: Vec<String> = self.seen.runs.keys().cloned().collect();
                alive.iter().for_each(|id| self.end(id, 255));
                self.seen
                    .sandboxes
                    .values_mut()
                    .for_each(|sandbox| sandbox.ready = false);
            }
        }
    }
}

proptest! {
    /// Whatever happens: one living run a container, restart counts that go up by one, init before main, nothing
    /// started after a stop; once stopped the pod ends; a pod that always restarts never ends by itself.
    #[test]
    fn any_course_keeps_the_promises(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        init in any::<bool>(),
        sidecar in any::<bool>(),
        course in prop::collection::vec(happening(), 0..120),
    ) {
        let mut pod = pod(policy, &["a", "b"]);
        if init {
            pod.init_containers.push(container("i"));
        }
        if sidecar {
            pod.init_containers.push(Container { sidecar: true, ..container("s") });
        }
        let mut world = World::new(pod);
        let mut finished = false;
        for happening in &course {
            let plan = world.turn();
            let again = decide(&world.pod, world.stop.as_ref(), &world.seen, &world.mem, at(world.second));
            prop_assert!(again.actions.is_empty(), "deciding twice starts nothing twice: {:?}", again.actions);
            prop_assert!(!finished || plan.finished, "an ended pod began again");
            finished = plan.finished;
            prop_assert!(!finished || policy != "Always" || world.stop.is_some());
            world.happen(happening);
        }
        world.happen(&Happening::Stop);
        for _ in 0..60 {
            finished = world.turn().finished;
            world.work_ends(0, true);
        }
        prop_assert!(finished, "a stopped pod did not end: {:?} {:?}", world.seen, world.mem.busy);
    }
}
