//! What the fake EC2 knows, and what its calls do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dry_run;
use super::left_over::{self, LeftOver};
use super::market::Market;
use super::route_tables::{self, RouteTable};
use super::security_groups::{self, SecurityGroups};
use super::vpcs::{self, Vpc};
use super::wire::{self, Params, element, set, wrap};

/// An answer: the XML, or the code and sentence that refuse.
pub type Answer = Result<String, (String, String)>;

/// Everything there is.
#[derive(Debug)]
pub struct State {
    /// Types that are sold, and their architecture.
    pub types: BTreeMap<String, &'static str>,
    /// Architecture of every other type. None: no other is sold. Default None.
    pub other_types: Option<&'static str>,
    /// Where the instances' addresses begin: the k-th has the 2k-th and the next. Default 10.0.0.0.
    pub network: Ipv4Addr,
    /// Zone and free addresses of each subnet.
    pub subnets: BTreeMap<String, (String, i64)>,
    /// Architecture and creation date of each image.
    pub images: BTreeMap<String, (&'static str, &'static str)>,
    /// How many more of a type can be launched in a zone.
    pub capacity: BTreeMap<(String, String), u32>,
    /// How many instances the account may have.
    pub quota: usize,
    /// How long what was launched stays unknown to the other calls.
    pub lag: Duration,
    /// How long instances stay pending; None is for ever.
    pub boot: Option<Duration>,
    /// How long instances take to shut down.
    pub shutdown: Duration,
    /// Instances a page of DescribeInstances.
    pub page: usize,
    /// By id.
    pub instances: BTreeMap<String, Machine>,
    /// Actions that the caller's policy does not allow.
    pub denied_actions: BTreeSet<String>,
    /// The VPCs of the caller's own machine; none when it is no instance.
    pub homes: Vec<String>,
    /// VPCs, by id.
    pub vpcs: BTreeMap<String, Vpc>,
    /// Security groups, by id.
    pub security_groups: SecurityGroups,
    /// Route tables, by id.
    pub route_tables: BTreeMap<String, RouteTable>,
    /// Instances that take packets that are not for their own addresses.
    pub forwarding: BTreeSet<String>,
    /// Network interfaces that nobody uses.
    pub left_interfaces: LeftOver,
    /// Volumes that nobody uses.
    pub left_volumes: LeftOver,
    /// Sizes, zones and prices.
    pub market: Market,
    /// Instances with termination protection: no call that names one ends any in its zone.
    pub protected: BTreeSet<String>,
    /// Instances that the caller may not terminate: no call that names one ends any.
    pub denied: BTreeSet<String>,
    /// Volumes of each image beside the root: device, GiB, and whether they end with the instance.
    pub volumes: BTreeMap<String, Vec<(&'static str, u32, bool)>>,
    /// Tokens of launches that were refused for want of room: EC2 keeps the parameters.
    refused: BTreeMap<String, Params>,
    made: u64,
}

/// The life of an instance, as the bill has it.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was launched.
    pub from: Instant,
    /// When it was terminated; None while it is not.
    pub until: Option<Instant>,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it was launched with.
    pub params: Params,
    /// Why it ended, when it ended by itself.
    pub reason: Option<(String, String)>,
    zone: String,
    born: Instant,
    end: Option<Instant>,
    number: u64,
}

fn refuse(code: &str, message: impl Into<String>) -> Answer {
    Err((code.to_owned(), message.into()))
}

