//! The controllers' transition function: the real machine, with its states kept once each and its steps remembered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kip_core::ErrorKind;
use kip_core::ids::{
    ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use kip_core::machine::{
    Action, Backoff, Event, Failure, Identity, PodState, Release, Stage, StepConfig, Wanted, project,
    recover, step,
};
use kip_core::model::{
    Addresses, Architecture, Bytes, CapacityType, CellPhase, CellRecord, ContainerReport, ContainerState,
    CpuMillis, Instance, InstancePhase, Offering, PodDemand, PodPhase, Price, Replaced, RuntimeReport,
    StoredCell, Termination,
};
use kip_core::plan::{KnownCell, World};
use kip_core::provider::tags;
use kip_core::sizing::Choice;

use crate::normal::{self, HOUR, LATER, LONG_AGO, NOW};
use crate::words::{Agent, Do, Failed, Key, Life, News, RecordId, StateId, View};
use crate::world::{Controller, System};

/// What a step comes to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) state: StateId,
    pub(crate) todo: Vec<Do>,
    /// Whether the machine asked to be woken.
    pub(crate) wakes: bool,
    /// Whether there is a newer report than before.
    pub(crate) has_news: bool,
}

/// What the model looks at in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) attempt: u8,
    pub(crate) is_unpublished: bool,
    pub(crate) is_gone: bool,
    /// What it says of the pod: whether it has started, and whether it has ended.
    pub(crate) started: bool,
    pub(crate) ended: bool,
    pub(crate) instance: Option<Key>,
}

/// Every state and record ever met, and every step ever made.
#[derive(Debug)]
pub(crate) struct Mind {
    cfg: StepConfig,
    restartable: bool,
    states: Vec<(PodState, Facts)>,
    state_ids: HashMap<String, StateId>,
    records: Vec<CellRecord>,
    record_ids: HashMap<String, RecordId>,
    steps: HashMap<(StateId, News), Outcome>,
    older: HashMap<StateId, StateId>,
    tokens: HashMap<LaunchToken, Key>,
}

impl Mind {
    pub(crate) fn new(restartable: bool) -> Self {
        let at_once = Backoff::new(std::time::Duration::ZERO, std::time::Duration::ZERO);
        let mut cfg = StepConfig::new(Identity {
            cluster: ClusterUid::new("cluster"),
            node: NodeName::new("node"),
        });
        for backoff in [
            &mut cfg.launch_retry,
            &mut cfg.observe,
            &mut cfg.deploy_retry,
            &mut cfg.redial,
            &mut cfg.stop_retry,
            &mut cfg.terminate_repeat,
            &mut cfg.retry,
        ] {
            *backoff = at_once;
        }
        for deadline in [
            &mut cfg.consistency,
            &mut cfg.launch_ambiguity,
            &mut cfg.boot_deadline,
            &mut cfg.connect_deadline,
            &mut cfg.deploy_deadline,
            &mut cfg.silent_deadline,
            &mut cfg.stop_grace,
            &mut cfg.publish_patience,
            &mut cfg.release_patience,
            &mut cfg.source_patience,
            &mut cfg.idle_wake,
        ] {
            *deadline = HOUR;
        }
        cfg.stop_margin = std::time::Duration::ZERO;
        cfg.interruption_margin = std::time::Duration::ZERO;
        // The model breaks connections itself.
        cfg.report_timeout = HOUR * 24 * 365;
        cfg.boot_attempts = 3;
        let mut mind = Self {
            cfg,
            restartable,
            states: Vec::new(),
            state_ids: HashMap::new(),
            records: Vec::new(),
            record_ids: HashMap::new(),
            steps: HashMap::new(),
            older: HashMap::new(),
            tokens: HashMap::new(),
        };
        for attempt in 1..64 {
            for offering in 0..2 {
                let key = Key { attempt, offering };
                mind.tokens.insert(mind.token(key), key);
            }
        }
        mind
    }

    pub(crate) fn fresh(&mut self) -> StateId {
        self.keep(PodState::new(pod(), NOW))
    }

