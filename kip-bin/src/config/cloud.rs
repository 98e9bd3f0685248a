//! The `cloud` section: exactly one cloud.

use kip_core::driver::RequestLimits;
use secrecy::SecretString;
use serde::Serialize;

use super::aws::Aws;
use super::document::{Findings, Section};
use super::show;

/// The cloud that is used.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Cloud {
    /// This machine.
    Local(Local),
    /// Amazon EC2.
    Aws(Box<Aws>),
    /// Google Compute Engine.
    Gce(Gce),
    /// Microsoft Azure.
    Azure(Azure),
}

impl Cloud {
    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Aws(_) => "aws",
            Self::Gce(_) => "gce",
            Self::Azure(_) => "azure",
        }
    }

    /// The most calls to its API.
    pub(crate) fn request_limits(&self) -> RequestLimits {
        match self {
            Self::Aws(aws) => aws.request_limits.of_driver(),
            Self::Local(_) | Self::Gce(_) | Self::Azure(_) => RequestLimits::default(),
        }
    }

    /// Why this build cannot drive it, and what to do. None: it can.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        const LOCAL: &str = "this build has no local support: build kip with the feature `local`";
        const AWS: &str = "this build has no aws support: build kip with the feature `aws`";
        match self {
            Self::Local(_) => (!cfg!(feature = "local")).then_some(LOCAL),
            Self::Aws(_) => (!cfg!(feature = "aws")).then_some(AWS),
            Self::Gce(_) => Some(
                "Google Compute Engine is not supported yet, only aws is: keep the old Kip there for now",
            ),
            Self::Azure(_) => Some("Azure is not supported yet, only aws is: keep the old Kip there for now"),
        }
    }
}

/// `cloud.local`: cells on this machine.
#[cfg(feature = "local")]
pub(crate) type Local = kip_local::LocalConfig;

/// `cloud.local`, which this build cannot drive.
#[cfg(not(feature = "local"))]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Local {}

/// `cloud.gce`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gce {
    #[serde(rename = "projectID", skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<GceCredentials>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vpc_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_name: Option<String>,
}

/// `cloud.gce.credentials`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GceCredentials {
    client_email: Option<String>,
    #[serde(serialize_with = "show::secret", skip_serializing_if = "Option::is_none")]
    private_key: Option<SecretString>,
}

/// `cloud.azure`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Azure {
    #[serde(rename = "subscriptionID")]
    subscription_id: Option<String>,
    location: Option<String>,
    resource_group: Option<String>,
    #[serde(rename = "tenantID", skip_serializing_if = "Option::is_none")]
    tenant_id: Option<String>,
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(serialize_with = "show::secret", skip_serializing_if = "Option::is_none")]
    client_secret: Option<SecretString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_network_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_name: Option<String>,
}

/// Reads the section. None when it is unusable; the findings say why.
pub(super) fn read(section: Section<'_>, findings: &Findings) -> Option<Cloud> {
    let mut clouds = Vec::new();
    if let Some(local) = section.section_if_present("local") {
        clouds.push(Cloud::Local(read_local(local)));
    }
    if let Some(aws) = section.section_if_present("aws") {
        clouds.push(Cloud::Aws(Box::new(super::aws::read(aws))));
    }
    if let Some(gce) = section.section_if_present("gce") {
        clouds.push(Cloud::Gce(read_gce(gce)));
    }
    if let Some(azure) = section.section_if_present("azure") {
        clouds.push(Cloud::Azure(read_azure(azure)));
    }
    section.finish();
    if clouds.len() > 1 {
        let names: Vec<_> = clouds.iter().map(Cloud::name).collect();
        findings.problem(
            "cloud",
            format!("names {}: keep exactly one", names.join(" and ")),
        );
    }
    let cloud = clouds.pop();
    match &cloud {
        None => findings.problem(
            "cloud",
            "names no cloud: write one of local, aws, gce, azure under it, such as `local: {}`",
        ),
        Some(cloud) => {
            if let Some(missing) = cloud.missing() {
                findings.problem(format!("cloud.{}", cloud.name()), missing);
            }
        }
    }
    cloud
}

/// Reads the section key by key, so that every key's problem is told, not only the first.
#[cfg(feature = "local")]
fn read_local(section: Section<'_>) -> Local {
    let mut good = serde_norway::Mapping::new();
    for (key, value) in section.take_all() {
        let alone = serde_norway::Mapping::from_iter([(key.as_str().into(), value.clone())]);
        match serde_norway::from_value::<Local>(alone.into()) {
            Ok(_) => drop(good.insert(key.into(), value.clone())),
            Err(error) => section.problem(&key, error.to_string()),
        }
    }
    // Each key was read alone, and all have defaults, so together they can be read too.
    let local: Local = serde_norway::from_value(good.into()).unwrap_or_default();
    for problem in local.problems() {
        match problem.split_once(": ") {
            Some((field, message)) => section.problem(field, message),
            None => section.problem("", problem),
        }
    }
    section.finish();
    local
}

#[cfg(not(feature = "local"))]
fn read_local(section: Section<'_>) -> Local {
    drop(section.take_all());
    section.finish();
    Local {}
}

fn read_gce(section: Section<'_>) -> Gce {
    let credentials = section.section_if_present("credentials").map(|credentials| {
        let read = GceCredentials {
            client_email: credentials.text("clientEmail"),
            private_key: credentials.secret("privateKey"),
        };
        credentials.finish();
        read
    });
    let gce = Gce {
        project_id: section.text("projectID"),
        credentials_file: section.text("credentialsFile"),
        credentials,
        zone: section.text("zone"),
        vpc_name: section.text("vpcName"),
        subnet_name: section.text("subnetName"),
    };
    if gce.credentials.is_some() && gce.credentials_file.is_some() {
        section.problem("credentialsFile", "give it or `credentials`, not both");
    }
    if gce.credentials.is_some() && gce.project_id.is_none() && !section.has("projectID") {
        section.problem("projectID", "is required with inline credentials");
    }
    if gce
        .zone
        .as_deref()
        .is_some_and(|zone| zone.split('-').count() != 3)
    {
        section.problem("zone", "is no zone; write one such as us-central1-a");
    }
    section.finish();
    gce
}

fn read_azure(section: Section<'_>) -> Azure {
    let azure = Azure {
        subscription_id: section.text("subscriptionID"),
        location: section.text("location"),
        resource_group: section.text("resourceGroup"),
        tenant_id: section.text("tenantID"),
        client_id: section.text("clientID"),
        client_secret: section.secret("clientSecret"),
        virtual_network_name: section.text("virtualNetworkName"),
        subnet_name: section.text("subnetName"),
    };
    for (key, missing) in [
        ("subscriptionID", azure.subscription_id.is_none()),
        ("location", azure.location.is_none()),
        ("resourceGroup", azure.resource_group.is_none()),
    ] {
        if missing && !section.has(key) {
            section.problem(key, "is required");
        }
    }
    if azure.virtual_network_name.is_some() && azure.subnet_name.is_none() {
        section.problem("subnetName", "is required with virtualNetworkName");
    }
    section.finish();
    azure
}
