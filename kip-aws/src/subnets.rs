//! The subnets instances are put into: of those in a zone, the one with the most free addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::types::Filter;
use kip_core::error::{Error, ErrorKind, Result, Retry};
use kip_core::ids::Zone;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::api::{self, Api};
use crate::builder::START;
use crate::config::AwsConfig;

/// How old the counts of free addresses may be. In between, what is launched here is counted down.
const FRESH: Duration = Duration::from_secs(60);
/// How old they may be when a zone seems full.
const FRESH_WHEN_FULL: Duration = Duration::from_secs(5);

/// The subnets, with how many addresses each has left.
#[derive(Debug)]
pub(crate) struct Subnets {
    api: Api,
    ids: Vec<String>,
    filters: Vec<Filter>,
    /// Addresses an instance takes.
    need: i32,
    known: Mutex<Known>,
    /// Held by whoever asks EC2.
    asking: AsyncMutex<()>,
}

#[derive(Debug)]
struct Known {
    list: Vec<Subnet>,
    at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Subnet {
    id: String,
    zone: Zone,
    free: i32,
}

impl Subnets {
    /// Finds the subnets the configuration means.
    ///
    /// # Errors
    /// `ConfigInvalid` when there are none; what the call answers.
    pub(crate) async fn find(api: Api, config: &AwsConfig) -> Result<Self> {
        let filters = match (&config.vpc_id, config.subnet_ids.is_empty()) {
            (Some(vpc), _) => vec![api::exactly("vpc-id", vpc)],
            (None, true) => vec![api::exactly("default-for-az", "true")],
            (None, false) => Vec::new(),
        };
        let subnets = Self {
            api,
            ids: config.subnet_ids.clone(),
            filters,
            need: if config.secondary_address { 2 } else { 1 },
            known: Mutex::new(Known {
                list: Vec::new(),
                at: Instant::now(),
            }),
            asking: AsyncMutex::default(),
        };
        let list = subnets.ask(START).await?;
        if list.is_empty() {
            let message = match (&config.vpc_id, config.subnet_ids.is_empty()) {
                (Some(vpc), true) => format!("the VPC {vpc} has no subnet: create one, or check the region"),
                (Some(vpc), false) => format!("none of the subnets is in the VPC {vpc}"),
                (None, _) => "the region has no default VPC with subnets: name a VPC or subnets".to_owned(),
            };
            return Err(Error::new(ErrorKind::ConfigInvalid, START, message));
        }
        subnets.locked().list = list;
        Ok(subnets)
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, operation: &'static str) -> Result<Vec<Subnet>> {
        let found = self
            .api
            .describe_subnets(operation, &self.ids, self.filters.clone())
            .await?;
        Ok(found
            .into_iter()
            .filter_map(|subnet| {
                Some(Subnet {
                    id: subnet.subnet_id?,
                    zone: Zone::new(subnet.availability_zone?),
                    free: subnet.available_ip_address_count.unwrap_or(i32::MAX),
                })
            })
            .collect())
    }

    /// The zones that have a subnet.
    pub(crate) fn zones(&self) -> BTreeSet<Zone> {
        self.locked()
            .list
            .iter()
            .map(|subnet| subnet.zone.clone())
            .collect()
    }

    /// How many instances still find addresses, by zone.
    pub(crate) fn room(&self) -> BTreeMap<Zone, i64> {
        let mut room = BTreeMap::new();
        for subnet in &self.locked().list {
            *room.entry(subnet.zone.clone()).or_default() += i64::from(subnet.free / self.need);
        }
        room
    }

    /// Reads the free addresses anew when they are old, or when the zone seems full. Keeps the old ones when EC2 does not tell.
    pub(crate) async fn refresh(&self, zone: &Zone) {
        let is_old = || {
            let known = self.locked();
            let is_full = most_free(&known.list, zone).is_none_or(|best| best.free < self.need);
            known.at.elapsed() > if is_full { FRESH_WHEN_FULL } else { FRESH }
        };
        if !is_old() {
            return;
        }
        // One asks; the others go on with what is known.
        let Ok(_asking) = self.asking.try_lock() else {
            return;
        };
        if !is_old() {
            return;
        }
        let answer = self.ask("launch").await;
        let mut known = self.locked();
        known.at = Instant::now();
        match answer {
            // None is an answer of an API that is not itself: a subnet in use cannot be deleted.
            Ok(list) if list.is_empty() => {
                tracing::warn!("EC2 shows no subnet any more; the known ones are kept")
            }
            Ok(list) => known.list = list,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "free addresses of the subnets stay unknown")
            }
        }
    }

    /// Takes addresses in the zone's emptiest subnet.
    ///
    /// # Errors
    /// `InsufficientCapacity`, to try in another zone, when none has enough and another zone has; `Conflict`, to try again, when no zone has.
    /// No other type of a full zone would find an address, so none may be bought for it. `InvalidRequest` when the zone has no subnet.
    pub(crate) fn take(&self, zone: &Zone) -> Result<String> {
        let mut known = self.locked();
        let failed = |kind, message: &str| Error::new(kind, "launch", message).with_context("zone", zone);
        let Some(best) = most_free(&known.list, zone).map(|best| best.id.clone()) else {
            let error = failed(
                ErrorKind::InvalidRequest,
                "no subnet of the configuration is in this zone",
            );
            return Err(error.with_retry(Retry::Elsewhere));
        };
        let need = self.need;
        let is_full = known.list.iter().all(|subnet| subnet.free < need);
        match known.list.iter_mut().find(|subnet| subnet.id == best) {
            Some(subnet) if subnet.free >= need => subnet.free -= need,
            _ if is_full => {
                return Err(failed(
                    ErrorKind::Conflict,
                    "every subnet of the configuration is out of free addresses; add a subnet, or end something",
                )
                .with_retry(Retry::After(None)));
            }
            _ => {
                return Err(failed(
                    ErrorKind::InsufficientCapacity,
                    "every subnet of this zone is out of free addresses; add a subnet there, or end something",
                )
                .with_retry(Retry::OtherZone));
            }
        }
        Ok(best)
    }

    /// EC2 says that a subnet has no addresses left.
    pub(crate) fn is_full(&self, id: &str) {
        for subnet in &mut self.locked().list {
            if subnet.id == id {
                subnet.free = 0;
            }
        }
    }
}

/// Of equal ones the first by id, so that every controller chooses the same.
fn most_free<'a>(list: &'a [Subnet], zone: &Zone) -> Option<&'a Subnet> {
    list.iter()
        .filter(|subnet| subnet.zone == *zone)
        .max_by(|a, b| a.free.cmp(&b.free).then_with(|| b.id.cmp(&a.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, zone: &str, free: i32) -> Subnet {
        Subnet {
            id: id.into(),
            zone: Zone::new(zone),
            free,
        }
    }

    #[test]
    fn the_emptiest_subnet_of_the_zone_is_taken_and_ties_are_the_same_everywhere() {
        let list = [
            subnet("subnet-c", "a", 9),
            subnet("subnet-b", "a", 20),
            subnet("subnet-a", "a", 20),
            subnet("subnet-d", "b", 99),
        ];
        let best = most_free(&list, &Zone::new("a")).map(|subnet| subnet.id.as_str());
        assert_eq!(best, Some("subnet-a"));
        assert_eq!(most_free(&list, &Zone::new("c")), None);
    }
}
