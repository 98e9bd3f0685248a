//! The `cells` section: what instances are like.

use std::collections::BTreeMap;

use kip_core::model::Bytes;
use serde::Serialize;

use super::agent::{self, Agent};
use super::document::Section;
use super::show;

/// What instances are like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cells {
    /// Instance type of a pod that asks for no CPU, memory or type. Default: the cheapest that works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_instance_type: Option<String>,
    /// Root volume of a pod that asks for none. Default 5Gi.
    #[serde(serialize_with = "show::display")]
    pub(crate) default_volume_size: Bytes,
    /// Which boot image; its keys depend on the cloud.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) boot_image_spec: BTreeMap<String, String>,
    /// Where the agent is fetched from at boot. Default: the image has it.
    #[serde(skip_serializing_if = "Agent::is_empty")]
    pub(crate) agent: Agent,
    /// More cloud-init for each instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cloud_init_file: Option<String>,
    /// Part of the instances' names, for people. At most 24 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nametag: Option<String>,
    /// No public addresses. Default false.
    #[serde(rename = "privateIPOnly")]
    pub(crate) private_ip_only: bool,
    /// Further networks that may reach cells.
    #[serde(rename = "extraCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) extra_cidrs: Vec<String>,
    /// Further security groups (AWS, Azure) or network tags (GCE) of each instance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) extra_security_groups: Vec<String>,
    /// Instance profile of each instance (AWS).
    #[serde(rename = "defaultIAMPermissions", skip_serializing_if = "Option::is_none")]
    pub(crate) default_iam_permissions: Option<String>,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            default_instance_type: None,
            default_volume_size: Bytes::gib(5),
            boot_image_spec: BTreeMap::new(),
            agent: Agent::default(),
            cloud_init_file: None,
            nametag: None,
            private_ip_only: false,
            extra_cidrs: Vec::new(),
            extra_security_groups: Vec::new(),
            default_iam_permissions: None,
        }
    }
}

/// Reads the section.
pub(super) fn read(section: Section<'_>) -> Cells {
    let default = Cells::default();
    let nametag = section.text("nametag");
    if nametag.as_deref().is_some_and(|name| !is_nametag(name)) {
        section.problem(
            "nametag",
            "must be at most 24 of a-z, 0-9 and -, begin with a letter and not end with -",
        );
    }
    let cells = Cells {
        default_instance_type: section.text("defaultInstanceType"),
        default_volume_size: section
            .bytes("defaultVolumeSize")
            .unwrap_or(default.default_volume_size),
        boot_image_spec: section.map("bootImageSpec"),
        agent: agent::read(section.section("agent")),
        cloud_init_file: section.text("cloudInitFile"),
        nametag,
        private_ip_only: section
            .boolean("privateIPOnly")
            .unwrap_or(default.private_ip_only),
        extra_cidrs: section.texts("extraCIDRs"),
        extra_security_groups: section.texts("extraSecurityGroups"),
        default_iam_permissions: section.text("defaultIAMPermissions"),
    };
    for (i, cidr) in cells.extra_cidrs.iter().enumerate() {
        if !is_cidr(cidr) {
            section.problem(
                &format!("extraCIDRs[{i}]"),
                "is no network; write one such as 10.0.0.0/8",
            );
        }
    }
    read_obsolete(&section);
    section.finish();
    cells
}

/// The old Kip's keys without a meaning: each says what there is in its place.
fn read_obsolete(section: &Section<'_>) {
    section.obsolete_unless_empty(
        "standbyCells",
        "no instances are kept in reserve; a pod's cell boots when the pod is bound, so delete the list",
    );
    if let Some(itzo) = section.section_if_present("itzo") {
        let baked = "the agent is kip-cell, in the image, or named by cells.agent with URL and SHA-256 for each architecture";
        itzo.obsolete("url", baked);
        itzo.obsolete("version", baked);
        itzo.finish();
    }
    section.obsolete(
        "statusInterval",
        "cells push their status when it changes, nothing is polled; delete it",
    );
    if let Some(checks) = section.section_if_present("healthcheck") {
        let always = "connections to cells are watched all the time, and a silent cell is lost only when the cloud says that its \
                      instance is gone; delete it";
        checks.obsolete("status", always);
        checks.obsolete("cloudAPI", always);
        checks.finish();
    }
    if let Some(settings) = section.section_if_present("cellConfig") {
        for (key, _) in settings.take_all() {
            let instead = match key.as_str() {
                "imageCacheEndpoint" | "imageCacheMountDir" | "imageCacheMountOpts" => {
                    "cells mount no image cache; put large images into the boot image, or use a registry in the cells' region"
                }
                _ => "the agent takes no further settings; delete it",
            };
            settings.no_effect(&key, instead);
        }
        settings.finish();
    }
    if section.boolean("useCloudParameterStore") == Some(true) {
        section.problem(
            "useCloudParameterStore",
            "is not possible: a cell gets its identity by user-data, which only its own metadata service has, version 2 with hop limit 1, \
             so pods with a network of their own cannot read it; remove the key",
        );
    }
}

fn is_nametag(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 24
        && name.bytes().all(|b| plain(b) || b == b'-')
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().next_back().is_some_and(plain)
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    })
}
