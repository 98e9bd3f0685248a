//! The simulated cloud: instances, capacity, throttling, lag, and what happens to instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ids::{InstanceId, InstanceType, LaunchToken, OfferingId, Zone};
use kip_core::model::{
    Addresses, Architecture, Bytes, CapacityType, CpuMillis, Instance, InstancePhase, Offering, Price,
};
use kip_core::provider::{LaunchRequest, ListOptions, tags};
use kip_core::{Error, ErrorKind, Result, Retry};

use super::host::Host;
use super::rng::mix;
use super::scenario::{Fault, Foreign, Harm, Params, Scenario};
use super::world::{At, State};

/// What the cloud has.
#[derive(Debug, Default)]
pub(super) struct Cloud {
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    /// Instances that are gone, and since when: a stale list still shows them.
    ghosts: Vec<(Instance, u64)>,
    pub(super) made: u32,
    /// Launch calls that reached the cloud, and those answered that there is no capacity.
    pub(super) launches: u64,
    pub(super) wasted: u64,
    bucket: Option<(u32, u64)>,
}

/// One instance.
#[derive(Debug)]
pub(super) struct Machine {
    instance: Instance,
    request: Option<LaunchRequest>,
    address: IpAddr,
    runs_at: u64,
    shown_at: u64,
    pub(super) gone_at: Option<u64>,
    /// It died; still shown as terminated until then.
    dead_until: Option<u64>,
    pub(super) foreign: Option<Foreign>,
    /// Something happened to it that was not its controller's doing.
    pub(super) is_harmed: bool,
    pub(super) host: Host,
}

impl Machine {
    /// Whether it exists and may run something.
    pub(super) fn is_alive(&self, ms: u64) -> bool {
        self.dead_until.is_none() && self.gone_at.is_none_or(|gone_at| ms < gone_at)
    }

    /// Whether its terminate was accepted.
    pub(super) fn is_leaving(&self) -> bool {
        self.gone_at.is_some() || self.dead_until.is_some()
    }

    pub(super) fn is_up(&self, ms: u64) -> bool {
        self.is_alive(ms) && ms >= self.runs_at
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) fn runs_at(&self) -> u64 {
        self.runs_at
    }

    pub(super) fn tag(&self, key: &str) -> Option<&str> {
        self.instance.tags.get(key).map(String::as_str)
    }

    pub(super) fn token(&self) -> Option<&LaunchToken> {
        self.instance.token.as_ref()
    }

    fn view(&self, ms: u64) -> Instance {
        let mut instance = self.instance.clone();
        if ms >= self.runs_at {
            instance.phase = InstancePhase::Running;
            instance.addresses = Addresses {
                management: Some(self.address),
                pod: None,
            };
        }
        if self.gone_at.is_some() {
            instance.phase = InstancePhase::Terminating;
        }
        if self.dead_until.is_some() {
            instance.phase = InstancePhase::Terminated;
            instance.reason = Some("the host failed".into());
        }
        instance
    }
}

/// What this world sells.
pub(super) fn offerings(params: &Params) -> Vec<Offering> {
    params
        .offerings
        .iter()
        .map(|plan| {
            Offering::new(
                OfferingId {
                    instance_type: InstanceType::new(&plan.instance_type),
                    zone: Zone::new(&plan.zone),
                    capacity_type: if plan.spot {
                        CapacityType::Spot
                    } else {
                        CapacityType::OnDemand
                    },
                },
                Architecture::Amd64,
                CpuMillis(u64::from(plan.cpu) * 1000),
                Bytes::gib(plan.memory_gib),
                Price(plan.price),
            )
        })
        .collect()
}

impl Cloud {
    /// Forgets what is gone.
    pub(super) fn reap(&mut self, ms: u64) {
        let gone: Vec<InstanceId> = self
            .machines
            .iter()
            .filter(|(_, machine)| {
                machine.gone_at.is_some_and(|at| ms >= at) || machine.dead_until.is_some_and(|at| ms >= at)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(machine) = self.machines.remove(&id) {
                let at = machine.gone_at.or(machine.dead_until).unwrap_or(ms);
                self.ghosts.push((machine.instance, at));
            }
        }
    }

    fn throttle(&mut self, params: &Params, ms: u64, operation: &'static str) -> Result<()> {
        let Some(throttle) = params.throttle else {
            return Ok(());
        };
        let (mut left, mut since) = self.bucket.unwrap_or((throttle.burst, ms));
        let more = (ms - since) / throttle.every_ms.max(1);
        left = left
            .saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
            .min(throttle.burst);
        since += more * throttle.every_ms.max(1);
        if left == 0 {
            self.bucket = Some((left, since));
            let wait = Duration::from_millis(throttle.every_ms);
            return Err(Error::new(ErrorKind::RateLimited, operation, "too many requests")
                .with_retry(Retry::After(Some(wait))));
        }
        self.bucket = Some((left - 1, since));
        Ok(())
    }
}

impl State {
    pub(super) fn throttled(&mut self, scenario: &Scenario, at: At, operation: &'static str) -> Result<()> {
        let result = self.cloud.throttle(&scenario.world, at.ms, operation);
        if result.is_err() {
            self.inject("throttled call");
        }
        result
    }

