//! What a fake cloud has: instances, capacity, offerings. Plain data; time is an argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ids::{InstanceId, LaunchToken, OfferingId};
use kip_core::model::{Addresses, Instance, InstancePhase, Offering};
use kip_core::provider::{LaunchRequest, ListOptions};
use kip_core::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Machine {
    instance: Instance,
    request: Option<LaunchRequest>,
    address: IpAddr,
    runs_at: Timestamp,
    gone_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) instances: BTreeMap<InstanceId, Machine>,
    pub(super) offerings: Vec<Offering>,
    pub(super) boot_delay: Duration,
    pub(super) terminate_delay: Duration,
    pub(super) made: u64,
    capacity: BTreeMap<OfferingId, u32>,
    lag: Duration,
}

impl Inventory {
    pub(super) fn new(offerings: Vec<Offering>, lag: Duration) -> Self {
        Self {
            instances: BTreeMap::new(),
            offerings,
            boot_delay: Duration::ZERO,
            terminate_delay: Duration::ZERO,
            made: 0,
            capacity: BTreeMap::new(),
            lag,
        }
    }

    pub(super) fn set_capacity(&mut self, offering: &OfferingId, capacity: Option<u32>) {
        match capacity {
            Some(capacity) => {
                self.capacity.insert(offering.clone(), capacity);
            }
            None => {
                self.capacity.remove(offering);
            }
        }
    }

    fn reap(&mut self, now: Timestamp) {
        self.instances
            .retain(|_, machine| machine.gone_at.is_none_or(|gone_at| now < gone_at));
    }

    pub(super) fn launch(&mut self, request: LaunchRequest, now: Timestamp) -> Result<Instance> {
        self.reap(now);
        let error = |kind, message: &str| {
            Err(Error::new(kind, "launch", message).with_context("offering", &request.offering))
        };
        let known = self
            .instances
            .values()
            .find(|machine| machine.instance.token.as_ref() == Some(&request.token));
        if let Some(machine) = known {
            return match &machine.request {
                Some(before) if *before == request => Ok(machine.view(now)),
                Some(_) | None => error(
                    ErrorKind::AlreadyExists,
                    "the token was used with other parameters",
                ),
            };
        }
        if !self
            .offerings
            .iter()
            .any(|offering| offering.id == request.offering)
        {
            return error(ErrorKind::InvalidRequest, "there is no such offering");
        }
        match self.capacity.get_mut(&request.offering) {
            Some(0) => {
                return error(
                    ErrorKind::InsufficientCapacity,
                    "there is none left of this offering",
                );
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.made += 1;
        let id = InstanceId::new(format!("i-{:06}", self.made));
        let mut instance = Instance::new(
            id.clone(),
            format!("fake:///z1/{id}"),
            request.offering.clone(),
            now,
        );
        instance.token = Some(request.token.clone());
        instance.tags.clone_from(&request.tags);
        let machine = Machine {
            instance,
            address: self.next_address(),
            runs_at: now.checked_add(self.boot_delay).unwrap_or(Timestamp::MAX),
            gone_at: None,
            request: Some(request),
        };
        let view = machine.view(now);
        self.instances.insert(id, machine);
        Ok(view)
    }

    fn next_address(&self) -> IpAddr {
        let [_, b, c, d] = u32::try_from(self.made).unwrap_or(0).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, b, c, d))
    }

    pub(super) fn plant(&mut self, mut instance: Instance, now: Timestamp) {
        self.made += 1;
        let address = self.next_address();
        instance.token = instance.token.or_else(|| {
            instance
                .tags
                .get(kip_core::provider::tags::TOKEN)
                .map(LaunchToken::from_stored)
        });
        self.instances.insert(
            instance.id.clone(),
            Machine {
                instance,
                request: None,
                address,
                runs_at: now,
                gone_at: None,
            },
        );
    }

    fn is_shown(&self, machine: &Machine, now: Timestamp) -> bool {
        let shown_at = machine
            .instance
            .launched_at
            .checked_add(self.lag)
            .unwrap_or(Timestamp::MAX);
        now >= shown_at
    }

    pub(super) fn get(&mut self, id: &InstanceId, now: Timestamp) -> Result<Instance> {
        self.reap(now);
        match self.instances.get(id) {
            Some(machine) if self.is_shown(machine, now) => Ok(machine.view(now)),
            Some(_) | None => Err(not_found("get", id)),
        }
    }

    pub(super) fn terminate(&mut self, id: &InstanceId, now: Timestamp) -> Result<()> {
        self.reap(now);
        let gone_at = now.checked_add(self.terminate_delay).unwrap_or(Timestamp::MAX);
        let Some(machine) = self.instances.get_mut(id) else {
            return Err(not_found("terminate", id));
        };
        machine.gone_at.get_or_insert(gone_at);
        Ok(())
    }

    pub(super) fn list(&mut self, options: &ListOptions, now: Timestamp) -> Vec<Instance> {
        self.reap(now);
        self.instances
            .values()
            .filter(|machine| self.is_shown(machine, now))
            .filter(|machine| {
                let tags = &machine.instance.tags;
                options
                    .tags
                    .iter()
                    .all(|(key, value)| tags.get(key) == Some(value))
            })
            .map(|machine| machine.view(now))
            .collect()
    }

    pub(super) fn all(&mut self, now: Timestamp) -> Vec<Instance> {
        self.reap(now);
        self.instances.values().map(|machine| machine.view(now)).collect()
    }
}

impl Machine {
    fn view(&self, now: Timestamp) -> Instance {
        let mut instance = self.instance.clone();
        if now >= self.runs_at {
            instance.phase = InstancePhase::Running;
            instance.addresses = Addresses {
                management: Some(self.address),
                pod: None,
            };
        }
        if self.gone_at.is_some() {
            instance.phase = InstancePhase::Terminating;
        }
        instance
    }
}

fn not_found(operation: &'static str, id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such instance").with_context("instance", id)
}