impl Default for State {
    fn default() -> Self {
        let subnet = |id: &str, zone: &str, free| (id.to_owned(), (zone.to_owned(), free));
        Self {
            types: BTreeMap::from([
                ("t3.small".to_owned(), "x86_64"),
                ("c7i.large".to_owned(), "x86_64"),
                ("t4g.small".to_owned(), "arm64"),
            ]),
            other_types: None,
            network: Ipv4Addr::new(10, 0, 0, 0),
            subnets: BTreeMap::from([
                subnet("subnet-a", "us-east-1a", 4000),
                subnet("subnet-a2", "us-east-1a", 250),
                subnet("subnet-b", "us-east-1b", 4000),
            ]),
            images: BTreeMap::from([
                ("ami-0amd".to_owned(), ("x86_64", "2026-01-01T00:00:00.000Z")),
                ("ami-0arm".to_owned(), ("arm64", "2026-01-01T00:00:00.000Z")),
            ]),
            capacity: BTreeMap::new(),
            quota: usize::MAX,
            lag: Duration::ZERO,
            boot: Some(Duration::ZERO),
            shutdown: Duration::ZERO,
            page: 1000,
            instances: BTreeMap::new(),
            denied_actions: BTreeSet::new(),
            homes: Vec::new(),
            vpcs: vpcs::usual(),
            security_groups: SecurityGroups::new(),
            route_tables: route_tables::usual(),
            forwarding: BTreeSet::new(),
            left_interfaces: LeftOver::new(),
            left_volumes: LeftOver::new(),
            market: Market::default(),
            protected: BTreeSet::new(),
            denied: BTreeSet::new(),
            volumes: BTreeMap::new(),
            refused: BTreeMap::new(),
            made: 0,
        }
    }
}

impl State {
    /// Answers a call.
    pub fn call(&mut self, action: &str, params: &Params) -> Answer {
        if let Some(refused) = dry_run::refusal(&self.denied_actions, action, params) {
            return Err(refused);
        }
        if params.get("DryRun") == Some("true") {
            return dry_run::answer(self, action, params);
        }
        match action {
            "RunInstances" => self.run(params),
            "TerminateInstances" => self.terminate(params),
            "DescribeInstances" => self.describe(params),
            "DescribeInstanceAttribute" => self.describe_attribute(params),
            "DescribeSubnets" => self.describe_subnets(params),
            "DescribeImages" => self.describe_images(params),
            "DescribeVpcs" => vpcs::describe(&self.vpcs, params),
            "DescribeSecurityGroups" => security_groups::describe(&self.security_groups, params),
            "CreateSecurityGroup" => security_groups::create(&mut self.security_groups, params),
            "AuthorizeSecurityGroupIngress" => security_groups::authorize(&mut self.security_groups, params),
            "DescribeRouteTables" => route_tables::describe(self),
            "CreateRoute" | "ReplaceRoute" | "DeleteRoute" => route_tables::change(self, action, params),
            "ModifyInstanceAttribute" => route_tables::modify(self, params),
            "DescribeNetworkInterfaces" => left_over::describe(
                &self.left_interfaces,
                "networkInterfaceSet",
                "networkInterfaceId",
                params,
            ),
            "DeleteNetworkInterface" => left_over::delete_interface(&mut self.left_interfaces, params),
            "DescribeVolumes" => left_over::describe(&self.left_volumes, "volumeSet", "volumeId", params),
            "RevokeSecurityGroupIngress" => security_groups::revoke(&mut self.security_groups, params),
            _ => self.market.call(action, params).unwrap_or_else(|| {
                refuse(
                    "InvalidAction",
                    format!("The action {action} is not valid for this web service."),
                )
            }),
        }
    }

    /// Answers a call of a service beside EC2, which speak JSON.
    ///
    /// # Errors
    /// Code and sentence that refuse it.
    pub fn call_json(&mut self, action: &str, params: &Params) -> Result<Value, (String, String)> {
        self.market.call_json(action, params).ok_or_else(|| {
            let message = format!("The action {action} is not known.");
            ("UnknownOperationException".to_owned(), message)
        })
    }