    /// Launches, or answers with what this token launched before.
    pub(super) fn launch(&mut self, scenario: &Scenario, request: LaunchRequest, at: At) -> Result<Instance> {
        self.throttled(scenario, at, "launch")?;
        self.cloud.reap(at.ms);
        self.cloud.launches += 1;
        self.judge_launch_call(&request, at);
        let failed = |kind, message: &str| Err(Error::new(kind, "launch", message));
        let known = self
            .cloud
            .machines
            .values()
            .find(|machine| machine.instance.token.as_ref() == Some(&request.token));
        if let Some(machine) = known {
            return if machine.request.as_ref() == Some(&request) {
                Ok(machine.view(at.ms))
            } else {
                failed(
                    ErrorKind::AlreadyExists,
                    "the token was used with other parameters",
                )
            };
        }
        let position = offerings(&scenario.world)
            .iter()
            .position(|offering| offering.id == request.offering);
        let Some(position) = position else {
            return failed(ErrorKind::InvalidRequest, "there is no such offering");
        };
        if !self.has_capacity(scenario, position, &request.offering, at.ms) {
            self.cloud.wasted += 1;
            self.inject("no capacity");
            return failed(
                ErrorKind::InsufficientCapacity,
                "there is none left of this offering",
            );
        }
        self.judge_new_instance(&request, at);
        self.cloud.made += 1;
        let nth = self.cloud.made;
        let id = InstanceId::new(format!("i-{nth:04}"));
        let mut instance = Instance::new(
            id.clone(),
            format!("sim:///z/{id}"),
            request.offering.clone(),
            at.now,
        );
        instance.token = Some(request.token.clone());
        instance.tags.clone_from(&request.tags);
        let lag = scenario.world.list_lag_ms;
        let mut machine = Machine {
            instance,
            request: Some(request),
            address: address_of(nth),
            runs_at: at.ms + scenario.world.boot_ms,
            shown_at: at.ms + mix(scenario.seed ^ u64::from(nth)) % (lag + 1),
            gone_at: None,
            dead_until: None,
            foreign: None,
            is_harmed: false,
            host: Host::default(),
        };
        for fault in &scenario.faults {
            match fault {
                Fault::Instance { nth: of, harm, .. } if *of == nth && !self.is_calm => match harm {
                    Harm::StuckPending => machine.runs_at = u64::MAX,
                    Harm::SlowBoot { ms } => machine.runs_at = machine.runs_at.saturating_add(*ms),
                    Harm::Die { .. } | Harm::Interrupt { .. } | Harm::Silent { .. } | Harm::LosePod => {}
                },
                _ => {}
            }
        }
        if machine.runs_at != at.ms + scenario.world.boot_ms {
            machine.is_harmed = true;
            self.inject("slow or stuck boot");
        }
        let view = machine.view(at.ms);
        self.cloud.machines.insert(id, machine);
        Ok(view)
    }

    fn has_capacity(&self, scenario: &Scenario, position: usize, offering: &OfferingId, ms: u64) -> bool {
        if self.is_calm {
            return true;
        }
        let is_dry = scenario.faults.iter().any(|fault| match fault {
            Fault::Dry {
                offering,
                at_ms,
                for_ms,
            } => *offering == position && (*at_ms..at_ms + for_ms).contains(&ms),
            _ => false,
        });
        let taken = self
            .cloud
            .machines
            .values()
            .filter(|machine| machine.instance.offering == *offering && machine.is_alive(ms))
            .count();
        let limit = scenario.world.offerings[position].capacity;
        !is_dry && limit.is_none_or(|limit| taken < usize::try_from(limit).unwrap_or(usize::MAX))
    }

