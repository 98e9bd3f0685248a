//! What annotations and selectors allow together. Each narrows the other; where they leave nothing, the pod is refused rather than one of
//! them overruled.

use std::collections::BTreeSet;

use super::Refusal;
use super::selection::joined;
use crate::model::CapacityType;
use crate::sizing::type_matches;

const ANNOTATION: &str = "Annotation pod.elotl.co/instance-type";

/// Ways of buying that both allow; empty is the default.
pub(super) fn capacity_types(
    annotated: BTreeSet<CapacityType>,
    selected: BTreeSet<CapacityType>,
) -> Result<BTreeSet<CapacityType>, Refusal> {
    if annotated.is_empty() || selected.is_empty() {
        return Ok(if annotated.is_empty() { selected } else { annotated });
    }
    let both: BTreeSet<CapacityType> = annotated.intersection(&selected).copied().collect();
    if both.is_empty() {
        return Err(Refusal::invalid(format!(
            "Annotation pod.elotl.co/launch-type allows {}, but the pod's selectors for karpenter.sh/capacity-type or \
             kip.elotl.co/capacity-type allow {}; change one of them.",
            joined(&annotated),
            joined(&selected)
        )));
    }
    Ok(both)
}

/// Instance types that both allow; empty is any.
pub(super) fn instance_types(
    annotated: Option<&str>,
    selected: BTreeSet<String>,
) -> Result<BTreeSet<String>, Refusal> {
    let Some(pattern) = annotated else {
        return of_linux(
            selected,
            "The pod's selectors for node.kubernetes.io/instance-type",
        );
    };
    if selected.is_empty() {
        return of_linux([pattern.to_owned()].into(), ANNOTATION);
    }
    // A name that the other's pattern covers. Of two patterns only equal ones are known to agree.
    let agrees = |name: &String| name == pattern || type_matches(pattern, name);
    let mut both: BTreeSet<String> = selected.iter().filter(|name| agrees(name)).cloned().collect();
    if selected.iter().any(|selected| type_matches(selected, pattern)) {
        both.insert(pattern.to_owned());
    }
    if both.is_empty() {
        return Err(Refusal::invalid(format!(
            "Annotation pod.elotl.co/instance-type allows {pattern}, but the pod's selectors for node.kubernetes.io/instance-type allow \
             {}; change one of them.",
            joined(&selected)
        )));
    }
    of_linux(both, ANNOTATION)
}

/// Takes out what runs only macOS; refuses a pod that wants nothing else.
fn of_linux(types: BTreeSet<String>, field: &str) -> Result<BTreeSet<String>, Refusal> {
    let is_mac = |name: &String| {
        let family = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
        family.starts_with("mac")
    };
    if !types.is_empty() && types.iter().all(is_mac) {
        return Err(Refusal::unsupported(format!(
            "{field}: {} runs macOS on a Dedicated Host, and cells run linux; name another type.",
            joined(&types)
        )));
    }
    Ok(types.into_iter().filter(|name| !is_mac(name)).collect())
}