    fn run(&mut self, params: &Params) -> Answer {
        let token = params.get("ClientToken").unwrap_or_default().to_owned();
        if token.is_empty() {
            // The real one takes it; a launch of Kip without one is a defect.
            return refuse("MissingParameter", "ClientToken");
        }
        let known = self
            .instances
            .iter()
            .find(|(_, machine)| machine.params.get("ClientToken") == Some(token.as_str()));
        if let Some((id, machine)) = known {
            if machine.params != *params {
                return refuse(
                    "IdempotentParameterMismatch",
                    "The client token was used with other parameters.",
                );
            }
            if self.state_of(machine) == "terminated" {
                return refuse("IdempotentInstanceTerminated", format!("{id} is terminated."));
            }
            return Ok(self.launched(id));
        }
        if self.refused.get(&token).is_some_and(|before| before != params) {
            return refuse(
                "IdempotentParameterMismatch",
                "The client token was used with other parameters.",
            );
        }
        let instance_type = params.get("InstanceType").unwrap_or_default().to_owned();
        let listed = self.types.get(&instance_type).copied();
        let Some(architecture) = listed.or(self.other_types) else {
            return refuse(
                "InvalidParameterValue",
                format!("Invalid value '{instance_type}' for InstanceType."),
            );
        };
        let image = params.get("ImageId").unwrap_or_default();
        match self.images.get(image) {
            Some((of_image, _)) if *of_image == architecture => {}
            Some(_) => {
                return refuse(
                    "InvalidParameterValue",
                    "The architectures of type and image differ.",
                );
            }
            None => {
                return refuse(
                    "InvalidAMIID.NotFound",
                    format!("The image id '[{image}]' does not exist"),
                );
            }
        }
        let subnet = params.get("NetworkInterface.1.SubnetId").unwrap_or_default();
        let Some((zone, free)) = self.subnets.get_mut(subnet) else {
            return refuse(
                "InvalidSubnetID.NotFound",
                format!("The subnet ID '{subnet}' does not exist"),
            );
        };
        let secondary = params.get("NetworkInterface.1.SecondaryPrivateIpAddressCount");
        let need = 1 + secondary.and_then(|count| count.parse::<i64>().ok()).unwrap_or(0);
        if *free < need {
            self.refused.insert(token, params.clone());
            return refuse("InsufficientFreeAddressesInSubnet", format!("{subnet} is full."));
        }
        if params.tags("instance").len() > 50 {
            return refuse("TagLimitExceeded", "More than 50 tags.");
        }
        let alive = self
            .instances
            .values()
            .filter(|machine| machine.end.is_none())
            .count();
        if alive >= self.quota {
            return refuse(
                "VcpuLimitExceeded",
                "You have requested more vCPU capacity than your limit.",
            );
        }
        let zone = zone.clone();
        match self.capacity.get_mut(&(instance_type.clone(), zone.clone())) {
            Some(0) => {
                self.refused.insert(token, params.clone());
                let message =
                    format!("We currently do not have sufficient {instance_type} capacity in {zone}.");
                return refuse("InsufficientInstanceCapacity", message);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        *free -= need;
        self.made += 1;
        let id = format!("i-{:017x}", self.made);
        let machine = Machine {
            params: params.clone(),
            reason: None,
            zone,
            born: Instant::now(),
            end: None,
            number: self.made,
        };
        self.instances.insert(id.clone(), machine);
        Ok(self.launched(&id))
    }

    fn launched(&self, id: &str) -> String {
        element("reservationId", "r-1") + &set("instancesSet", [self.show(id, &self.instances[id])])
    }

    fn state_of(&self, machine: &Machine) -> &'static str {
        match machine.end {
            Some(end) if end.elapsed() >= self.shutdown => "terminated",
            Some(_) => "shutting-down",
            None if self.boot.is_some_and(|boot| machine.born.elapsed() >= boot) => "running",
            None => "pending",
        }
    }

    /// Whether an instance is there and not terminated.
    pub(super) fn is_alive(&self, id: &str) -> bool {
        self.instances
            .get(id)
            .is_some_and(|machine| self.state_of(machine) != "terminated")
    }

    fn is_shown(&self, machine: &Machine) -> bool {
        machine.born.elapsed() >= self.lag
    }

    fn terminate(&mut self, params: &Params) -> Answer {
        let ids = params.list("InstanceId");
        let unknown: Vec<&str> = ids
            .iter()
            .filter(|id| {
                !self
                    .instances
                    .get(*id)
                    .is_some_and(|machine| self.is_shown(machine))
            })
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            let message = format!("The instance ID '{}' does not exist", unknown.join(", "));
            return refuse("InvalidInstanceID.NotFound", message);
        }
        if let Some(id) = ids.iter().find(|id| self.denied.contains(*id)) {
            let message = format!("You are not authorized to terminate {id}.");
            return refuse("UnauthorizedOperation", message);
        }
        let zone = |id: &String| self.instances[id].zone.clone();
        let protected: BTreeSet<String> = ids
            .iter()
            .filter(|id| self.protected.contains(*id))
            .map(zone)
            .collect();
        let spared: BTreeSet<&String> = ids.iter().filter(|id| protected.contains(&zone(id))).collect();
        let mut changes = Vec::new();
        for id in ids.iter().filter(|id| !spared.contains(id)) {
            let before = self.state_of(&self.instances[id]);
            if let Some(machine) = self.instances.get_mut(id) {
                machine.end.get_or_insert_with(Instant::now);
            }
            let now = self.state_of(&self.instances[id]);
            changes.push(
                element("instanceId", id)
                    + &wrap("currentState", &element("name", now))
                    + &wrap("previousState", &element("name", before)),
            );
        }
        match ids.iter().find(|id| self.protected.contains(*id)) {
            // The other zones' instances end all the same.
            Some(id) => refuse(
                "OperationNotPermitted",
                format!(
                    "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."
                ),
            ),
            None => Ok(set("instancesSet", changes)),
        }
    }

