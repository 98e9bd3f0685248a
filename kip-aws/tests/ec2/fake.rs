//! The fake EC2 of `kip-testkit`, and a cloud on it.

use kip_aws::{AwsCloud, AwsConfig, AwsCredentials};
use kip_core::ids::{InstanceType, OfferingId, Zone};
use kip_core::model::{Architecture, CapacityType, CpuMillis, Offering, Price};
pub(crate) use kip_testkit::ec2::{Ec2Fault as Fault, FakeEc2};

/// How to use it.
pub(crate) trait Leads {
    /// A configuration that leads here.
    fn config(&self) -> AwsConfig;

    /// A cloud on it.
    async fn open(&self, config: AwsConfig) -> kip_core::Result<AwsCloud> {
        AwsCloud::builder(config).offerings(offerings()).open().await
    }
}

impl Leads for FakeEc2 {
    fn config(&self) -> AwsConfig {
        let mut config = AwsConfig::default();
        config.region = Some("us-east-1".into());
        config.credentials = Some(AwsCredentials {
            access_key_id: "AKIATEST".to_owned().into(),
            secret_access_key: "secret".to_owned().into(),
        });
        config.endpoint_url = Some(self.url().to_owned());
        config.metadata_url = Some(self.url().to_owned());
        config.vpc_id = Some("vpc-1".into());
        config.images.ids = vec!["ami-0amd".into(), "ami-0arm".into()];
        config.list_lag = std::time::Duration::ZERO;
        config
    }
}

/// The id of an offering.
pub(crate) fn offering(instance_type: &str, zone: &str, capacity_type: CapacityType) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(instance_type),
        zone: Zone::new(zone),
        capacity_type,
    }
}

/// What the fake sells, in three zones, of which one has no subnet.
pub(crate) fn offerings() -> Vec<Offering> {
    let mut all = Vec::new();
    for (instance_type, architecture, price) in [
        ("t3.small", Architecture::Amd64, 20),
        ("c7i.large", Architecture::Amd64, 90),
        ("t4g.small", Architecture::Arm64, 17),
    ] {
        for zone in ["us-east-1a", "us-east-1b", "us-east-1f"] {
            for (capacity_type, part) in [(CapacityType::OnDemand, 3), (CapacityType::Spot, 1)] {
                all.push(Offering::new(
                    offering(instance_type, zone, capacity_type),
                    architecture,
                    CpuMillis(2000),
                    kip_core::model::Bytes::gib(2),
                    Price(price * part),
                ));
            }
        }
    }
    all
}
