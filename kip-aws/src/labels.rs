//! A pod's labels as tags, so that the bill can be split by them.

use std::collections::BTreeMap;

use crate::tags;

/// Labels that Kubernetes' and Kip's own machinery sets begin so. They say nothing about who pays, and Kip's prove whose an instance is.
const MACHINERY: [&str; 5] = [
    "kubernetes.io",
    "io.kubernetes",
    "kiyot.",
    "aws:",
    "kip.elotl.co/",
];
/// Tags by which the old Kip knows its own instances: one that runs beside this one must not take ours for its own.
const OLD_KIPS: [&str; 2] = ["Node", "KipControllerID"];

/// Adds labels to the tags of a launch: none that is a tag already, and no more than fit, the first by name. What EC2 would refuse is left
/// out; a pod is not kept from running for a label.
pub(crate) fn add(labels: &BTreeMap<String, String>, all: &mut BTreeMap<String, String>) {
    let (mut refused, mut room) = (0_usize, tags::MOST.saturating_sub(all.len()));
    for (key, value) in labels {
        let is_machinery = MACHINERY.iter().any(|prefix| key.starts_with(prefix));
        if is_machinery || OLD_KIPS.contains(&key.as_str()) || all.contains_key(key) {
            continue;
        }
        if room == 0 || tags::check(key, value).is_err() {
            refused += 1;
            continue;
        }
        all.insert(key.clone(), value.clone());
        room -= 1;
    }
    if refused > 0 {
        tracing::debug!(
            refused,
            "labels of the pod that EC2 has no room for, or would not take"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// A pod could take over, or hide, instances by its labels.
    #[test]
    fn labels_become_tags_but_never_kips_own() {
        let mut all = map(&[("kip.elotl.co/cluster", "c"), ("team", "operators")]);
        add(
            &map(&[
                ("app", "web"),
                ("app.kubernetes.io/name", "shop"),
                ("team", "pods"),
                ("kip.elotl.co/cluster", "forged"),
                ("kip.elotl.co/anything", "forged"),
                ("kubernetes.io/arch", "arm64"),
                ("io.kubernetes.pod", "x"),
                ("kiyot.unit", "x"),
                ("aws:createdBy", "x"),
                ("KipControllerID", "x"),
                ("Node", "x"),
            ]),
            &mut all,
        );
        let expected = map(&[
            ("app", "web"),
            ("app.kubernetes.io/name", "shop"),
            ("kip.elotl.co/cluster", "c"),
            ("team", "operators"),
        ]);
        assert_eq!(all, expected);
    }

    #[test]
    fn as_many_fit_as_ec2_takes_and_what_it_would_refuse_takes_no_place() {
        let mut all = map(&[("team", "a")]);
        let mut labels: BTreeMap<String, String> = (0..60)
            .map(|i| (format!("label-{i:02}"), "x".to_owned()))
            .collect();
        labels.insert("k".repeat(200), "x".to_owned());
        labels.insert("a-long-one".to_owned(), "v".repeat(300));
        add(&labels, &mut all);
        assert_eq!(all.len(), 50);
        assert!(all.contains_key("label-48") && !all.contains_key("label-49"));
    }
}