    fn describe(&self, params: &Params) -> Answer {
        let filters = params.filters();
        let matching: Vec<(&String, &Machine)> = self
            .instances
            .iter()
            .filter(|(id, machine)| {
                self.is_shown(machine) && filters.iter().all(|filter| self.passes(id, machine, filter))
            })
            .collect();
        let from: usize = params
            .get("NextToken")
            .and_then(|token| token.parse().ok())
            .unwrap_or(0);
        let most = params
            .get("MaxResults")
            .and_then(|most| most.parse().ok())
            .unwrap_or(1000);
        let until = matching.len().min(from + self.page.min(most));
        let shown = matching[from..until]
            .iter()
            .map(|(id, machine)| set("instancesSet", [self.show(id, machine)]));
        let next = if until < matching.len() {
            element("nextToken", &until.to_string())
        } else {
            String::new()
        };
        Ok(set("reservationSet", shown) + &next)
    }

    fn passes(&self, id: &str, machine: &Machine, (name, patterns): &(String, Vec<String>)) -> bool {
        let value = match name.as_str() {
            "instance-id" => Some(id.to_owned()),
            "instance-state-name" => Some(self.state_of(machine).to_owned()),
            "tag-key" => {
                let tags = machine.params.tags("instance");
                return patterns
                    .iter()
                    .any(|pattern| tags.keys().any(|key| wire::matches(pattern, key)));
            }
            "client-token" => machine.params.get("ClientToken").map(str::to_owned),
            other => other
                .strip_prefix("tag:")
                .and_then(|key| machine.params.tags("instance").remove(key)),
        };
        value.is_some_and(|value| patterns.iter().any(|pattern| wire::matches(pattern, &value)))
    }

    fn show(&self, id: &str, machine: &Machine) -> String {
        let params = &machine.params;
        let text =
            |element_name: &str, param: &str| element(element_name, params.get(param).unwrap_or_default());
        let address = |host: u64| {
            // Not more than a network has: tests launch hundreds, not thousands of millions.
            let [.., a, b, c, d] = (machine.number * 2 + host).to_be_bytes();
            let address = u32::from(self.network) + u32::from_be_bytes([a, b, c, d]);
            Ipv4Addr::from(address).to_string()
        };
        let state = self.state_of(machine);
        let tags = params
            .tags("instance")
            .into_iter()
            .map(|(key, value)| element("key", &key) + &element("value", &value));
        let mut addresses = vec![element("privateIpAddress", &address(0)) + &element("primary", "true")];
        if params
            .get("NetworkInterface.1.SecondaryPrivateIpAddressCount")
            .is_some()
        {
            addresses.push(element("privateIpAddress", &address(1)) + &element("primary", "false"));
        }
        let interface = element("networkInterfaceId", &route_tables::interface(id))
            + &wrap("attachment", &element("deviceIndex", "0"))
            + &set("privateIpAddressesSet", addresses);
        let mut shown = element("instanceId", id)
            + &text("imageId", "ImageId")
            + &wrap("instanceState", &element("name", state))
            + &text("instanceType", "InstanceType")
            + &element("launchTime", "2026-11-25T12:00:00.000Z")
            + &wrap("placement", &element("availabilityZone", &machine.zone))
            + &text("subnetId", "NetworkInterface.1.SubnetId")
            + &element(
                "sourceDestCheck",
                if self.forwarding.contains(id) {
                    "false"
                } else {
                    "true"
                },
            )
            + &text("clientToken", "ClientToken")
            + &set("tagSet", tags);
        if state != "terminated" {
            shown += &element("privateIpAddress", &address(0));
            shown += &set("networkInterfaceSet", [interface]);
        }
        if params.get("InstanceMarketOptions.MarketType") == Some("spot") {
            shown += &element("instanceLifecycle", "spot");
        }
        if let Some((code, message)) = &machine.reason {
            shown += &wrap(
                "stateReason",
                &(element("code", code) + &element("message", message)),
            );
        }
        shown
    }

