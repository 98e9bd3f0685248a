//! The subnets instances are put into: of those in a zone, the one with the most free addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::types::{self, Filter};
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
    region: String,
    /// Addresses an instance takes.
    need: i32,
    known: Mutex<Known>,
    /// How long a call may take.
    patience: Duration,
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
    /// Finds the subnets the configuration means. Those that it does not name count only where the region's prices do: see
    /// [`is_priced_as_region`].
    ///
    /// # Errors
    /// `ConfigInvalid` when there are none; what the call answers.
    pub(crate) async fn find(api: Api, region: &str, config: &AwsConfig) -> Result<Self> {
        let filters = match (&config.vpc_id, config.subnet_ids.is_empty()) {
            (Some(vpc), _) => vec![api::exactly("vpc-id", vpc)],
            (None, true) => vec![api::exactly("default-for-az", "true")],
            (None, false) => Vec::new(),
        };
        let subnets = Self {
            api,
            ids: config.subnet_ids.clone(),
            filters,
            region: region.to_owned(),
            need: if config.secondary_address { 2 } else { 1 },
            known: Mutex::new(Known {
                list: Vec::new(),
                at: Instant::now(),
            }),
            patience: config.call_timeout,
            asking: AsyncMutex::default(),
        };
        let list = subnets.ask(START).await?;
        if list.is_empty() {
            let message = match (&config.vpc_id, config.subnet_ids.is_empty()) {
                (Some(vpc), true) => format!(
                    "the VPC {vpc} has no subnet in a zone of {region}: create one, name one of a Local Zone, or check the region"
                ),
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
            .filter(|subnet| !self.ids.is_empty() || is_priced_as_region(subnet, &self.region))
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
            let fresh = if self.has_room(zone) {
                FRESH
            } else {
                FRESH_WHEN_FULL
            };
            self.locked().at.elapsed() > fresh
        };
        if !is_old() {
            return;
        }
        // One asks. The others go on with what is known, unless that would close a zone that may have room by now.
        let asking = if self.has_room(zone) {
            self.asking.try_lock().ok()
        } else {
            let waiting = self.asking.lock();
            tokio::time::timeout(self.patience, waiting).await.ok()
        };
        if asking.is_none() || !is_old() {
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

    /// Whether an instance still finds addresses in the zone, as far as is known.
    pub(crate) fn has_room(&self, zone: &Zone) -> bool {
        most_free(&self.locked().list, zone).is_some_and(|best| best.free >= self.need)
    }

    /// Nothing was launched, so what was taken is free again. A subnet that is known to be full stays so.
    pub(crate) fn give_back(&self, id: &str) {
        for subnet in &mut self.locked().list {
            if subnet.id == id && subnet.free > 0 {
                subnet.free = subnet.free.saturating_add(self.need);
            }
        }
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

/// Whether instances there cost what they cost in the region's own zones, such as `us-east-1a` of `us-east-1`. Local Zones
/// (`us-east-1-bos-1a`) and Wavelength Zones (`us-east-1-wl1-bos-wlz-1`) are dearer, which the catalogue does not know, and an Outpost is
/// hardware that is paid for anyway: they are for who names their subnets.
fn is_priced_as_region(subnet: &types::Subnet, region: &str) -> bool {
    let letter = subnet
        .availability_zone()
        .and_then(|zone| zone.strip_prefix(region));
    let is_own_zone =
        letter.is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|c| c.is_ascii_lowercase()));
    is_own_zone && subnet.outpost_arn().is_none_or(str::is_empty)
}

/// Of equal ones the first by id, so that every controller chooses the same.
fn most_free<'a>(list: &'a [Subnet], zone: &Zone) -> Option<&'a Subnet> {
    list.iter()
        .filter(|subnet| subnet.zone == *zone)
        .max_by(|a, b| a.free.cmp(&b.free).then_with(|| b.id.cmp(&a.id)))
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use kip_testkit::ec2::FakeEc2;

    use super::*;
    use crate::builder;
    use crate::config::AwsCredentials;

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

    /// The catalogue has the region's prices: elsewhere an instance would look cheap and be billed at more.
    #[test]
    fn only_the_regions_own_zones_are_used_unasked() {
        let subnet = |zone: &str| types::Subnet::builder().availability_zone(zone);
        for (zone, is_used) in [
            ("us-west-2a", true),
            ("us-west-2-lax-1a", false),
            ("us-west-2-wl1-las-wlz-1", false),
            ("us-west-2", false),
        ] {
            assert_eq!(
                is_priced_as_region(&subnet(zone).build(), "us-west-2"),
                is_used,
                "{zone}"
            );
        }
        let outpost =
            subnet("us-west-2a").outpost_arn("arn:aws:outposts:us-west-2:123456789012:outpost/op-1");
        assert!(!is_priced_as_region(&outpost.build(), "us-west-2"));
    }

    async fn on(ec2: &FakeEc2) -> Subnets {
        let config = AwsConfig {
            region: Some("us-east-1".into()),
            credentials: Some(AwsCredentials {
                access_key_id: "AKIATEST".to_owned().into(),
                secret_access_key: "secret".to_owned().into(),
            }),
            endpoint_url: Some(ec2.url().to_owned()),
            vpc_id: Some("vpc-1".into()),
            ..AwsConfig::default()
        };
        let (sdk, region) = builder::connect(&config).await.unwrap();
        let api = Api::new(builder::client(&sdk, &config));
        Subnets::find(api, &region, &config).await.unwrap()
    }

    fn set_free(ec2: &FakeEc2, free: i64) {
        for subnet in ec2.state().subnets.values_mut() {
            subnet.1 = free;
        }
    }

    /// Of a burst of pods one would ask EC2, and the others close the zone by what was true a while ago.
    #[tokio::test]
    async fn a_zone_that_seems_full_is_asked_about_by_all_before_any_pod_is_sent_away() {
        let ec2 = FakeEc2::start().await.unwrap();
        set_free(&ec2, 0);
        let subnets = on(&ec2).await;
        set_free(&ec2, 4000);
        subnets.locked().at = Instant::now().checked_sub(FRESH_WHEN_FULL * 2).unwrap();
        let asked = ec2.calls("DescribeSubnets").len();
        let zone = Zone::new("us-east-1a");
        let takes = join_all((0..20).map(|_| async {
            subnets.refresh(&zone).await;
            subnets.take(&zone)
        }));
        for taken in takes.await {
            assert!(taken.is_ok(), "{taken:?}");
        }
        assert_eq!(
            ec2.calls("DescribeSubnets").len(),
            asked + 1,
            "one question is enough"
        );
    }

    /// A type that is sold out would use up the zone's addresses by asking for it.
    #[tokio::test]
    async fn what_a_refused_launch_took_is_free_again_but_not_in_a_full_subnet() {
        let ec2 = FakeEc2::start().await.unwrap();
        set_free(&ec2, 3);
        let subnets = on(&ec2).await;
        let zone = Zone::new("us-east-1b");
        let taken = subnets.take(&zone).unwrap();
        assert!(!subnets.has_room(&zone));
        subnets.give_back(&taken);
        assert!(subnets.has_room(&zone));
        subnets.is_full(&taken);
        subnets.give_back(&taken);
        assert!(!subnets.has_room(&zone));
    }
}