    pub(crate) fn state(&self, id: StateId) -> &PodState {
        &self.states[id.0 as usize].0
    }

    pub(crate) fn facts(&self, id: StateId) -> Facts {
        self.states[id.0 as usize].1
    }

    pub(crate) fn record(&self, id: RecordId) -> &CellRecord {
        &self.records[id.0 as usize]
    }

    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.states.len(), self.records.len(), self.steps.len())
    }

    /// Steps the real machine.
    pub(crate) fn step(&mut self, state: StateId, news: News) -> Outcome {
        if let Some(known) = self.steps.get(&(state, news)) {
            return known.clone();
        }
        let before = self.state(state).clone();
        let event = self.event(&before, news);
        let revision = before.pod.revision;
        let stepped = step(&self.cfg, before, event, NOW);
        let has_news = stepped.next.pod.revision > revision;
        let outcome = Outcome {
            wakes: stepped.wake_at.is_some(),
            todo: stepped
                .actions
                .iter()
                .filter_map(|action| self.word(action))
                .collect(),
            state: self.keep(stepped.next),
            has_news,
        };
        self.steps.insert((state, news), outcome.clone());
        outcome
    }

    /// The real recovery from a record, and from the instance that the cloud lists for it.
    pub(crate) fn recover(&mut self, record: RecordId, found: Option<View>) -> StateId {
        let found = found.map(|view| self.instance(view));
        let state = recover(&self.cfg, self.record(record).clone(), found.as_ref(), NOW);
        self.keep(state)
    }

    /// What the driver makes of a record that it goes on from in the middle of things: `follow.rs`, `begin_again`.
    pub(crate) fn follow(&mut self, state: StateId, record: RecordId) -> StateId {
        let slot = self.state(state).clone();
        let mut state = recover(&self.cfg, self.record(record).clone(), None, NOW);
        let (ours, pod) = (&slot.pod, &mut state.pod);
        pod.wanted = ours.wanted.clone();
        pod.revision = ours.revision;
        pod.published = ours.published;
        // Asked for by a step whose actions were not done: to be asked again.
        pod.release = match ours.release {
            Release::Asked => Release::No,
            other => other,
        };
        pod.final_since = ours.final_since;
        pod.failures = ours.failures;
        pod.failed_boots = ours.failed_boots;
        if slot
            .record()
            .is_some_and(|ours| ours.token == self.record(record).token)
        {
            pod.report.clone_from(&ours.report);
            pod.boot_id.clone_from(&ours.boot_id);
            pod.verdict = pod.verdict.take().or_else(|| ours.verdict.clone());
        }
        self.keep(state)
    }

    /// The record that a pod's instances without one must have had, oldest attempt first: `recovery.rs`, `record_of`.
    pub(crate) fn record_of(&mut self, mut of_pod: Vec<View>) -> Option<RecordId> {
        let newest = of_pod.pop()?;
        let instance = self.instance(newest);
        let identity = &self.cfg.identity;
        let mut record = CellRecord::intent(
            pod(),
            identity.node.clone(),
            identity.cluster.clone(),
            u32::from(newest.key.attempt),
            self.token(newest.key),
            instance.offering,
            Price(0),
            instance.launched_at,
        );
        record.replaces = of_pod.pop().map(|older| {
            let instance = self.instance(older);
            Replaced {
                attempt: u32::from(older.key.attempt),
                token: self.token(older.key),
                instance: instance.id,
                address: instance.addresses.management,
            }
        });
        record.phase = match record.replaces {
            None => CellPhase::Running,
            Some(_) => CellPhase::Booting,
        };
        record.instance = Some(instance.id);
        record.addresses = instance.addresses;
        record.marks.launched_at = Some(instance.launched_at);
        Some(self.keep_record(&record))
    }

    /// Whether two records say the same, as the driver sees it.
    pub(crate) fn is_same(&self, one: RecordId, other: RecordId) -> bool {
        let (one, other) = (self.record(one), self.record(other));
        one.token == other.token && one.issued_at == other.issued_at && one.seal() == other.seal()
    }

    /// The same state an hour later.
    pub(crate) fn older(&mut self, id: StateId) -> StateId {
        if let Some(known) = self.older.get(&id) {
            return *known;
        }
        let mut state = self.state(id).clone();
        normal::state(&mut state, &normal::aged);
        let older = self.keep(state);
        self.older.insert(id, older);
        older
    }

    /// The same record an hour later.
    pub(crate) fn older_record(&mut self, id: RecordId) -> RecordId {
        let mut record = self.record(id).clone();
        normal::record(&mut record, &normal::aged);
        self.keep_record(&record)
    }

    pub(crate) fn key_of(&self, record: &CellRecord) -> Key {
        self.tokens[&record.token]
    }

    /// Whether nothing waits for what is published: then it changes nothing but the number of the newest report that was taken.
    pub(crate) fn is_ordinary(&self, state: StateId) -> bool {
        let state = self.state(state);
        !state.pod.must_end() && !matches!(state.stage, Stage::Terminating(_) | Stage::Finished(_))
    }

    /// Whether there is somebody to publish to.
    pub(crate) fn is_told(&self, state: StateId) -> bool {
        !matches!(self.state(state).pod.wanted, Wanted::Unknown | Wanted::Gone)
    }

    /// The same with its newest report taken.
    pub(crate) fn noted(&mut self, state: StateId) -> StateId {
        let mut state = self.state(state).clone();
        state.pod.published = state.pod.revision;
        self.keep(state)
    }

    /// The same with a newer report to take.
    pub(crate) fn unpublished(&mut self, state: StateId) -> StateId {
        let mut state = self.state(state).clone();
        state.pod.revision += 1;
        self.keep(state)
    }

    /// What a sweep of a controller is shown.
    pub(crate) fn world(&self, system: &System, controller: &Controller) -> World {
        const NEWEST: &str = "2";
        let identity = &self.cfg.identity;
        let mut world = World::new(identity.cluster.clone(), identity.node.clone());
        world.synced = true;
        let listed = system
            .cloud
            .iter()
            .filter(|instance| instance.is_alive() && !instance.is_hidden);
        let instances = listed.map(|listed| {
            let mut instance = self.instance(listed.view());
            instance.launched_at = if listed.is_young { NOW } else { LONG_AGO };
            instance
        });
        world.instances = Some(instances.collect());
        let stored = system.record.map(|record| {
            let mut record = self.record(record).clone();
            record.version = NEWEST.into();
            record
        });
        world.stored = Some(stored.into_iter().map(StoredCell::judge).collect());
        let state = controller.state.map(|state| self.state(state));
        world.known.extend(state.map(|state| KnownCell {
            pod: pod().uid,
            record: state.record().cloned(),
            version: match (controller.stored, controller.is_current) {
                (None, _) => String::new(),
                (Some(_), true) => NEWEST.into(),
                (Some(_), false) => "1".into(),
            },
        }));
        let is_wanted = |state: &&PodState| !matches!(state.pod.wanted, Wanted::Unknown | Wanted::Gone);
        world.pods = Some(state.filter(is_wanted).map(|_| pod().uid).into_iter().collect());
        world
    }

    fn keep(&mut self, mut state: PodState) -> StateId {
        normal::state(&mut state, &|time| time);
        let text = format!("{state:?}");
        if let Some(known) = self.state_ids.get(&text) {
            return *known;
        }
        let id = StateId(u32::try_from(self.states.len()).expect("few states"));
        let report = project(&state);
        let facts = Facts {
            attempt: u8::try_from(state.pod.attempt).expect("few attempts"),
            is_unpublished: state.pod.published < state.pod.revision,
            is_gone: matches!(state.pod.wanted, Wanted::Gone),
            started: report.phase == PodPhase::Running,
            ended: matches!(report.phase, PodPhase::Succeeded | PodPhase::Failed),
            instance: state.instance().map(key_of_id),
        };
        self.states.push((state, facts));
        self.state_ids.insert(text, id);
        id
    }

    fn keep_record(&mut self, record: &CellRecord) -> RecordId {
        let mut record = record.clone();
        normal::record(&mut record, &|time| time);
        let text = format!("{record:?}");
        if let Some(known) = self.record_ids.get(&text) {
            return *known;
        }
        assert_eq!(
            record.problem(),
            None,
            "the machine wrote a record that no controller would believe"
        );
        let id = RecordId(u32::try_from(self.records.len()).expect("few records"));
        self.records.push(record);
        self.record_ids.insert(text, id);
        id
    }

    fn word(&mut self, action: &Action) -> Option<Do> {
        Some(match action {
            Action::Save(record) => Do::Save(self.keep_record(record)),
            Action::Remove { .. } => Do::Remove,
            Action::Place => Do::Place,
            Action::Launch(record) => Do::Launch(self.key_of(record)),
            Action::Find { token, .. } => Do::Find(self.tokens[token]),
            Action::Observe { instance, .. } => Do::Observe(key_of_id(instance)),
            Action::Terminate { instance, .. } => Do::Terminate(key_of_id(instance)),
            Action::Connect { endpoint, .. } => Do::Connect(key_of_address(endpoint.address)),
            Action::Disconnect { attempt } => Do::Disconnect(u8::try_from(*attempt).expect("few attempts")),
            Action::Deploy { endpoint, .. } => Do::Deploy(key_of_address(endpoint.address)),
            Action::Stop { endpoint, .. } => Do::Stop(key_of_address(endpoint.address)),
            Action::Publish => Do::Publish,
            Action::Release => Do::Release,
            Action::Forget => Do::Forget,
            Action::Notify(_) | Action::Ignored(_) => return None,
            other => panic!("the model does not know the action {other:?}"),
        })
    }

    fn event(&self, state: &PodState, news: News) -> Event {
        let attempt = |key: Key| u32::from(key.attempt);
        let wanted = |wanted, started_before| Event::Wanted {
            wanted,
            refresh: false,
            started_before,
        };
        match news {
            News::Woke => Event::Woke,
            News::Run { started_before } => {
                let run = Wanted::Run {
                    demand: Arc::new(PodDemand::new(pod(), CpuMillis(100), Bytes(1 << 20))),
                    active_deadline: None,
                    restartable: self.restartable,
                };
                wanted(run, started_before)
            }
            News::Deleted => wanted(Wanted::Deleted { deadline: LATER }, false),
            News::Gone => wanted(Wanted::Gone, false),
            News::Placed(index) => Event::Placed(Choice::new(Offering::new(
                offering(index),
                Architecture::Amd64,
                CpuMillis(1000),
                Bytes(1 << 30),
                Price(1),
            ))),
            News::Launched(key, result) => Event::Launched {
                attempt: attempt(key),
                result: result.map(|view| self.instance(view)).map_err(failure),
            },
            News::Found(key, found) => Event::Found {
                attempt: attempt(key),
                result: Ok(found.map(|view| self.instance(view))),
            },
            News::Observed(key, result) => Event::Observed {
                attempt: attempt(key),
                result: result.map(|view| self.instance(view)).map_err(failure),
            },
            News::Terminated(key, result) => Event::Terminated {
                attempt: attempt(key),
                result: result.map_err(failure),
            },
            News::Reported(key, agent) => Event::Reported {
                attempt: attempt(key),
                report: Arc::new(report(agent)),
            },
            News::Disconnected(key) => Event::Disconnected {
                attempt: attempt(key),
                failure: Failure::new(ErrorKind::Unavailable, ""),
            },
            News::Deployed(key, result) => Event::Deployed {
                attempt: attempt(key),
                result: result.map_err(failure),
            },
            News::Stopped(key, result) => Event::Stopped {
                attempt: attempt(key),
                result: result.map_err(failure),
            },
            News::Interrupted(key) => Event::Interrupted {
                instance: id_of(key),
                deadline: LATER,
                reason: String::new(),
            },
            News::Published { is_newest } => Event::Published {
                revision: if is_newest { state.pod.revision } else { 0 },
            },
            News::Released => Event::Released,
        }
    }

    fn token(&self, key: Key) -> LaunchToken {
        let identity = &self.cfg.identity;
        LaunchToken::derive(
            &identity.cluster,
            &identity.node,
            &pod().uid,
            u32::from(key.attempt),
            &offering(key.offering),
        )
    }

    pub(crate) fn instance(&self, view: View) -> Instance {
        let key = view.key;
        let mut instance = Instance::new(id_of(key), "", offering(key.offering), LONG_AGO);
        instance.phase = match view.life {
            Life::Boots => InstancePhase::Pending,
            Life::Up => InstancePhase::Running,
            Life::Dying => InstancePhase::Terminating,
            Life::Gone => InstancePhase::Terminated,
        };
        if view.life == Life::Up {
            instance.addresses = Addresses {
                management: Some(IpAddr::V4(Ipv4Addr::new(10, 0, key.offering, key.attempt))),
                pod: None,
            };
        }
        instance.token = Some(self.token(key));
        let identity = &self.cfg.identity;
        instance
            .tags
            .insert(tags::CLUSTER.into(), identity.cluster.to_string());
        instance.tags.insert(tags::NODE.into(), identity.node.to_string());
        instance.tags.insert(tags::POD_UID.into(), pod().uid.to_string());
        instance
            .tags
            .insert(tags::ATTEMPT.into(), key.attempt.to_string());
        instance
            .tags
            .insert(tags::TOKEN.into(), self.token(key).to_string());
        instance
    }
}