    /// The tags of all instances that are not terminated.
    pub fn alive(&self) -> Vec<BTreeMap<String, String>> {
        self.instances
            .values()
            .filter(|machine| self.state_of(machine) != "terminated")
            .map(|machine| machine.params.tags("instance"))
            .collect()
    }

    /// The lives of all instances that there ever were.
    pub fn lives(&self) -> Vec<Life> {
        self.instances
            .values()
            .map(|machine| Life {
                tags: machine.params.tags("instance"),
                from: machine.born,
                until: machine.end.map(|end| end + self.shutdown),
            })
            .collect()
    }

    /// Ends an instance by itself.
    pub fn end(&mut self, id: &str, code: &str, message: &str) {
        if let Some(machine) = self.instances.get_mut(id) {
            machine.end = Some(Instant::now());
            machine.reason = Some((code.to_owned(), message.to_owned()));
        }
    }

    fn describe_subnets(&self, params: &Params) -> Answer {
        let ids = params.list("SubnetId");
        if let Some(id) = ids.iter().find(|id| !self.subnets.contains_key(*id)) {
            return refuse(
                "InvalidSubnetID.NotFound",
                format!("The subnet ID '{id}' does not exist"),
            );
        }
        let fits = params.filters().iter().all(|(name, values)| match name.as_str() {
            "vpc-id" => values == &["vpc-1"],
            "default-for-az" => values == &["true"],
            _ => false,
        });
        let shown = self
            .subnets
            .iter()
            .filter(|(id, _)| fits && (ids.is_empty() || ids.contains(id)))
            .map(|(id, (zone, free))| {
                element("subnetId", id)
                    + &element("availabilityZone", zone)
                    + &element("availableIpAddressCount", &free.to_string())
                    + &element("vpcId", "vpc-1")
            });
        Ok(set("subnetSet", shown))
    }

    fn describe_images(&self, params: &Params) -> Answer {
        let ids = params.list("ImageId");
        if let Some(id) = ids.iter().find(|id| !self.images.contains_key(*id)) {
            return refuse(
                "InvalidAMIID.NotFound",
                format!("The image id '[{id}]' does not exist"),
            );
        }
        let filters = params.filters();
        let shown = self
            .images
            .iter()
            .filter(|(id, (architecture, _))| {
                (ids.is_empty() || ids.contains(id))
                    && filters.iter().all(|(name, patterns)| {
                        let value = match name.as_str() {
                            "name" => format!("kip-cell-{architecture}"),
                            "architecture" => (*architecture).to_owned(),
                            _ => return false,
                        };
                        patterns.iter().any(|pattern| wire::matches(pattern, &value))
                    })
            })
            .map(|(id, (architecture, date))| {
                let device = |name: &str, gib: u32, ends: bool| {
                    let ebs = element("volumeSize", &gib.to_string())
                        + &element("deleteOnTermination", if ends { "true" } else { "false" });
                    element("deviceName", name) + &wrap("ebs", &ebs)
                };
                let more = self.volumes.get(id.as_str()).into_iter().flatten();
                let devices = [("/dev/xvda", 8, true)]
                    .iter()
                    .chain(more)
                    .map(|&(name, gib, ends)| device(name, gib, ends));
                element("imageId", id)
                    + &element("architecture", architecture)
                    + &element("creationDate", date)
                    + &element("imageState", "available")
                    + &element("rootDeviceType", "ebs")
                    + &element("rootDeviceName", "/dev/xvda")
                    + &set("blockDeviceMapping", devices)
            });
        Ok(set("imagesSet", shown))
    }
}