    pub(super) fn terminate(&mut self, scenario: &Scenario, id: &InstanceId, at: At) -> Result<()> {
        self.throttled(scenario, at, "terminate")?;
        self.cloud.reap(at.ms);
        self.judge_terminate(id, at);
        // As where ids are known everywhere only after a while.
        let machine = self
            .cloud
            .machines
            .get_mut(id)
            .filter(|machine| at.ms >= machine.shown_at);
        let Some(machine) = machine else {
            return Err(not_found("terminate", id));
        };
        if machine.dead_until.is_none() {
            machine.gone_at.get_or_insert(at.ms + scenario.world.terminate_ms);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, scenario: &Scenario, id: &InstanceId, at: At) -> Result<Instance> {
        self.throttled(scenario, at, "get")?;
        self.cloud.reap(at.ms);
        match self.cloud.machines.get(id) {
            Some(machine) if at.is_stale && is_young(machine, scenario, at.now) => Err(not_found("get", id)),
            Some(machine) if at.ms >= machine.shown_at => Ok(machine.view(at.ms)),
            Some(_) | None => Err(not_found("get", id)),
        }
    }

    pub(super) fn list(
        &mut self,
        scenario: &Scenario,
        options: &ListOptions,
        at: At,
    ) -> Result<Vec<Instance>> {
        self.throttled(scenario, at, "list")?;
        self.cloud.reap(at.ms);
        let has_tags = |instance: &Instance| {
            options
                .tags
                .iter()
                .all(|(key, value)| instance.tags.get(key) == Some(value))
        };
        let shown = self.cloud.machines.values().filter(|machine| {
            at.ms >= machine.shown_at
                && machine.dead_until.is_none()
                && !(at.is_stale && is_young(machine, scenario, at.now))
        });
        let mut list: Vec<Instance> = shown.map(|machine| machine.view(at.ms)).collect();
        if at.is_stale {
            let recent = self
                .cloud
                .ghosts
                .iter()
                .filter(|(_, gone)| gone + scenario.world.list_lag_ms > at.ms);
            list.extend(recent.map(|(instance, _)| instance.clone()));
        }
        list.retain(has_tags);
        Ok(list)
    }

    /// An instance that nobody here launched.
    pub(super) fn plant(&mut self, kind: Foreign, at: At) {
        self.cloud.made += 1;
        let nth = self.cloud.made;
        let id = InstanceId::new(format!("i-{nth:04}-foreign"));
        let offering = OfferingId {
            instance_type: InstanceType::new("small"),
            zone: Zone::new("z1"),
            capacity_type: CapacityType::OnDemand,
        };
        let mut instance = Instance::new(id.clone(), format!("sim:///z/{id}"), offering, at.now);
        let (cluster, node) = (crate::samples::cluster(), crate::samples::node());
        let owner = match kind {
            Foreign::Untagged => None,
            Foreign::OtherNode => Some((cluster.as_str(), "another-node")),
            Foreign::OtherCluster => Some(("another-cluster", node.as_str())),
            Foreign::Forged => Some((cluster.as_str(), node.as_str())),
        };
        if let Some((cluster, node)) = owner {
            let token = LaunchToken::from_stored("0123456789012345678901234567890123456789");
            for (key, value) in [
                (tags::CLUSTER, cluster),
                (tags::NODE, node),
                (tags::POD_UID, "uid-of-somebody"),
                (tags::POD, "default/somebody"),
                (tags::CELL, "cell-of-somebody"),
                (tags::TOKEN, token.as_str()),
            ] {
                instance.tags.insert(key.into(), value.into());
            }
            instance.token = Some(token);
        }
        let machine = Machine {
            instance,
            request: None,
            address: address_of(nth),
            runs_at: at.ms,
            shown_at: at.ms,
            gone_at: None,
            dead_until: None,
            foreign: Some(kind),
            is_harmed: true,
            host: Host::default(),
        };
        self.cloud.machines.insert(id, machine);
        self.inject("foreign instance");
    }

    /// It dies at once, and is shown for a while.
    pub(super) fn kill(&mut self, id: &InstanceId, shown_ms: u64, ms: u64) {
        if let Some(machine) = self.cloud.machines.get_mut(id) {
            machine.is_harmed = true;
            machine.dead_until.get_or_insert(ms + shown_ms);
        }
        self.cloud.reap(ms);
    }

    /// Living instances that we launched.
    pub(super) fn living(&mut self, ms: u64) -> Vec<InstanceId> {
        self.cloud.reap(ms);
        let ours = self
            .cloud
            .machines
            .iter()
            .filter(|(_, machine)| machine.foreign.is_none());
        ours.filter(|(_, machine)| machine.dead_until.is_none())
            .map(|(id, _)| id.clone())
            .collect()
    }
}

fn is_young(machine: &Machine, scenario: &Scenario, now: Timestamp) -> bool {
    let lag = Duration::from_millis(scenario.world.list_lag_ms);
    let shown = machine
        .instance
        .launched_at
        .checked_add(lag)
        .unwrap_or(Timestamp::MAX);
    now < shown
}

fn address_of(nth: u32) -> IpAddr {
    let [_, b, c, d] = nth.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, b, c, d))
}

fn not_found(operation: &'static str, id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such instance").with_context("instance", id)
}
