//! Whose things are: the cluster and the virtual node.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use hmac_sha256::Hash;
use kip_core::provider::tags;

use crate::tags as limits;

/// Longest name of a security group. Source: CreateSecurityGroup, Amazon EC2 API Reference.
const NAME: usize = 255;

/// Whose security group, network interfaces and routes are meant: one virtual node of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// UID of the cluster.
    pub(crate) cluster: String,
    /// Name of the virtual node.
    pub(crate) node: String,
}

impl Owner {
    /// The name of its security group: one name for each owner, so that EC2 lets two controllers make only one.
    pub(crate) fn group_name(&self) -> String {
        let name = format!("kip-{}-{}", self.cluster, self.node);
        if name.len() <= NAME {
            return name;
        }
        let digest = Hash::hash(name.as_bytes());
        let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let kept: String = name.chars().take(NAME - digest.len() - 1).collect();
        format!("{kept}-{digest}")
    }

    /// The tags that prove ownership.
    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (tags::CLUSTER.to_owned(), self.cluster.clone()),
            (tags::NODE.to_owned(), self.node.clone()),
        ])
    }

    /// Whether something with these tags is its own.
    pub(crate) fn owns(&self, found: &[Tag]) -> bool {
        self.tags().iter().all(|(key, value)| {
            found
                .iter()
                .any(|tag| tag.key() == Some(key) && tag.value() == Some(value))
        })
    }

    /// The tags of something it makes: its own, which win, a name and the user's.
    pub(crate) fn tags_of(&self, name: String, users: &BTreeMap<String, String>) -> Vec<Tag> {
        let mut all = users.clone();
        all.entry("Name".into()).or_insert(name);
        all.extend(self.tags());
        // The user's were checked with the configuration, Kip's own are short.
        all.retain(|key, value| limits::check(key, value).is_ok());
        all.into_iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_own_group_even_when_its_name_is_too_long() {
        let owner = |node: &str| Owner {
            cluster: "3b8f0a52-7d1c-4c58-9a53-0f8c3a1d2e4f".into(),
            node: node.into(),
        };
        assert_eq!(
            owner("kip-0").group_name(),
            "kip-3b8f0a52-7d1c-4c58-9a53-0f8c3a1d2e4f-kip-0"
        );
        let long = |last: &str| owner(&("n".repeat(249) + last)).group_name();
        assert_eq!(long("a").len(), NAME);
        assert_ne!(long("a"), long("b"));
    }

    /// What a user tags alike must not pass for Kip's own.
    #[test]
    fn only_both_tags_prove_ownership() {
        let owner = Owner {
            cluster: "c".into(),
            node: "n".into(),
        };
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        assert!(owner.owns(&[tag(tags::CLUSTER, "c"), tag(tags::NODE, "n"), tag("x", "y")]));
        for others in [
            vec![],
            vec![tag(tags::CLUSTER, "c")],
            vec![tag(tags::CLUSTER, "c"), tag(tags::NODE, "other")],
        ] {
            assert!(!owner.owns(&others), "{others:?}");
        }
        let users = BTreeMap::from([(tags::CLUSTER.to_owned(), "another".to_owned())]);
        assert!(owner.owns(&owner.tags_of("x".into(), &users)));
    }
}