fn pod() -> PodRef {
    PodRef {
        uid: PodUid::new("uid"),
        namespace: "ns".into(),
        name: "pod".into(),
    }
}

fn offering(index: u8) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(["small", "large"][usize::from(index)]),
        zone: Zone::new("z"),
        capacity_type: CapacityType::Spot,
    }
}

fn id_of(key: Key) -> InstanceId {
    InstanceId::new(format!("i-{}-{}", key.attempt, key.offering))
}

pub(crate) fn key_of_id(id: &InstanceId) -> Key {
    let mut parts = id
        .as_str()
        .split('-')
        .skip(1)
        .filter_map(|part| part.parse().ok());
    match (parts.next(), parts.next()) {
        (Some(attempt), Some(offering)) => Key { attempt, offering },
        _ => panic!("not an instance of this model: {id}"),
    }
}

fn key_of_address(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(address) => Key {
            attempt: address.octets()[3],
            offering: address.octets()[2],
        },
        IpAddr::V6(_) => panic!("not an address of this model: {address}"),
    }
}

fn failure(failed: Failed) -> Failure {
    let kind = match failed {
        Failed::NotFound => ErrorKind::NotFound,
        Failed::Timeout => ErrorKind::Timeout,
        Failed::NoCapacity => ErrorKind::InsufficientCapacity,
        Failed::Refused => ErrorKind::Conflict,
    };
    Failure::new(kind, "")
}

fn report(agent: Agent) -> RuntimeReport {
    let mut report = RuntimeReport {
        boot_id: "boot".into(),
        ..RuntimeReport::default()
    };
    let state = match agent {
        Agent::Idle | Agent::Refuses => return report,
        Agent::Runs | Agent::Stopping => ContainerState::Running { started_at: LONG_AGO },
        Agent::Ended { stopped } => ContainerState::Terminated(Termination {
            exit_code: if stopped { 137 } else { 0 },
            signal: 0,
            reason: String::new(),
            message: String::new(),
            started_at: None,
            finished_at: None,
            container_id: String::new(),
        }),
    };
    report.pod_uid = pod().uid.to_string();
    report.sandbox_ready = true;
    report.stopping = matches!(agent, Agent::Stopping | Agent::Ended { stopped: true });
    report.finished = matches!(agent, Agent::Ended { .. });
    report.marks.running_at = Some(LONG_AGO);
    report.containers = vec![ContainerReport {
        name: "c".into(),
        image: String::new(),
        image_id: String::new(),
        container_id: String::new(),
        restart_count: 0,
        state,
        last_state: None,
        ready: true,
        started: true,
    }];
    report
}
