//! The tags of what is launched: EC2's limits, and a tag that says which launch it was.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use hmac_sha256::Hash;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::provider::{LaunchRequest, tags};

use crate::{labels, upkeep};

/// Most tags a resource may have. Source for all limits here: "Tag your Amazon EC2 resources", Amazon EC2 User Guide.
pub(crate) const MOST: usize = 50;
/// Longest key, in characters.
const KEY: usize = 128;
/// Longest value, in characters.
const VALUE: usize = 256;
/// Most tags of the user's own: the rest is for Kip's and for the pod's labels.
pub(crate) const USERS: usize = 30;

/// The tag that says what was asked for, so that a launch is known again although its subnet or image was chosen anew.
pub(crate) const FINGERPRINT: &str = "kip.elotl.co/launch-fingerprint";

/// Whether EC2 takes a tag.
///
/// # Errors
/// Which limit it exceeds.
pub(crate) fn check(key: &str, value: &str) -> Result<(), String> {
    if key.is_empty() || key.chars().count() > KEY {
        return Err(format!("the key `{key}` must have 1 to {KEY} characters"));
    }
    if key
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
    {
        return Err(format!(
            "the key `{key}` must not begin with `aws:`: AWS keeps those"
        ));
    }
    if value.chars().count() > VALUE {
        return Err(format!(
            "the value of `{key}` must have at most {VALUE} characters"
        ));
    }
    Ok(())
}

/// All tags of a launch: the request's, which win, the fingerprint, a name, the user's, and of the pod's labels what fits.
///
/// # Errors
/// `InvalidRequest` when EC2 would refuse one that is not a label.
pub(crate) fn of_launch(
    request: &LaunchRequest,
    users: &BTreeMap<String, String>,
    nametag: Option<&str>,
) -> Result<Vec<Tag>> {
    let refused = |message: String| Error::new(ErrorKind::InvalidRequest, "launch", message);
    let mut all = users.clone();
    // As with the old Kip, a pod may have a name of its own in the console.
    let named = request.options.labels.get("Name").cloned();
    all.entry("Name".into())
        .or_insert_with(|| named.unwrap_or_else(|| name(request, nametag)));
    all.extend(request.tags.clone());
    all.insert(FINGERPRINT.into(), fingerprint(request));
    if !request.options.routes.is_empty() {
        all.insert(upkeep::TAG.into(), upkeep::tag_value(&request.options.routes));
    }
    if let Some(pod) = all.get_mut(tags::POD) {
        // For people, and a namespace and a name may be longer together than a tag.
        *pod = pod.chars().take(VALUE).collect();
    }
    if all.len() > MOST {
        return Err(refused(format!("{} tags, EC2 takes {MOST}", all.len())));
    }
    for (key, value) in &all {
        check(key, value).map_err(|reason| refused(format!("tag: {reason}")))?;
    }
    labels::add(&request.options.labels, &mut all);
    Ok(all
        .into_iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect())
}

fn name(request: &LaunchRequest, nametag: Option<&str>) -> String {
    let pod = request
        .tags
        .get(tags::POD)
        .map_or(request.cell.as_str(), String::as_str);
    ["Kip", nametag.unwrap_or_default(), pod]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(VALUE)
        .collect()
}

/// A hash of everything the caller decided, but the labels: they may change while a launch is repeated, and make no other instance of it.
/// Its pre-image holds a private key, so nothing can be learned from it.
pub(crate) fn fingerprint(request: &LaunchRequest) -> String {
    let mut hash = Hash::new();
    let offering = request.offering.to_string();
    let options = &request.options;
    let mut add = |part: &[u8]| {
        // Length first, so that no two lists of parts run together to the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(request.token.as_str().as_bytes());
    add(offering.as_bytes());
    add(request.user_data.as_bytes());
    add(&options.volume_size.0.to_be_bytes());
    add(&options.ephemeral_storage.0.to_be_bytes());
    add(&[
        u8::from(options.private_address_only),
        u8::from(options.dedicated),
    ]);
    add(options.identity.as_deref().unwrap_or_default().as_bytes());
    for list in [&options.security_groups, &options.routes] {
        add(&list.len().to_be_bytes());
        list.iter().for_each(|one| add(one.as_bytes()));
    }
    for (key, value) in &request.tags {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    hash.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use kip_core::model::{Bytes, LaunchOptions};

    use super::*;
    use crate::testing::request;

    fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
        tags.iter()
            .find(|tag| tag.key() == Some(key))
            .and_then(Tag::value)
    }

    /// Ownership is proved by these tags: a user's tag of the same name must not hide whose an instance is.
    #[test]
    fn kips_tags_win_over_the_users() {
        let users = BTreeMap::from([
            (tags::CLUSTER.to_owned(), "another".to_owned()),
            ("team".to_owned(), "a".to_owned()),
        ]);
        let request = request().with_tag(tags::CLUSTER, "c").with_tag(tags::POD, "ns/p");
        let tags_of_it = of_launch(&request, &users, Some("test")).unwrap();
        assert_eq!(value(&tags_of_it, tags::CLUSTER), Some("c"));
        assert_eq!(value(&tags_of_it, "team"), Some("a"));
        assert_eq!(value(&tags_of_it, "Name"), Some("Kip test ns/p"));
    }

    #[test]
    fn a_pods_label_may_name_the_instance_and_a_full_set_of_tags_takes_no_label() {
        let mut options = LaunchOptions::default();
        options.labels = [
            ("Name".to_owned(), "shop".to_owned()),
            ("app".to_owned(), "web".to_owned()),
        ]
        .into();
        let request = request().with_options(options);
        let kept = of_launch(&request, &BTreeMap::new(), None).unwrap();
        assert_eq!(value(&kept, "Name"), Some("shop"));
        assert_eq!(value(&kept, "app"), Some("web"));

        let mut full = request;
        for i in 0..MOST - 2 {
            full = full.with_tag(format!("tag-{i}"), "");
        }
        let kept = of_launch(&full, &BTreeMap::new(), None).unwrap();
        assert_eq!((kept.len(), value(&kept, "app")), (MOST, None));
    }

    #[test]
    fn what_ec2_would_refuse_is_refused_before_the_call() {
        let pod = "x".repeat(400);
        let long = request().with_tag(tags::POD, &pod);
        let kept = of_launch(&long, &BTreeMap::new(), None).unwrap();
        assert_eq!(value(&kept, tags::POD).map(str::len), Some(VALUE));

        let mut many = request();
        for i in 0..=MOST {
            many = many.with_tag(format!("label-{i}"), "");
        }
        for bad in [
            many,
            request().with_tag("k".repeat(KEY + 1), ""),
            request().with_tag("k", "v".repeat(VALUE + 1)),
            request().with_tag("AWS:k", ""),
        ] {
            let error = of_launch(&bad, &BTreeMap::new(), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        }
    }

    /// A repeat is known by it; anything else must not be taken for a repeat.
    #[test]
    fn the_fingerprint_is_of_everything_the_caller_decided() {
        let base = request();
        assert_eq!(fingerprint(&base), fingerprint(&base.clone()));
        let mut other = base.clone();
        other.user_data = kip_core::provider::UserData::new("y");
        type Change = fn(&mut LaunchOptions);
        let changes: [Change; 7] = [
            |options| options.volume_size = Bytes::gib(9),
            |options| options.ephemeral_storage = Bytes::gib(9),
            |options| options.private_address_only = true,
            |options| options.dedicated = true,
            |options| options.identity = Some("cell".into()),
            |options| options.security_groups = ["sg-1".to_owned()].into(),
            |options| options.routes = ["sg-1".to_owned()].into(),
        ];
        let with = changes.map(|change| {
            let mut options = LaunchOptions::default();
            change(&mut options);
            base.clone().with_options(options)
        });
        let mut all: Vec<String> = with
            .iter()
            .chain([&base, &other, &base.clone().with_tag("a", "b")])
            .map(fingerprint)
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10, "two different launches have one fingerprint");

        let mut labelled = LaunchOptions::default();
        labelled.labels = [("app".to_owned(), "web".to_owned())].into();
        assert_eq!(
            fingerprint(&base),
            fingerprint(&base.clone().with_options(labelled))
        );
    }
}
